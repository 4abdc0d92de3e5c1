"""colossalai-env check: it runs in place of the training script, and rank 0 draws the map of the job."""

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env.cli.jobmap import JobMap, Member, Sample, amount, duration, rate
from colossalai_env.cli.picture import html, svg
from tests.processes import TORCHRUN, Processes, free_port, run

SCRIPT = Path(sys.executable).parent / "colossalai-env"


def launched(*options: str | Path) -> Any:
    return run([*TORCHRUN, "--standalone", "--nproc-per-node=2", "--no-python", SCRIPT, "check", *options])


def test_a_right_launch_ends_with_its_map_and_its_figures(tmp_path: Path) -> None:
    ended = launched("--largest", "4096", "--svg", tmp_path / "job.svg", "--html", tmp_path / "job.html")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("2 ranks on 1 node, gloo, by torch, met at localhost:")
    assert re.search(r"^0 +\S+ +0-1 +cpu", ended.out, re.MULTILINE)
    assert [line.split("  ")[0] for line in ended.out.splitlines() if "B/s" in line] == [
        "8 B",
        "64 B",
        "512 B",
        "4 KiB",
    ]
    assert ended.out.endswith("All ranks met, and their sums are right.\n")
    assert ET.fromstring((tmp_path / "job.svg").read_text()).tag.endswith("svg")
    assert "<svg" in (tmp_path / "job.html").read_text()


def test_as_json_it_is_one_document_of_rank_0() -> None:
    report = json.loads(launched("--json", "--largest", "64").out)
    assert (report["world_size"], report["backend"], report["failures"]) == (2, "gloo", [])
    assert [member["rank"] for member in report["nodes"][0]["ranks"]] == [0, 1]
    assert [sample["bytes"] for sample in report["all_reduce"]] == [8, 64]


def test_one_process_alone_is_a_map_too() -> None:
    ended = run([SCRIPT, "check"])
    assert (ended.code, "1 rank on 1 node" in ended.out) == (0, True)


def test_ranks_that_are_started_by_hand_are_told_by_options() -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank in ("0", "1"):
            where = ["--rank", rank, "--world_size", "2", "--host", "127.0.0.1", "--port", port]
            processes.start([SCRIPT, "check", "--largest", "0", *where])
        ended = processes.wait()
    assert [process.code for process in ended] == [0, 0]
    assert ["2 ranks on 1 node" in process.out for process in ended] == [True, False]


def test_a_wrong_setup_ends_every_rank_with_its_error() -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank, size in (("0", "2"), ("1", "3")):
            where = ["--rank", rank, "--world_size", size, "--host", "127.0.0.1", "--port", port]
            processes.start([SCRIPT, "check", "--timeout", "10", *where])
        ended = processes.wait()
    assert [process.code for process in ended] == [1, 1]
    assert all("Disagreement: the ranks disagree on the world size" in process.err for process in ended)
    assert not any("Traceback" in process.err for process in ended)


def test_a_picture_that_cannot_be_written_costs_nothing_but_itself() -> None:
    ended = run([SCRIPT, "check", "--svg", "/absent/job.svg"])
    assert ended.code == 1
    assert "All ranks met" in ended.out
    assert "--svg /absent/job.svg cannot be written: No such file or directory" in ended.err


def member(rank: int, node: int, **said: Any) -> Member:
    usual: dict[str, Any] = {
        "host": f"n{node}",
        "local_rank": 0,
        "device": "cpu",
        "model": "",
        "accelerators": 0,
        "cpus": 8,
        "threads": 1,
        "clock": 1e9,
    }
    return Member(rank=rank, node_rank=node, **(usual | said))


def job(*members: Member, **said: Any) -> JobMap:
    return JobMap(backend="gloo", resolver="slurm", endpoint="n0:1", versions="", members=members, **said)


ODD: list[tuple[list[Member], list[list[str]]]] = [
    ([member(0, 0), member(1, 1)], [[], []]),
    ([member(0, 0), member(1, 0), member(2, 1), member(3, 2)], [["2 ranks here, most nodes have 1"], [], []]),
    ([member(0, 0, accelerators=4)], [["rank(s) 0 on the CPU beside accelerators"]]),
    ([member(0, 0, threads=8), member(1, 0, threads=8)], [["16 threads on 8 cores: set OMP_NUM_THREADS=4"]]),
    ([member(0, 0, cpus=1), member(1, 0, cpus=1)], [["2 ranks share 1 core"]]),
    ([member(0, 0), member(1, 1), member(2, 2, clock=1e9 + 3)], [[], [], ["its clock is 3.0 s ahead"]]),
]


@pytest.mark.parametrize(("members", "marks"), ODD)
def test_what_is_odd_about_a_node_is_marked(members: list[Member], marks: list[list[str]]) -> None:
    assert [list(node.marks) for node in job(*members).nodes()] == marks


def test_devices_of_a_node_are_put_together() -> None:
    gpus = [member(rank, 0, device=f"cuda:{rank}", model="H100") for rank in range(4)]
    assert next(job(*gpus).nodes()).devices == "cuda:0-3 (H100)"


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=40)
nodes = st.lists(st.tuples(texts, st.integers(1, 9)), min_size=1, max_size=12)
samples = st.lists(st.tuples(st.integers(1, 1 << 36), st.floats(1e-9, 1e4)), max_size=9)


@given(nodes, samples, st.sampled_from(["cpu", "cuda:7"]))
def test_any_job_is_drawn_with_every_rank_and_well_formed(
    hosts: list[tuple[str, int]], times: list[tuple[int, float]], device: str
) -> None:
    ranks = [
        member(100 * node + local, node, host=host, local_rank=local, device=device, model=host)
        for node, (host, count) in enumerate(hosts)
        for local in range(count)
    ]
    found = job(*ranks, samples=tuple(Sample(8 * size, time) for size, time in sorted(times)), failures=("a < b",))
    root = ET.fromstring(svg(found))
    said = [element.text for element in root.iter() if element.get("class") == "number"]
    assert said == [str(rank.rank) for rank in ranks]
    assert "NaN" not in svg(found)
    for host, _ in hosts:
        assert "<script" not in html(job(*ranks))
        assert host == "" or host in "".join(root.itertext())


def test_amounts_times_and_rates_are_written_as_people_do() -> None:
    assert [amount(size) for size in (8, 512, 4096, 64 << 20, 3 << 30)] == ["8 B", "512 B", "4 KiB", "64 MiB", "3 GiB"]
    assert [duration(time) for time in (18e-6, 2.5e-3, 1.25)] == ["18 µs", "2.5 ms", "1.25 s"]
    assert [rate(speed) for speed in (4200, 3.1e8, 1.25e9, 2e12)] == ["4.2 kB/s", "310 MB/s", "1.25 GB/s", "2 TB/s"]


def test_bus_bandwidth_counts_what_crosses_a_link_of_the_ring() -> None:
    assert Sample(1000, 1.0).bus_bandwidth(4) == 1500.0
