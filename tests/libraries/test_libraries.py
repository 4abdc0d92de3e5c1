"""Real libraries in real ranks: each agrees with this library on who its process is, and trains with the others.

They are installed in an environment of their own, where `make test-libraries` runs this.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec

import pytest
from colossalai_env_slurm import SLURM

from colossalai_env.testing import Layout, launch_as
from tests.libraries.used import Told
from tests.pages import EXAMPLES, commands
from tests.processes import run
from tests.tutorial import ROOT
from tests.warm import torchrun, warm

pytestmark = [pytest.mark.slow, pytest.mark.libraries]

SIZE = 2

SECONDS = 240

QUIET = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}

STEP = Layout(hosts=("n1",), nodes=(0,) * SIZE, job_id=f"{os.getpid()}.0")
"""Of this process alone: the port is derived from it."""

LAUNCHES = [
    ("ddp", "device_mesh", "fsdp2", "dcp", "torchmetrics", "ignite"),
    ("accelerate",),
    ("transformers",),
    ("fabric", "lightning"),
    ("deepspeed",),
    ("jax",),
]
"""What shares a launch: libraries that leave nothing behind in their process that another one reads."""

PACKAGES = {
    "fabric": "lightning", "fabric_told": "lightning", "lightning_told": "lightning", "ignite": "ignite",
    "ddp": "torch", "device_mesh": "torch", "fsdp2": "torch", "dcp": "torch",
}  # fmt: skip
"""What has to be installed for a use, where its name is another."""


def by_torchrun(words: Sequence[str]) -> list[str]:
    ended = run([*torchrun(), "--standalone", f"--nproc-per-node={SIZE}", "-m", "tests.libraries.rank", *words], QUIET)
    assert ended.code == 0, ended.err
    return ended.lines("TOLD ")


AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def mpirun() -> list[str]:
    """Return the words that start ranks under Open MPI, without their program."""
    found = shutil.which("mpirun.openmpi")
    if found is None:
        pytest.skip("Open MPI is not installed")
    return [found, "--oversubscribe", "--bind-to", "none", "-n", str(SIZE), warm()]


def by_mpirun(words: Sequence[str]) -> list[str]:
    ended = run([*mpirun(), "-m", "tests.libraries.rank", *words], QUIET | AS_ROOT)
    assert ended.code == 0, ended.err
    return ended.lines("TOLD ")


def as_slurm(words: Sequence[str]) -> list[str]:
    program = [warm(), "-m", "tests.libraries.rank", *words]
    ended = launch_as(SLURM, STEP, program, env=QUIET, seconds=SECONDS)
    assert [one.code for one in ended] == [0] * SIZE, "\n".join(one.err for one in ended)
    lines = [line for one in ended for line in one.out.splitlines()]
    return [line.removeprefix("TOLD ") for line in lines if line.startswith("TOLD ")]


STARTERS = {"torchrun": by_torchrun, "slurm": as_slurm, "openmpi": by_mpirun}


def used(starter: str, way: str, names: Sequence[str]) -> dict[str, list[Told]]:
    """Start ranks that use libraries; return what each rank has told of each."""
    absent = [name for name in names if find_spec(PACKAGES.get(name, name)) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} cannot be imported here: make test-libraries")
    found: dict[str, list[Told]] = {}
    for line in STARTERS[starter]([way, *names]):
        told = json.loads(line)
        found.setdefault(told.pop("library"), []).append(told)
    assert found.keys() == {"", *names}
    return found


def assert_agreed(found: dict[str, list[Told]]) -> None:
    """Compare what each library says with who the process is, and the ranks with each other."""
    who = {one["rank"]: one for one in found.pop("")}
    assert sorted(who) == list(range(SIZE))
    for name, told in found.items():
        assert not [one["error"] for one in told if "error" in one], name
        assert sorted(one["rank"] for one in told) == list(range(SIZE)), name
        for one in told:
            alike = [field for field in ("size", "local_rank", "device") if field in one and field in who[one["rank"]]]
            assert {field: one[field] for field in alike} == {field: who[one["rank"]][field] for field in alike}, name
        weights = [one["weights"] for one in told if "weights" in one]
        assert all(math.isclose(weight, weights[0], abs_tol=1e-6) for weight in weights), (name, weights)


@pytest.mark.parametrize("starter", STARTERS)
@pytest.mark.parametrize("names", LAUNCHES, ids=" ".join)
def test_a_library_on_top_of_an_exported_job_agrees_on_every_rank(starter: str, names: tuple[str, ...]) -> None:
    found = used(starter, "exported", names)
    assert all(one["taken_back"] for one in found[""])
    assert_agreed(found)


@pytest.mark.parametrize("starter", ["slurm", "openmpi"])
def test_lightning_that_is_handed_the_job_agrees_on_every_rank(starter: str) -> None:
    assert_agreed(used(starter, "joined", ["fabric_told", "lightning_told"]))


@pytest.mark.parametrize("name", ["accelerate", "transformers", "fabric_told", "ignite", "deepspeed"])
def test_a_library_that_makes_the_group_itself_is_right_with_the_variables_of_the_spec(name: str) -> None:
    assert_agreed(used("slurm", "asked", [name]))


@pytest.mark.parametrize("name", ["lightning", "jax"])
def test_the_script_on_a_librarys_page_runs_on_every_rank(name: str) -> None:
    (block,) = commands(f"docs/how-to/use-{name}.md")
    script = block.text.split()[-1]
    if find_spec(name) is None:
        pytest.skip(f"{name} cannot be imported here: make test-libraries")
    if block.text.startswith("mpirun"):
        ended = run([*mpirun(), EXAMPLES / script], QUIET | AS_ROOT, SECONDS)
        assert ended.code == 0, ended.err
        printed = ended.out
    else:
        several = launch_as(SLURM, STEP, [warm(), str(EXAMPLES / script)], env=QUIET, seconds=SECONDS)
        assert [one.code for one in several] == [0] * SIZE, several
        printed = "".join(one.out for one in several)
    told = sorted(line for line in printed.splitlines() if line.startswith("rank "))
    assert told == [f"rank {rank} of {SIZE}" for rank in range(SIZE)]
