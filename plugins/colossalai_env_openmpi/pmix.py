"""Rank 0's host by PMIx, asked of mpirun's daemon by a short-lived child: PMIx in the process itself breaks MPI_Init.

Facts: pmix_common.h of PMIx 3.2 to 6.1, where pmix_proc_t has 260 bytes and a value's data begin at byte 8, and runs
of Open MPI 4.1.4 and 5.0.11. The host of rank 0 needs no exchange between the ranks. A later MPI_Init fails with
4.1, and with 5 it hung in 3 of 60 jobs.
"""

import sys
from pathlib import Path

from colossalai_env_mpi import ancestors, mapped_libraries, mpi_may_follow

from colossalai_env import CannotLocate, DistSpec, Environ, Located

CHILD = Path(__file__).with_name("hname.py")


def ask(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Ask on all ranks or on none: where no MPI can follow in this process."""
    if "PMIX_NAMESPACE" not in environ or mpi_may_follow(spec.backend):
        return None
    import subprocess

    command = [sys.executable, "-I", "-S", str(CHILD), _library()]
    try:
        child = subprocess.run(  # noqa: S603 - our own program and the daemon's library
            command, env=dict(environ.variables), capture_output=True, text=True, timeout=min(seconds, 20), check=False
        )
    except subprocess.TimeoutExpired as late:
        raise CannotLocate("openmpi", "pmix", f"mpirun's daemon did not answer within {late.timeout:.0f} s") from None
    if child.returncode:
        told = child.stderr.strip().rpartition("\n")[2]
        raise CannotLocate("openmpi", "pmix", f"the child that asks ended with status {child.returncode}: {told}")
    return Located(child.stdout, "PMIx: pmix.hname of rank 0")


def _library() -> str:
    """Return the PMIx library that the daemon above this process uses, or the system's."""
    for pid in ancestors():
        for name in ("libpmix.so", "libopen-pal.so"):
            found = mapped_libraries(name, pid)
            if found:
                return found[0]
    return "libpmix.so.2"
