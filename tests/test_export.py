"""Job.export(): variables for libraries that read them, taken back when the job is closed."""

from pathlib import Path
from typing import Any

import pytest
from colossalai_env_slurm import SLURM

from colossalai_env import DistSpec
from colossalai_env._libraries import overlooked
from colossalai_env.resolver import Environ
from colossalai_env.testing import Layout, launch_as
from tests.processes import TELL, run
from tests.warm import warm

pytestmark = pytest.mark.xdist_group("one step of Slurm")

STEP = Layout(hosts=("n1",), nodes=(0, 0), job_id="212.0")

READ = "('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'COLOSSALAI_ENV_JOB_ID')"


def started(program: str, tmp_path: Path) -> list[str]:
    """Run a program as a step of Slurm with two tasks, and return what each printed after TOLD."""
    script = tmp_path / "train.py"
    script.write_text(program)
    ended = launch_as(SLURM, STEP, [warm(), str(script)], env={"OMP_NUM_THREADS": "1"}, seconds=90)
    for process in ended:
        assert process.code == 0, process.err
    return [line.removeprefix("TOLD ") for process in ended for line in process.out.splitlines() if "TOLD" in line]


def test_a_rank_of_a_step_is_read_from_the_variables_until_its_job_is_closed(tmp_path: Path) -> None:
    program = f"""{TELL}
import os, colossalai_env
before = dict(os.environ)
with colossalai_env.init_from_env(timeout=60, export=True) as job:
    tell(*[os.environ[name] for name in {READ}], job.spec.port)
assert dict(os.environ) == before
with colossalai_env.init_from_env(timeout=60) as job:
    assert "RANK" not in os.environ
    with job.export():
        assert os.environ["RANK"] == str(job.rank)
    assert dict(os.environ) == before
    job.export()
assert dict(os.environ) == before
"""
    told = [line.split() for line in started(program, tmp_path)]
    assert [line[:4] for line in told] == [["0", "2", "0", "127.0.0.1"], ["1", "2", "1", "127.0.0.1"]]
    assert all(line[4] == line[6] and line[5] == "212.0" for line in told)


def test_who_exports_by_hand_meets_again_as_the_same_launch(tmp_path: Path) -> None:
    program = f"""{TELL}
import os, colossalai_env
with colossalai_env.init_from_env(timeout=60) as job:
    os.environ.update(job.spec.to_env())
with colossalai_env.init_from_env(timeout=60) as job:
    tell(job.spec.resolver, job.spec.job_id)
"""
    assert started(program, tmp_path) == ["torch 212.0"] * 2


CHILD = f"""{TELL}
import multiprocessing, colossalai_env
from colossalai_env.errors import ChildOfRank

def join():
    try:
        colossalai_env.init_from_env(timeout=30)
    except ChildOfRank:
        tell("a child")

if __name__ == "__main__":
    with colossalai_env.init_from_env(timeout=60, export=True):
        child = multiprocessing.get_context("spawn").Process(target=join)
        child.start()
        child.join()
"""


def test_a_child_of_a_rank_that_exports_itself_is_told_that_it_is_one(tmp_path: Path) -> None:
    assert started(CHILD, tmp_path) == ["a child"] * 2
    assert run([warm(), tmp_path / "train.py"]).lines("TOLD ") == ["a child"]


def test_a_single_process_exports_a_place_where_env_can_meet() -> None:
    program = """
import os, torch.distributed as dist, colossalai_env
os.environ.update(colossalai_env.resolve().to_env())
dist.init_process_group("gloo", init_method="env://")
dist.destroy_process_group()
with colossalai_env.init_from_env(export=True) as job:
    assert (job.rank, job.world_size, job.spec.resolver) == (0, 1, "torch"), job
"""
    ended = run([warm(), "-c", program])
    assert (ended.code, ended.err) == (0, "")


ALL_SET = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("variables", "imported", "told"),
    [
        (
            {},
            ["accelerate"],
            "Accelerate reads RANK, WORLD_SIZE and LOCAL_RANK, and RANK, WORLD_SIZE",
        ),
        ({}, ["lightning.fabric", "lightning_fabric"], "Lightning reads RANK"),
        ({}, ["accelerate", "transformers.trainer"], "Accelerate and the Trainer of transformers read RANK"),
        ({**ALL_SET, "LOCAL_RANK": "1"}, ["deepspeed"], "and LOCAL_RANK is not set to what this rank is"),
        (ALL_SET, ["accelerate", "deepspeed"], None),
        ({}, ["torch", "transformers"], None),
    ],
)
def test_a_library_that_would_not_see_the_group_is_named(
    variables: dict[str, str], imported: list[str], told: str | None
) -> None:
    spec = DistSpec(rank=0, world_size=2, local_rank=0, host="n1", port=29500)
    warnings = overlooked(spec, Environ(variables), imported)
    assert len(warnings) == (told is not None)
    assert told is None or (told in warnings[0] and "init_from_env(export=True)" in warnings[0])


def test_a_single_process_has_no_group_that_could_be_overlooked() -> None:
    alone: Any = DistSpec(rank=0, world_size=1, local_rank=0)
    assert overlooked(alone, Environ(), ["accelerate"]) == ()
