"""MASTER_ADDR and MASTER_PORT on some ranks only: exported before a launcher that does not pass them on to all."""

import os

import pytest

from colossalai_env._addresses import own_address
from tests.processes import TELL, Ended, Processes, free_port
from tests.warm import warm

PROGRAM = f"""{TELL}
import sys, torch, torch.distributed as dist, colossalai_env
with colossalai_env.init_from_env(timeout=float(sys.argv[1])) as job:
    total = torch.ones(1)
    dist.all_reduce(total)
    tell(total.item(), job.spec.host, job.spec.port)
"""

RUNS = {"0": {0}, "0-1": {0, 1}, "1": {1}, "1-2": {1, 2}, "2": {2}, "0, 2": {0, 2}}
"""Sets of ranks, as they are written."""


def ranks(told: set[int], master: dict[str, str], timeout: int = 3600) -> list[Ended]:
    """Run three ranks of one host as Open MPI starts them, some of which are told where rank 0 is."""
    with Processes() as processes:
        for rank in range(3):
            task = {"RANK": rank, "SIZE": 3, "LOCAL_RANK": rank, "LOCAL_SIZE": 3}
            variables = {f"OMPI_COMM_WORLD_{name}": str(number) for name, number in task.items()}
            job = {"PMIX_NAMESPACE": f"prterun-vm-{os.getpid()}@1"}
            around = {**variables, **job, **(master if rank in told else {})}
            processes.start([warm(), "-c", PROGRAM, str(timeout)], around)
        return processes.wait()


@pytest.mark.parametrize(("told", "others"), [("0", "1-2"), ("0-1", "2"), ("1", "0, 2"), ("1-2", "0")])
@pytest.mark.parametrize("port", [True, False], ids=["both", "host alone"])
def test_all_ranks_end_at_once_and_name_those_that_are_told_where_rank_0_is(told: str, others: str, port: bool) -> None:
    """Those that are told and those that are not find each other by the launch's id; the timeout is an hour."""
    master = {"MASTER_ADDR": own_address(), **({"MASTER_PORT": str(free_port())} if port else {})}
    ended = ranks(RUNS[told], master)
    (sentence,) = {one.err.partition("PartialEndpoint: ")[2] for one in ended}
    assert sentence.startswith(f"rank 0's place is given to rank(s) {told}, {master['MASTER_ADDR']}:")
    assert f"and not to rank(s) {others}: set MASTER_ADDR and MASTER_PORT on all ranks or on none" in sentence


@pytest.mark.parametrize("port", [True, False], ids=["both", "host alone"])
def test_where_all_ranks_are_told_they_meet_there(port: bool) -> None:
    master = {"MASTER_ADDR": own_address(), **({"MASTER_PORT": str(free_port())} if port else {})}
    ended = ranks({0, 1, 2}, master)
    assert [(one.code, one.err) for one in ended] == [(0, "")] * 3
    (line,) = {line for one in ended for line in one.lines("TOLD ")}
    assert line.startswith(f"3.0 {master['MASTER_ADDR']} {master.get('MASTER_PORT', '')}")


def test_a_rank_that_is_told_another_place_than_rank_0_says_what_may_be_the_cause() -> None:
    other = {"MASTER_ADDR": "127.0.0.77", "MASTER_PORT": str(free_port()), "PMIX_NAMESPACE": "another"}
    assert "set both on all ranks or on none" in ranks({1}, other, 4)[1].err


def test_a_rank_whose_launcher_does_not_answer_tells_the_others_where_rank_0_is_given() -> None:
    """Rank 1 asks PMIx how many processes there are, and no server is there."""
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "PMIX_NAMESPACE": "prterun-vm-7@1"}
    with Processes() as processes:
        for own in ({"PMIX_RANK": "0", "pmix.job.size": "2"}, {"PMIX_RANK": "1"}):
            processes.start([warm(), "-c", PROGRAM, "120"], {**master, **own})
        first, second = processes.wait()
    assert "NotAsked: " in second.err
    assert "rank 1" in first.err
    assert "PMIx_Init failed" in first.err
