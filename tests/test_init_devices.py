"""Whole jobs on devices that are not there: real ranks that meet over gloo, each told what it sees."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.devices import Fake
from tests.processes import clean_environment, free_port

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parent / "programs" / "forked_ranks.py"
A, B, C, D = (f"GPU-{letter * 8}-0000-0000-0000-000000000000" for letter in "abcd")
NOT_USABLE = Fake(machine={"files": ["/dev/nvidia0"], "ids": [A], "known": 1})

Ranks = list[dict[str, Any]]
Together = Callable[..., Ranks]


@pytest.fixture(scope="module")
def together() -> Generator[Together]:
    """Return what starts one rank for each fake, all on this node, and returns what came of each."""
    with subprocess.Popen(
        [sys.executable, PROGRAM], env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:

        def start(
            fakes: Sequence[Fake | None],
            env: Sequence[dict[str, str]] | None = None,
            **keywords: Any,
        ) -> Ranks:
            shared = {"WORLD_SIZE": str(len(fakes)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            ranks = [
                {
                    "fake": None if fake is None else attrs.asdict(fake),
                    "env": {"RANK": str(rank), **shared, **(env[rank] if env else {"LOCAL_RANK": str(rank)})},
                    "keywords": keywords,
                }
                for rank, fake in enumerate(fakes)
            ]
            assert server.stdin
            assert server.stdout
            server.stdin.write(json.dumps(ranks) + "\n")
            server.stdin.flush()
            return list(json.loads(server.stdout.readline()))

        yield start
        assert server.stdin
        server.stdin.close()
        assert server.wait(30) == 0


def took(ranks: Ranks, *facts: str) -> list[Any]:
    """Return a fact, or some, of each rank, none of which may have failed."""
    assert not any("error" in one for one in ranks), ranks
    return [one[facts[0]] if len(facts) == 1 else tuple(one[fact] for fact in facts) for one in ranks]


def refused(ranks: Ranks, *names: str) -> list[str]:
    """Return what each rank says of the error that it ended with, by its name or by one for all."""
    assert [one.get("error") for one in ranks] == list(names * len(ranks) if len(names) == 1 else names), ranks
    return [one["text"] for one in ranks]


LOCAL_RANKS = pytest.mark.parametrize("said", [True, False], ids=["said", "found out"])


def env(size: int, *, said: bool = True) -> list[dict[str, str]]:
    """Return each rank's variables: its local rank, or nothing that says it."""
    return [{"LOCAL_RANK": str(rank)} if said else {} for rank in range(size)]


@LOCAL_RANKS
def test_tasks_with_several_gpus_of_their_own_take_the_first_of_them(said: bool, together: Together) -> None:
    """As under srun --ntasks-per-node=2 --gpus-per-task=2, where a local rank is no number among them."""
    ranks = together([Fake(ids=(A, B)), Fake(ids=(C, D))], env(2, said=said), backend="gloo")
    assert took(ranks, "device", "local_rank", "sum") == [("cuda:0", 0, 3.0), ("cuda:0", 1, 3.0)]
    assert took(ranks, "devices") == [[A[:17], C[:17]]] * 2


def test_four_tasks_with_two_gpus_each_of_their_own_start(together: Together) -> None:
    fakes = [Fake(ids=(f"GPU-{rank}0000000-0000", f"GPU-{rank}1111111-0000")) for rank in range(4)]
    assert took(together(fakes, backend="gloo"), "device", "sum") == [("cuda:0", 10.0)] * 4


@LOCAL_RANKS
def test_tasks_that_see_all_gpus_take_the_local_ranks(said: bool, together: Together) -> None:
    ranks = together([Fake(ids=(A, B))] * 2, env(2, said=said), backend="gloo")
    assert took(ranks, "device", "sum") == [("cuda:0", 3.0), ("cuda:1", 3.0)]
    assert took(ranks, "devices") == [[A[:17], B[:17]]] * 2


@LOCAL_RANKS
def test_more_tasks_than_gpus_end_all_alike_with_the_numbers(said: bool, together: Together) -> None:
    sentences = refused(together([Fake(ids=(A, B))] * 3, env(3, said=said), backend="gloo"), "RankFailed")
    assert len(set(sentences)) == 1
    assert "local rank 2 needs device 2, but 2 cuda device(s) are visible (rank 2): start one" in sentences[0]


def test_a_device_that_is_asked_for_is_taken_and_may_be_no_one_elses(together: Together) -> None:
    assert took(together([Fake(ids=(A, B))] * 2, device="cuda", backend="gloo"), "device") == ["cuda:0", "cuda:1"]
    sentences = refused(together([Fake(ids=(A, B))] * 2, device="cuda:1"), "SharedDevice")
    assert f"both have device {B[:17]}" in sentences[0]


def test_without_a_roll_call_the_local_rank_counts(together: Together) -> None:
    off = [{**own, "COLOSSALAI_ENV_ROLL_CALL": "off"} for own in env(2)]
    assert took(together([Fake(ids=(A, B))] * 2, off, backend="gloo"), "device") == ["cuda:0", "cuda:1"]
    ranks = together([Fake(ids=(A, B))] * 3, [{**own, "COLOSSALAI_ENV_ROLL_CALL": "off"} for own in env(3)])
    assert "local rank 2 needs device 2" in ranks[2]["text"]
    assert ranks[2]["error"] == "NoSuchDevice"


def test_two_ranks_on_one_gpu_are_refused_with_nccl_and_told_every_way_out(together: Together) -> None:
    sentences = refused(together([Fake(ids=(A,))] * 2), "SharedDevice")
    assert len(set(sentences)) == 1
    for words in (
        "rank 0 (pid ", "rank 1 (pid ", f"both have device {A[:17]}, which cpu:gloo,cuda:nccl cannot share",
        "start one process per device", "--gpus-per-task=1", "backend='gloo'", "device='cpu'",
    ):  # fmt: skip
        assert words in sentences[0]


def test_two_ranks_on_one_gpu_go_on_with_gloo_and_one_warning(together: Together) -> None:
    ranks = together([Fake(ids=(A,))] * 2, backend="gloo")
    assert took(ranks, "device", "sum") == [("cuda:0", 3.0)] * 2
    assert re.fullmatch(
        rf"rank 0 \(pid \d+ on \S+\) and rank 1 \(pid \d+ on \S+\) share device {A[:17]}: each has a part of its "
        r"memory and time\n",
        ranks[0]["stderr"],
    )
    assert ranks[1]["stderr"] == ""


def test_two_ranks_on_one_gpu_go_on_with_the_cpu_in_silence(together: Together) -> None:
    ranks = together([Fake(ids=(A,))] * 2, device="cpu")
    assert took(ranks, "device", "backend", "devices", "stderr") == [("cpu", "gloo", ["cpu", "cpu"], "")] * 2


def test_ranks_of_one_host_with_one_local_rank_start_where_no_device_is_shared(together: Together) -> None:
    """Nodes that are played on one machine, with LOCAL_RANK=0 on each."""
    for fakes in ([None, None], [Fake(ids=(A,)), Fake(ids=(B,))]):
        assert took(together(fakes, [{"LOCAL_RANK": "0"}] * 2, backend="gloo"), "sum") == [3.0, 3.0]


def test_devices_without_uuids_are_told_apart_by_local_rank(together: Together) -> None:
    unnamed = Fake(kind="xpu", maker="Intel", ids=("",))
    sentences = refused(together([unnamed] * 2, [{"LOCAL_RANK": "0"}] * 2), "SharedDevice")
    assert "both have local rank 0, which cpu:gloo,xpu:xccl cannot share" in sentences[0]


def test_where_one_rank_sees_no_gpu_both_are_told_who_sees_what(together: Together) -> None:
    seen = [{"LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": "0"}, {"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": ""}]
    sentences = refused(together([Fake(ids=(A,)), Fake()], seen), "InconsistentRanks")
    assert len(set(sentences)) == 1
    assert re.search(
        r"the ranks see different devices, and so they disagree on the backend: rank 1 \(pid \d+ on \S+\) sees no "
        r"accelerator \(CUDA_VISIBLE_DEVICES is ''\) and takes gloo; rank\(s\) 0 take cpu:gloo,cuda:nccl, since rank 0 "
        r"\(pid \d+ on \S+\) sees 1 cuda device\(s\) \(CUDA_VISIBLE_DEVICES is '0'\): show every rank its device",
        sentences[0],
    )


def test_a_rank_whose_gpu_cannot_be_used_tells_the_others_why(together: Together) -> None:
    hidden = [{"LOCAL_RANK": "0"}, {"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "foo"}]
    sentences = refused(together([Fake(ids=(A,)), NOT_USABLE], hidden), "RankFailed", "UnusableDevices")
    assert "rank 1 (pid " in sentences[0]
    assert all("CUDA_VISIBLE_DEVICES is 'foo', and 'foo' is neither" in one for one in sentences)


def test_a_process_alone_takes_its_first_gpu_or_its_local_ranks(together: Together) -> None:
    for own, device in (({}, "cuda:0"), ({"LOCAL_RANK": "1"}, "cuda:1")):
        ranks = together([Fake(ids=(A, B))], [own], backend="gloo")
        assert took(ranks, "device", "devices") == [(device, [device])]


NO_INTERFACE = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:77, invalid usage (run with NCCL_DEBUG=WARN for "
    "details), NCCL version 2.28.9\nncclInvalidUsage: This usually reflects invalid usage of NCCL library.\n"
    "Last error:\nBootstrap : no socket interface found"
)
MEANT = (
    r"the process group's backend \S+ did not connect \(rank {rank} on \S+\): Bootstrap : no socket interface found "
    r"\(ncclInvalidUsage, NCCL 2\.28\.9\)\. NCCL may use none of this host's network interfaces: unset "
    r"NCCL_SOCKET_IFNAME.*\(NCCL_SOCKET_IFNAME is 'absent0'\)\.$"
)


def test_nccls_own_failure_is_our_error_with_its_last_line_alone_and_in_a_group(together: Together) -> None:
    fails, absent = Fake(ids=(A,), nccl=NO_INTERFACE), {"NCCL_SOCKET_IFNAME": "absent0"}
    (alone,) = refused(together([fails], [absent]), "GroupFailed")
    assert re.match(MEANT.format(rank=0), alone)
    in_two = [{"LOCAL_RANK": "0"}, {"LOCAL_RANK": "1", **absent}]
    sentences = refused(together([Fake(ids=(B,)), fails], in_two, backend="gloo"), "RankFailed", "GroupFailed")
    assert all(re.match(MEANT.format(rank=1), one) for one in sentences)
