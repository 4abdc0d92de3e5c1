"""colossalai-env check: it runs in place of the training script, and rank 0 draws the map of the job."""

import itertools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from colossalai_env import cli
from colossalai_env.cli.check import wrong_sums
from colossalai_env.cli.jobmap import JobMap, Member, Sample, amount, duration, rate
from colossalai_env.cli.picture import html, svg
from tests.processes import Processes, free_port, run
from tests.warm import torchrun, warm

pytestmark = pytest.mark.slow

SCRIPT = Path(sys.executable).parent / "colossalai-env"
PROGRAM = Path(__file__).parent / "programs" / "check_lost.py"


def check() -> list[str]:
    return [warm(), "-m", "colossalai_env", "check"]


def launched(*options: str | Path) -> Any:
    return run([*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", *check(), *options])


def test_a_right_launch_ends_with_its_map_and_its_figures(tmp_path: Path) -> None:
    ended = launched("--largest", "4096", "--svg", tmp_path / "job.svg", "--html", tmp_path / "job.html")
    assert ended.code == 0, ended.err
    assert ended.out.startswith("2 ranks on 1 node, gloo, by torch, met at localhost:")
    assert re.search(r"^0 +\S+ +0-1 +cpu", ended.out, re.MULTILINE)
    timed = [line.split("  ")[0] for line in ended.out.splitlines() if "B/s" in line]
    assert timed == ["4 B", "32 B", "256 B", "2 KiB"]
    assert ended.out.endswith("All ranks met, and their sums are right.\n")
    assert ET.fromstring((tmp_path / "job.svg").read_text()).tag.endswith("svg")
    assert "<svg" in (tmp_path / "job.html").read_text()


def test_as_json_it_is_one_document_of_rank_0() -> None:
    report = json.loads(launched("--json", "--largest", "64").out)
    assert (report["world_size"], report["backend"], report["failures"]) == (2, "gloo", [])
    assert [member["rank"] for member in report["nodes"][0]["ranks"]] == [0, 1]
    assert [sample["bytes"] for sample in report["all_reduce"]] == [4, 32]


def test_one_process_alone_is_a_map_too() -> None:
    ended = run([SCRIPT, "check"])
    assert (ended.code, "1 rank on 1 node" in ended.out) == (0, True)


def test_a_device_can_be_asked_for() -> None:
    ended = run([*check(), "--largest", "0", "--device", "cpu"])
    assert (ended.code, "1 rank on 1 node, gloo" in ended.out) == (0, True)
    for asked in ("7", "cuda:7"):
        ended = run([*check(), "--device", asked])
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(f"NoSuchDevice: device {asked} was asked for, but 0 ")


def test_ranks_that_are_started_by_hand_are_told_by_options() -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank in ("0", "1"):
            where = ["--rank", rank, "--world_size", "2", "--host", "127.0.0.1", "--port", port]
            processes.start([*check(), "--largest", "0", *where])
        ended = processes.wait()
    assert [process.code for process in ended] == [0, 0]
    assert ["2 ranks on 1 node" in process.out for process in ended] == [True, False]


def test_a_wrong_setup_ends_every_rank_with_its_error() -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank, size in (("0", "2"), ("1", "3")):
            where = ["--rank", rank, "--world_size", size, "--host", "127.0.0.1", "--port", port]
            processes.start([*check(), "--timeout", "10", *where])
        ended = processes.wait()
    assert [process.code for process in ended] == [1, 1]
    assert all("InconsistentRanks: the ranks disagree on the world size" in process.err for process in ended)
    assert not any("Traceback" in process.err for process in ended)


def test_an_error_leaves_standard_output_to_rank_0_of_a_job_that_met() -> None:
    ended = run([*check(), "--json"], {"RANK": "0", "WORLD_SIZE": "two"})
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("MalformedVariable: ")


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_a_rank_that_is_killed_or_stopped_in_a_measurement_holds_nobody(signal: str) -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank in ("0", "2", "1"):
            where = ["--rank", rank, "--world_size", "3", "--host", "127.0.0.1", "--port", port]
            processes.start([warm(), PROGRAM, signal, *where])
        lost = processes.started.pop()
        ended = processes.wait()
        processes.started.append(lost)
    for number, process in zip((0, 2), ended, strict=True):
        assert (process.code, process.out) == (1, "")
        failed = rf"^CollectiveFailed: an all_reduce of \d+ B over gloo failed \(rank {number} on "
        assert re.search(failed, process.err, re.MULTILINE)
        assert "Traceback" not in process.err


@pytest.mark.parametrize("words", [["--largest", "-8"], ["--largest", "1e6"], ["--timeout", "0"], ["--timeout", "nan"]])
def test_an_amount_that_cannot_be_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.parser_of("check").parse_args(words)
    assert stopped.value.code == 2
    assert f"{words[0]}: {words[1]!r}, expected a " in capsys.readouterr().err


def test_wrong_sums_are_told_by_what_was_got() -> None:
    assert wrong_sums([[6], [6], [6]], 6) == ()
    assert wrong_sums([[6], [5], [5], [0, 6]], 6) == (
        "rank(s) 1-2 got 5 as the sum over all ranks, expected 6",
        "rank(s) 3 got 0 and 6 as the sum over all ranks, expected 6",
    )


def test_a_picture_that_cannot_be_written_costs_nothing_but_itself() -> None:
    ended = run([*check(), "--svg", "/absent/job.svg"])
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
        "cores": tuple(range(8)),
        "threads": 1,
        "clock": 1e9,
    }
    return Member(rank=rank, node_rank=node, **(usual | said))


def job(*members: Member, **said: Any) -> JobMap:
    return JobMap(backend="gloo", resolver="slurm", endpoint="n0:1", versions="", members=members, **said)


GPU = {"device": "cuda:0", "model": "H100", "accelerators": 1}
LOOPBACK = "its name leads to 127.0.1.1, which no other host can reach: mend /etc/hosts"

ODD: list[tuple[list[Member], list[list[str]]]] = [
    ([member(0, 0), member(1, 1)], [[], []]),
    ([member(0, 0), member(1, 0), member(2, 1), member(3, 2)], [["2 ranks here, 1 rank on each of 2 others"], [], []]),
    ([member(0, 0), member(1, 0), member(2, 1)], [[], ["1 rank here, 2 ranks on another"]]),
    ([member(0, 0, **GPU), member(1, 1, **GPU | {"model": "A100"})], [[], ["A100 here, H100 on another"]]),
    ([member(0, 0, accelerators=4)], [["rank(s) 0 on the CPU beside accelerators"]]),
    ([member(0, 0, threads=8), member(1, 0, threads=8)], [["16 threads on 8 cores: set OMP_NUM_THREADS=4"]]),
    ([member(0, 0, cores=(0,)), member(1, 0, cores=(0,))], [["2 ranks share 1 core"]]),
    ([member(0, 0, cores=(0,)), member(1, 0, cores=(1,))], [[]]),
    ([member(0, 0), member(1, 1), member(2, 2, clock=1e9 + 3)], [[], [], ["its clock is 3.0 s ahead"]]),
    ([member(0, 0, addresses=("127.0.1.1",)), member(1, 1, addresses=("10.0.0.2",))], [[LOOPBACK], []]),
    ([member(0, 0, addresses=("127.0.1.1", "10.0.0.1")), member(1, 1)], [[], []]),
    ([member(0, 0, addresses=("127.0.1.1",))], [[]]),
]


@pytest.mark.parametrize(("members", "marks"), ODD)
def test_what_is_odd_about_a_node_is_marked(members: list[Member], marks: list[list[str]]) -> None:
    assert [list(node.marks) for node in job(*members).nodes()] == marks


def test_devices_of_a_node_are_put_together() -> None:
    gpus = [member(rank, 0, device=f"cuda:{rank}", model="H100") for rank in range(4)]
    assert next(job(*gpus).nodes()).devices == "cuda:0-3 (H100)"


texts = st.text(max_size=40)
nodes = st.lists(st.tuples(texts, st.integers(1, 9)), min_size=1, max_size=12)
samples = st.lists(st.tuples(st.integers(1, 1 << 36), st.floats(1e-9, 1e4)), max_size=9)


@given(nodes, samples, st.sampled_from(["cpu", "cuda:7"]))
@example([("n0", 1)], [(1, 1e-3), (2, 1e-3)], "cpu")
@example([("\0]]>&", 9)] * 12, [(1, 1e-3)] * 2, "cuda:7")
def test_any_job_is_drawn_with_every_rank_and_well_formed(
    hosts: list[tuple[str, int]], times: list[tuple[int, float]], device: str
) -> None:
    ranks = [
        member(100 * node + local, node, host=host, local_rank=local, device=device, model=host)
        for node, (host, count) in enumerate(hosts)
        for local in range(count)
    ]
    found = job(*ranks, samples=tuple(Sample(4 * size, time) for size, time in sorted(times)), failures=("a < b",))
    root = ET.fromstring(svg(found))
    said = [element.text for element in root.iter() if "number" in (element.get("class") or "").split()]
    assert said == [str(rank.rank) for rank in ranks]
    places = [value for element in root.iter() for name, value in element.items() if name in {"x", "y", "cx", "cy"}]
    assert all(math.isfinite(float(value)) for value in places)
    drawn = "".join(root.itertext())
    assert all(readable(host) in drawn for host, _ in hosts)
    assert ET.fromstring(html(found).partition("<div")[2].partition(">")[2].partition("</div>")[0]).tag == root.tag


def readable(text: str) -> str:
    """Return a text as XML can say it: control characters replaced, ends of lines as a parser hands them over."""
    text = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_what_people_name_their_hosts_is_no_markup() -> None:
    for drawn in (svg(job(member(0, 0, host="<script>&\"'"))), html(job(member(0, 0, host="<script>&\"'")))):
        assert "<script" not in drawn
        assert "&lt;script&gt;&amp;&quot;&#x27;" in drawn


def test_the_names_of_sizes_stand_apart_under_a_plot() -> None:
    root = ET.fromstring(
        svg(job(member(0, 0), member(1, 0), samples=tuple(Sample(4 << 3 * k, 1e-3) for k in range(9))))
    )
    names = [float(text.get("x") or 0) for text in root.iter() if (text.text or "") in {"4 B", "1 MiB", "64 MiB"}]
    assert len(names) == 6
    places = [float(text.get("x") or 0) for text in root.iter() if re.fullmatch(r"\d+ .?i?B", text.text or "")]
    assert all(abs(later - earlier) > 50 for earlier, later in itertools.pairwise(places))


@given(nodes)
def test_every_rank_lies_in_its_node_and_every_node_in_the_picture(hosts: list[tuple[str, int]]) -> None:
    ranks = [member(local, node) for node, (_, count) in enumerate(hosts) for local in range(count)]
    root = ET.fromstring(svg(job(*ranks)))
    page, *rest = [element for element in root.iter() if element.tag.endswith("rect")]
    card = page
    for element in rest:
        card = element if "card" in (element.get("class") or "") else card
        assert inside(element, page if element is card else card)


def inside(inner: ET.Element, outer: ET.Element) -> bool:
    def edges(element: ET.Element, start: str, length: str) -> tuple[float, float]:
        begin = float(element.get(start, "0"))
        return begin, begin + float(element.get(length, "0"))

    return all(
        edges(outer, *axis)[0] <= edges(inner, *axis)[0] and edges(inner, *axis)[1] <= edges(outer, *axis)[1]
        for axis in (("x", "width"), ("y", "height"))
    )


def test_amounts_times_and_rates_are_written_as_people_do() -> None:
    assert [amount(size) for size in (8, 512, 4096, 64 << 20, 3 << 30)] == ["8 B", "512 B", "4 KiB", "64 MiB", "3 GiB"]
    times = (18e-6, 999.4e-6, 999.6e-6, 2.5e-3, 1.25)
    assert [duration(time) for time in times] == ["18 µs", "999 µs", "1 ms", "2.5 ms", "1.25 s"]
    assert [rate(speed) for speed in (4200, 999_600, 3.1e8, 1.25e9, 2e12)] == [
        "4.2 kB/s",
        "1 MB/s",
        "310 MB/s",
        "1.25 GB/s",
        "2 TB/s",
    ]


def test_bus_bandwidth_counts_what_crosses_a_link_of_the_ring() -> None:
    assert Sample(1000, 1.0).bus_bandwidth(4) == 1500.0
