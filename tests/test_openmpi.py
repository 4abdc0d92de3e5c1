"""Open MPI 5 of PyPI on one host: mpirun and nothing else."""

import json
from pathlib import Path

import pytest

from tests.pages import MPIRUN
from tests.processes import run
from tests.warm import warm

pytestmark = pytest.mark.slow

SUM = Path(__file__).parent / "programs" / "sum.py"


@pytest.mark.skipif(not MPIRUN.exists(), reason="Open MPI 5 is not installed: make .venv/mpi/ready")
def test_mpirun_on_one_host_needs_nothing_but_the_script() -> None:
    ended = run([MPIRUN, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2", warm(), SUM])
    assert ended.code == 0, ended.err
    ranks = sorted((json.loads(line) for line in ended.lines("TOLD ")), key=lambda one: one["rank"])
    assert [(one["rank"], one["local_rank"], one["sum"], one["resolver"]) for one in ranks] == [
        (0, 0, 3.0, "openmpi"),
        (1, 1, 3.0, "openmpi"),
    ]
    assert {(one["host"], one["num_nodes"]) for one in ranks} == {("127.0.0.1", 1)}
