"""On a machine with two GPUs: one rank per GPU, which GPU each takes, and what it leaves on the other."""

import pytest

from colossalai_env import _machine as machine
from tests.devices import SHOWN
from tests.gpu.running import BOTH, command, on_gpu, ranks, told
from tests.processes import TORCHRUN, run

pytestmark = [pytest.mark.gpu, pytest.mark.gpu2]

TAKES = """
try:
    with init_from_env(timeout=120, **json.loads(os.environ.get("KEYWORDS", "{}"))) as job:
        tell(device=str(job.device), backend=job.backend, on=contexts(), current=torch.cuda.current_device(),
             sum=total(job.device, job.rank + 1.0), peers=[peer.device for peer in job.topology])
except colossalai_env.ColossalaiEnvError as error:
    tell(kind=type(error).__name__, text=str(error))
"""
UUIDS = [uuid[:17] for uuid in machine.nvml().ids]
TWO = {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_each_rank_takes_the_gpu_of_its_local_rank_and_leaves_the_other_alone() -> None:
    found = [told(ended) for ended in ranks(TAKES, [TWO, TWO])]
    assert [(one["device"], one["current"], one["on"]) for one in found] == [("cuda:0", 0, [0]), ("cuda:1", 1, [1])]
    assert [(one["backend"], one["sum"]) for one in found] == [(BOTH, 3.0)] * 2
    assert len(set(found[0]["peers"])) == 2


def test_torchrun_starts_one_rank_for_each_gpu() -> None:
    torchrun = [*TORCHRUN, "--standalone", "--nproc-per-node=2", "--no-python"]
    ended = run([*torchrun, *command(TAKES)], {**SHOWN, **TWO})
    assert ended.code == 0, ended.err
    assert len(ended.lines("TOLD ")) == 2
    assert ended.out.count('"sum": 3.0') == 2


def test_tasks_that_are_shown_one_gpu_each_take_it_whatever_their_local_rank() -> None:
    for local_ranks in (("0", "1"), ("0", "0")):
        envs = [{"CUDA_VISIBLE_DEVICES": str(rank), "LOCAL_RANK": local_ranks[rank]} for rank in range(2)]
        found = [told(ended) for ended in ranks(TAKES, envs)]
        assert [(one["device"], one["sum"]) for one in found] == [("cuda:0", 3.0)] * 2


def test_a_device_that_is_asked_for_is_taken() -> None:
    envs = [{**TWO, "KEYWORDS": f'{{"device": "cuda:{1 - rank}"}}'} for rank in range(2)]
    found = [told(ended) for ended in ranks(TAKES, envs)]
    assert [(one["device"], one["on"], one["sum"]) for one in found] == [("cuda:1", [1], 3.0), ("cuda:0", [0], 3.0)]


def test_a_process_alone_with_two_gpus_takes_the_first_or_its_local_ranks() -> None:
    assert told(on_gpu(TAKES, TWO))["device"] == "cuda:0"
    (ended,) = ranks(TAKES, [{**TWO, "LOCAL_RANK": "1"}])
    found = told(ended)
    assert (found["device"], found["on"]) == ("cuda:1", [1])


def test_a_third_rank_on_two_gpus_ends_all_with_the_numbers() -> None:
    found = [told(ended) for ended in ranks(TAKES, [TWO] * 3)]
    assert {one["kind"] for one in found} == {"RankFailed"}
    assert "local rank 2 needs device 2, but 2 cuda device(s) are visible" in found[0]["text"]


def test_nccls_failure_reaches_both_ranks_with_its_last_line() -> None:
    found = [told(ended) for ended in ranks(TAKES, [{**TWO, "NCCL_SOCKET_IFNAME": "absent0"}] * 2)]
    assert {one["kind"] for one in found} <= {"GroupFailed", "RankFailed"}
    assert all("no socket interface found" in one["text"] for one in found)
