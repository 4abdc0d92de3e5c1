"""Real processes whose variables, arguments and launchers say different things."""

import socket
import subprocess

import pytest

from tests.processes import Ended, Processes, free_port, wait_until_listening
from tests.warm import torchrun, warm

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("one job of Slurm")]

JOIN = """
import sys, colossalai_env, torch
words = [word.partition("=") for word in sys.argv[1:]]
told = {name: int(value) if value.isdigit() else value for name, _, value in words}
try:
    with colossalai_env.init_from_env(timeout=120, **told) as job:
        total = torch.ones(1) * (job.rank + 1)
        torch.distributed.all_reduce(total)
        print(f"TOLD OK {job.rank} {total.item():.0f} {job.spec.job_id}\\n", end="", flush=True)
except colossalai_env.ColossalaiEnvError as error:
    print(f"TOLD {type(error).__name__} {error}\\n", end="", flush=True)
"""


def task(rank: int, size: int, step: int = 0) -> dict[str, str]:
    here = socket.gethostname()
    return {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": str(step), "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0", "SLURM_STEP_NUM_TASKS": str(size), "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_TASKS_PER_NODE": str(size), "SLURM_STEP_NODELIST": here, "SLURMD_NODENAME": here,
    }  # fmt: skip


def by_hand(rank: int, size: int, port: int) -> dict[str, str]:
    return {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def joined(processes: Processes, *environs: dict[str, str], words: tuple[str, ...] = ()) -> list[str]:
    """Start a process in each of these environments, and return what each said, in this order."""
    for env in environs:
        processes.start([warm(), "-c", JOIN, *words], env)
    return said(processes.wait())


def said(ended: list[Ended]) -> list[str]:
    return ["; ".join(process.lines("TOLD ")) or process.err for process in ended]


def test_a_rank_that_was_exported_before_srun_is_told_to_all_tasks() -> None:
    port = free_port()
    with Processes() as processes:
        first, second, third = joined(processes, *(task(rank, 3) | by_hand(0, 3, port) for rank in range(3)))
    assert "ConflictingResolvers torch says rank 0 of 3 (RANK, WORLD_SIZE), slurm says rank 1 of 3" in second
    assert "slurm says rank 2 of 3 (SLURM_PROCID, SLURM_STEP_NUM_TASKS): RANK seems to have been set too early" in third
    assert first.startswith(("RankFailed rank 1 (pid ", "RankFailed rank 2 (pid "))
    assert "set RANK from SLURM_PROCID in each process" in first


def test_two_steps_of_a_job_on_one_port_do_not_become_one_group() -> None:
    """A container's hook gives both one port; step 1's task 1 comes before step 0's."""
    port = free_port()
    with Processes() as processes:

        def start(step: int, rank: int) -> subprocess.Popen[str]:
            return processes.start([warm(), "-c", JOIN], task(rank, 2, step) | by_hand(rank, 2, port))

        start(0, 0)
        wait_until_listening(port)
        for rank in (1, 0):
            start(1, rank).wait(60)
        start(0, 1)
        first, stranger, taken, second = said(processes.wait())
    assert (first, second) == ("OK 0 3 7.0", "OK 1 3 7.0")
    assert stranger.startswith(f"ForeignStore 127.0.0.1:{port} is the store of job '7.0'")
    assert taken.startswith(f"PortTaken rank 0 cannot listen on 127.0.0.1:{port}")


def test_ranks_that_are_given_whole_meet_whatever_they_inherited() -> None:
    port = str(free_port())
    with Processes() as processes:
        for rank in "01":
            words = (f"rank={rank}", "world_size=2", "host=127.0.0.1", f"port={port}")
            processes.start([warm(), "-c", JOIN, *words], task(0, 2))
        told = said(processes.wait())
    assert told == ["OK 0 3 None", "OK 1 3 None"]


@pytest.mark.parametrize(
    "defaults", ["local_rank=-1", "rank=-1,world_size=-1,local_rank=-1", "world_size=1", "rank=0", "local_rank=0"]
)
def test_the_defaults_of_well_known_scripts_are_no_arguments(defaults: str) -> None:
    program = f"""
import types, colossalai_env, torch
with colossalai_env.init_from_env(args=types.SimpleNamespace({defaults}), timeout=120) as job:
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    print(f"TOLD {{job.local_rank}} {{total.item():.0f}}\\n", end="")
"""
    with Processes() as processes:
        command = [*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", warm(), "-c", program]
        processes.start(command)
        (ended,) = processes.wait()
    assert sorted(ended.lines("TOLD ")) == ["0 2", "1 2"], ended.err


def test_a_doubtful_launch_is_told_once_by_rank_0() -> None:
    """As one worker of torchrun in each of two tasks of srun: each is a world of its own."""
    own = {"TORCHELASTIC_RUN_ID": "r", "TORCHELASTIC_RESTART_COUNT": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    agent = own | {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"} | by_hand(0, 1, 29500)
    with Processes() as processes:
        processes.start([warm(), "-c", JOIN], task(1, 2) | agent)
        (ended,) = processes.wait()
    (warning,) = ended.err.splitlines()
    assert said([ended]) == ["OK 0 1 r/0"]
    assert "torch says rank 0 of 1 (RANK, WORLD_SIZE) and 1 agent(s); slurm says rank 1 of 2" in warning
    assert "start 2 agents of one rendezvous" in warning
