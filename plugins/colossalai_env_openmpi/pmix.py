"""Rank 0's host by PMIx, asked of mpirun's daemon by a short-lived child: PMIx in the process itself breaks MPI_Init.

Facts: pmix_common.h of PMIx 3.2 to 6.1, where pmix_proc_t has 260 bytes and a value's data begin at byte 8, and runs
of Open MPI 4.1.4, 4.1.8 and 5.0.11. The host of rank 0 needs no exchange between the ranks. A later MPI_Init fails
with 4.1, and with 5 it or MPI_Finalize hung in 6 of 110 jobs (and in none of 110 that had not asked).
"""

import re
import sys
from os.path import exists
from pathlib import Path

from colossalai_env_mpi import ancestors, mapped_libraries, mpi_may_follow

from colossalai_env import CannotLocate, DistSpec, Environ, Located, host_name

CHILD = Path(__file__).with_name("hname.py")

_told: dict[str, Located] = {}
"""What was told, by namespace; a forked child keeps it too."""


def ask(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Ask on all ranks or on none: where no MPI can follow in this process. Once: 4.1 answers no second child."""
    namespace = environ.get("PMIX_NAMESPACE")
    if namespace is None:
        return None
    if namespace not in _told:
        if mpi_may_follow(spec.backend):
            return None
        _told[namespace] = Located(_ask_in_child(environ, seconds), "PMIx: pmix.hname of rank 0")
    return _told[namespace]


def _ask_in_child(environ: Environ, seconds: float) -> str:
    import subprocess

    command = [sys.executable, "-I", "-S", str(CHILD), _library()]
    try:
        child = subprocess.run(  # noqa: S603 - our own program and the daemon's library
            command, env=dict(environ.variables), capture_output=True, text=True, timeout=min(seconds, 20), check=False
        )
    except subprocess.TimeoutExpired as late:
        raise _cannot(f"mpirun's daemon did not answer within {late.timeout:.0f} s") from None
    if child.returncode:
        problem = child.stderr.strip().rpartition("\n")[2]
        raise _cannot(f"the child that asks ended with status {child.returncode}: {problem}")
    found = re.search(r"^host (.*)$", child.stdout, re.MULTILINE)  # the libraries may print too
    try:
        return host_name(found.group(1) if found else "")
    except ValueError as expected:
        raise _cannot(f"the child that asks said {child.stdout!r}, expected {expected}") from None


def _cannot(problem: str) -> CannotLocate:
    return CannotLocate("openmpi", "pmix", problem)


def _library() -> str:
    """Return the PMIx library that the daemon above this process uses, or, where that is out of sight, the system's."""
    for pid in ancestors():
        for name in ("libpmix.so", "libopen-pal.so"):
            for path in mapped_libraries(name, pid):
                if exists(path):
                    return path
    return "libpmix.so.2"
