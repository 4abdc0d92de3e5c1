"""init_from_env(attach=True): a group that somebody else has made is adopted, and left as it is."""

from pathlib import Path

import pytest

from tests.processes import TELL, Ended, Processes, free_port, run
from tests.warm import torchrun, warm


def under_torchrun(program: str, tmp_path: Path, count: int = 2) -> list[str]:
    """Run a program as workers of torchrun, which must end well, and return what they printed after TOLD."""
    script = tmp_path / "train.py"
    script.write_text(program)
    ended = run([*torchrun(), "--standalone", f"--nproc-per-node={count}", script])
    assert ended.code == 0, ended.err
    return sorted(ended.lines("TOLD "))


def spawned(program: str, tmp_path: Path, size: int = 2) -> list[Ended]:
    """Run a program in processes that no launcher started, each with its rank and a port as arguments."""
    script, port = tmp_path / "train.py", free_port()
    script.write_text(program)
    with Processes() as processes:
        for rank in range(size):
            processes.start([warm(), script, str(rank), str(size), str(port)])
        return processes.wait()


MADE = f"""{TELL}
import sys, torch, torch.distributed as dist, colossalai_env
rank, size, port = map(int, sys.argv[1:])
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{{port}}", rank=rank, world_size=size)
"""


def test_the_job_of_a_group_is_the_launchers_word_and_closing_it_leaves_the_group(tmp_path: Path) -> None:
    program = f"""{TELL}
import os, torch, torch.distributed as dist, colossalai_env
dist.init_process_group("gloo")
for _ in range(2):
    with colossalai_env.init_from_env(attach=True, timeout=60, export=True, seed=7, config={{"lr": 0.1}}) as job:
        peers = [(peer.rank, peer.local_rank, peer.pid == os.getpid(), peer.device) for peer in job.topology]
        place = job.local_rank, job.local_world_size, job.node_rank, job.num_nodes
        assert (os.environ["RANK"], os.environ["MASTER_PORT"]) == (str(job.rank), str(job.spec.port))
total = torch.ones(1)
dist.all_reduce(total)
tell(job.rank, job.world_size, place, job.spec.resolver, job.device, job.backend, peers, total.item())
"""
    assert under_torchrun(program, tmp_path) == [
        f"{rank} 2 ({rank}, 2, 0, 1) torch cpu gloo [(0, 0, {rank == 0}, 'cpu'), (1, 1, {rank == 1}, 'cpu')] 2.0"
        for rank in range(2)
    ]


def test_a_group_that_no_launcher_knows_says_itself_who_its_ranks_are(tmp_path: Path) -> None:
    """As in a notebook, or in a process that Lightning's own launcher started."""
    program = f"""{MADE}
import os
if rank == 1:
    os.environ.update(NODE_RANK="0", LOCAL_RANK="1", WORLD_SIZE="2")
with colossalai_env.init_from_env(attach=True, timeout=60) as job:
    assert job.spec.port == port
    tell(job.rank, job.world_size, job.local_rank, job.num_nodes, job.spec.resolver)
assert dist.is_initialized()
"""
    ended = spawned(program, tmp_path)
    assert [one.lines("TOLD ") for one in ended] == [["0 2 0 1 process-group"], ["1 2 1 1 process-group"]]
    assert [(one.code, one.err) for one in ended] == [(0, "")] * 2


def test_a_group_that_contradicts_the_launcher_is_refused_on_all_ranks(tmp_path: Path) -> None:
    program = f"""{MADE}
import os
if rank == 1:
    os.environ.update(RANK="2", WORLD_SIZE="4", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
try:
    colossalai_env.init_from_env(attach=True, timeout=60)
except colossalai_env.ColossalaiEnvError as error:
    tell(type(error).__name__, error)
if rank == 1:
    with colossalai_env.init_from_env(attach=True, timeout=60, resolver="single-process") as job: pass
else:
    with colossalai_env.init_from_env(attach=True, timeout=60) as job: pass
assert (job.rank, job.world_size) == (rank, 2)
"""
    first, second = spawned(program, tmp_path)
    assert (first.code, second.code) == (0, 0), first.err + second.err
    said = "in the process group that is to be adopted this process is rank 1 of 2, and its launcher says rank 2 of 4"
    (told,) = second.lines("TOLD ")
    assert told.startswith(f"WrongGroup {said}, 127.0.0.1:29500, by torch (RANK, WORLD_SIZE)")
    assert said in first.lines("TOLD ")[0]
    assert first.lines("TOLD ")[0].startswith("RankFailed rank 1 (pid ")


@pytest.mark.parametrize("absent", [0, 1])
def test_a_rank_that_does_not_come_to_adopt_the_group_is_named(absent: int, tmp_path: Path) -> None:
    """And the next adoption, to which all come, is another one."""
    program = f"""{MADE}
if rank != {absent}:
    try:
        colossalai_env.init_from_env(attach=True, timeout=2)
    except colossalai_env.ColossalaiEnvError as error:
        tell(type(error).__name__, error)
dist.barrier()
with colossalai_env.init_from_env(attach=True, timeout=60) as job:
    assert (job.rank, job.world_size) == (rank, 2)
"""
    ended = spawned(program, tmp_path)
    assert [one.code for one in ended] == [0, 0], ended[0].err + ended[1].err
    (told,) = ended[1 - absent].lines("TOLD ")
    assert told.startswith(f"MissingRanks rank(s) {absent} of 2 did not come within 2.0 s")
    assert absent == 1 or "all ranks of the process group have to call init_from_env(attach=True)" in told


def test_where_there_is_no_group_there_is_none_to_adopt_and_ours_is_not_another_ones() -> None:
    program = f"""{TELL}
import colossalai_env
for attach in (True, False, True):
    try:
        colossalai_env.init_from_env(attach=attach)
    except colossalai_env.ColossalaiEnvError as error:
        tell(type(error).__name__, error)
"""
    none, ours = run([warm(), "-c", program]).lines("TOLD ")
    assert none.startswith("NoGroup ")
    assert "after the group is made" in none
    assert ours.startswith("AlreadyInitialized this process is already rank 0 of 1")


def test_a_store_that_goes_while_its_group_is_adopted_is_named(tmp_path: Path) -> None:
    program = f"""{MADE}
import os
dist.barrier()
if rank == 0:
    os._exit(0)
colossalai_env.init_from_env(attach=True, timeout=30)
"""
    assert "LostRanks: the process group's store broke off: " in spawned(program, tmp_path)[1].err


def test_a_store_that_freezes_while_its_group_is_adopted_is_not_waited_for(tmp_path: Path) -> None:
    program = f"""{MADE}
import os, signal
pids = [os.getpid()]
dist.broadcast_object_list(pids)
if rank == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
try:
    colossalai_env.init_from_env(attach=True, timeout=3)
finally:
    os.kill(pids[0], signal.SIGCONT)
"""
    err = spawned(program, tmp_path)[1].err
    assert "LostRanks: the process group's store broke off: the store does not answer" in err


def test_a_rank_that_is_interrupted_while_it_waits_tells_the_others(tmp_path: Path) -> None:
    program = f"""{MADE}
import os, signal, threading, time
def waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None and frame.f_code.co_name != "gather":
        frame = frame.f_back
    return frame is not None
def interrupt():
    while not waits():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
if rank == 2:
    sys.exit()
if rank == 1:
    threading.Thread(target=interrupt).start()
colossalai_env.init_from_env(attach=True, timeout=30)
"""
    first, second, _ = spawned(program, tmp_path, 3)
    assert "KeyboardInterrupt" in second.err
    assert "RankFailed: rank 1 (pid " in first.err
    assert "was stopped by Ctrl-C" in first.err
