"""Children of a process that has joined, and those that nobody told who they are; each with real processes."""

import sys
from pathlib import Path

import pytest

from tests.processes import run
from tests.warm import torchrun, warm

pytestmark = pytest.mark.slow

PROGRAM = """
import multiprocessing, sys
import colossalai_env

def join(**told):
    try:
        with colossalai_env.init_from_env(timeout=120, **told) as job:
            print(f"TOLD {job.spec}\\n", end="", flush=True)
    except colossalai_env.ColossalaiEnvError as error:
        print(f"TOLD {type(error).__name__} {error}\\n", end="", flush=True)

def child(method, **told):
    process = multiprocessing.get_context(method).Process(target=join, kwargs=told)
    process.start()
    return process

if __name__ == "__main__":
    method, when = sys.argv[1:]
    if when == "joined":
        with colossalai_env.init_from_env(timeout=120) as job:
            child(method).join()
    elif when == "ranks":
        with colossalai_env.init_from_env(timeout=120):
            for process in [child(method, rank=rank, world_size=2, host="127.0.0.1", port=@) for rank in (0, 1)]:
                process.join()
    else:
        if when == "closed":
            colossalai_env.init_from_env(timeout=120).close()
        child(method).join()
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    from tests.processes import free_port

    path = tmp_path / "train.py"
    path.write_text(PROGRAM.replace("@", str(free_port())))
    return path


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_a_process_alone_that_has_joined_is_told_that_it_is_one(method: str, program: Path) -> None:
    ended = run([warm(), program, method, "joined"])
    (told,) = ended.lines("TOLD ")
    assert told.startswith("ChildOfRank this process, pid ")
    assert f"which is rank 0 of 1, local 0 of 1, node 0 of 1, by single-process, since {program}:" in told
    assert (ended.code, ended.err) == (0, "")


def test_a_child_of_a_rank_is_told_so_at_once(program: Path) -> None:
    told = run([*torchrun(), "--standalone", "--nproc-per-node=2", program, "spawn", "joined"]).lines("TOLD ")
    assert sorted(line.partition(", which is ")[2][: len("rank 0 of 2")] for line in told) == [
        "rank 0 of 2",
        "rank 1 of 2",
    ]
    assert all(line.startswith("ChildOfRank") for line in told)


HELPED = """
import subprocess, sys
import colossalai_env

with colossalai_env.init_from_env(timeout=60) as job:
    if job.rank == 0:
        subprocess.run(sys.argv[1:], check=False)
"""

HELPER = """
import colossalai_env
try:
    with colossalai_env.init_from_env(timeout=60) as job:
        print(f"TOLD {job.spec}\\n", end="", flush=True)
except colossalai_env.ColossalaiEnvError as error:
    print(f"TOLD {type(error).__name__} {error}\\n", end="", flush=True)
"""


@pytest.mark.parametrize(
    "inside", [(), ("env", "OMPI_COMM_WORLD_RANK=2", "OMPI_COMM_WORLD_SIZE=3")], ids=["", "mpirun"]
)
def test_what_a_rank_starts_is_told_that_it_is_none_and_the_way_to_be_a_process_alone(inside: tuple[str, ...]) -> None:
    helpers = [
        [*inside, *chosen, warm(), "-c", HELPER] for chosen in ((), ("env", "COLOSSALAI_ENV_RESOLVER=single-process"))
    ]
    told = [
        run([*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", warm(), "-c", HELPED, *helper])
        for helper in helpers
    ]
    (as_rank,), (alone,) = (ended.lines("TOLD ") for ended in told)
    assert as_rank.startswith("ExtraProcess rank 0 is already held by pid ")
    assert "set COLOSSALAI_ENV_RESOLVER for processes that are started by a rank (to single-process, or" in as_rank
    assert alone == "rank 0 of 1, local 0 of 1, node 0 of 1, by single-process"


def test_children_that_are_told_who_they_are_are_ranks_of_their_own_world(program: Path) -> None:
    told = run([warm(), program, "spawn", "ranks"]).lines("TOLD ")
    assert sorted(line[: len("rank 0 of 2")] for line in told) == ["rank 0 of 2", "rank 1 of 2"]


@pytest.mark.parametrize("when", ["before", "closed"])
def test_a_child_that_nobody_told_who_it_is_is_alone_with_one_warning(when: str, program: Path) -> None:
    ended = run([warm(), program, "spawn", when])
    (told,) = ended.lines("TOLD ")
    (warning,) = ended.err.splitlines()
    assert told.startswith("rank 0 of 1")
    assert "is a child that pid " in warning
    assert "it is taken to be alone" in warning
    chosen = run([warm(), program, "spawn", when], {"COLOSSALAI_ENV_RESOLVER": "single-process"})
    assert (len(chosen.lines("TOLD ")), chosen.err) == (1, "")


def test_a_main_module_that_a_spawned_child_imports_again_is_told_to_guard_itself(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text("""
import multiprocessing, colossalai_env
job = colossalai_env.init_from_env()
def work(): raise SystemExit("never")
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    worker.join()
    print(f"TOLD {worker.exitcode}")
""")
    ended = run([warm(), program])
    assert ended.lines("TOLD ") == ["1"]
    assert (
        "imports the main module again, and is no rank itself: put what the script does under if __name__" in ended.err
    )


def test_a_group_that_the_program_destroyed_is_a_closed_job() -> None:
    program = """
import colossalai_env, torch
for turn in range(2):
    job = colossalai_env.init_from_env(timeout=120)
    total = torch.ones(1)
    torch.distributed.all_reduce(total)
    print(f"TOLD {total.item()}\\n", end="")
    torch.distributed.destroy_process_group()
"""
    ended = run([*torchrun(), "--standalone", "--nproc-per-node=2", "--no-python", warm(), "-c", program])
    assert ended.code == 0, ended.err
    assert ended.lines("TOLD ") == ["2.0"] * 4


def test_without_fcntl_a_process_alone_goes_on_and_several_are_told() -> None:
    program = """
import sys
sys.modules["fcntl"] = sys.modules["termios"] = None
import colossalai_env
print(f"TOLD {colossalai_env.resolve()}")
try:
    print(f"TOLD {colossalai_env.init_from_env(timeout=5).spec}")
except colossalai_env.errors.UnsupportedPlatform as error:
    print(f"TOLD {error}")
"""
    alone = run([sys.executable, "-c", program]).lines("TOLD ")
    assert [line[: len("rank 0 of 1")] for line in alone] == ["rank 0 of 1"] * 2
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    resolved, refused = run([sys.executable, "-c", program], env).lines("TOLD ")
    assert resolved.startswith("rank 0 of 2")
    assert refused.startswith(f"several ranks cannot meet on {sys.platform}, which has no module fcntl")
