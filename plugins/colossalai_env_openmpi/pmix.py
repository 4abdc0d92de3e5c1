"""Rank 0's host by PMIx: asked in this process where MPI runs in it, and otherwise by a short-lived child.

Facts: runs of Open MPI 4.1.4, 4.1.8, 5.0.11 and 6.0.0rc2. PMIx in the process itself breaks a later MPI_Init of
5.0.11. After a child has asked, a later MPI_Init fails with 4.1, and with 5 it or MPI_Finalize hung in 6 of 110
jobs (and in none of 110 that had not asked). Once MPI runs, its PMIx serves, whatever MPI's own messages can reach.
A tool's connection, which would be no rank's, kills the daemons of 4.1.4 and 5.0.11.
"""

import ctypes
import re
import signal
import sys
from collections.abc import Callable, Mapping
from os.path import exists
from pathlib import Path
from threading import Thread

from colossalai_env_mpi import ancestors, mapped_libraries, mpi_runs, mpi_waits, own_mpi, start

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name, own_address

from .client import NUMBERS, PATIENCE, Client, PmixError
from .session import keep, recall

CHILD = Path(__file__).with_name("client.py")

LIBRARIES = ("libpmix.so", "mca_pmix_pmix3x.so", "libopen-pal.so")
"""Beginnings of the names of the files in which Open MPI may have PMIx."""

CUT = ": Open MPI 4 cuts names at their first dot, unless mpirun is told --mca orte_keep_fqdn_hostnames 1"

SPENT = ": mpirun has one conversation with each task, and an earlier program of this task has had it"

SPENT_STATUS = ("PMIx status -17", "PMIx status -46")
"""How 4.1.8 and 4.1.4 answer where PMIx has been finalized in this task before."""

_told: dict[str, HostAnswer] = {}
"""What was told, by namespace; a forked child keeps it too."""


def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask by this process's MPI if it runs, and otherwise by a child, if no MPI can follow in this process."""

    def asked() -> HostAnswer | str:
        if mpi_runs(families(environ)):
            return _in_process("pmix", environ, seconds)
        own_mpi(families(environ))
        if spec.backend == "mpi" or mpi_waits(families(environ)):
            return "an MPI_Init may follow in this process, which asking by a child would break"
        return _by_child(environ, seconds)

    return _once(environ, asked)


def ask_with_mpi(environ: Environ, seconds: float) -> HostAnswer | str:
    """Initialise MPI by mpi4py, if its library is the launcher's, and ask by it: so it was not broken by asking."""

    def asked() -> HostAnswer | str:
        mpi = own_mpi(families(environ))
        if isinstance(mpi, str):
            return mpi
        start("openmpi", mpi)
        return _in_process("mpi4py", environ, seconds)

    return _once(environ, asked)


def complete(environ: Environ, seconds: float) -> Mapping[str, str] | str:
    """Return the numbers that PMIx knows of this process, by their keys; rank 0's host is told with them, and kept."""
    if mpi_runs() or mpi_waits(("",)):
        return "MPI is loaded in this process, and asking PMIx beside it would break it: ask MPI"
    try:
        told = _told_by_child(environ, seconds, "numbers")
        numbers = {key: text for key, text in told.items() if key in NUMBERS}
        if len(numbers) < len(NUMBERS):
            return f"PMIx did not say {' nor '.join(NUMBERS.keys() - numbers.keys())}"
        if "host" in told or "home" in told:
            _once(environ, lambda: _host(told, environ, seconds))
    except CannotLocate as error:
        return f"PMIx: {error.problem}"
    return numbers


def families(environ: Environ) -> tuple[str, ...]:
    """Return how the version of the launcher's own MPI library begins; Open MPI 5 and later name theirs.

    A library of another series ends the job in MPI_Init: 4.1.4 and 4.1.8 did under mpirun 5.0.11.
    """
    series, dot, _ = (environ.get("OMPI_VERSION") or "").partition(".")
    return (f"Open MPI v{series}{dot}",)


def _once(environ: Environ, asked: Callable[[], HostAnswer | str]) -> HostAnswer | str:
    """Ask, unless this process or an earlier program of this task has asked: 4.1 answers each task once."""
    namespace = environ.get("PMIX_NAMESPACE")
    if namespace is None:
        return "PMIX_NAMESPACE is not set"
    found = _told.get(namespace) or recall(environ) or asked()
    if isinstance(found, HostAnswer) and namespace not in _told:
        _told[namespace] = found
        keep(environ, found)
    return found


def _in_process(way: str, environ: Environ, seconds: float) -> HostAnswer:
    """Exchange rank 0's address by the PMIx that MPI has brought into this process; on a thread: it knows no limit."""
    told: list[str] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            path = next((path for name in LIBRARIES for path in mapped_libraries(name)), LIBRARIES[0])
            namespace = (environ.get("PMIX_NAMESPACE") or "").encode()
            own = own_address() if environ.get("PMIX_RANK") == "0" else ""
            told.append(Client(ctypes.CDLL(path)).exchanged(namespace, own))
        except (PmixError, OSError, AttributeError) as error:
            failed.append(error)

    asking = Thread(target=run, daemon=True)
    asking.start()
    asking.join(seconds)
    if failed:
        raise CannotLocate("openmpi", way, f"{failed[0]} in this process, where MPI runs")
    if not told:
        problem = f"the exchange did not end within {seconds:.0f} s: some rank has not come this far"
        raise CannotLocate("openmpi", way, problem)
    return _located(told[0], "PMIx: the address that rank 0 published")


def _by_child(environ: Environ, seconds: float) -> HostAnswer:
    return _host(_told_by_child(environ, seconds), environ, seconds)


def _host(told: Mapping[str, str], environ: Environ, seconds: float) -> HostAnswer:
    """Return what was told of rank 0's host."""
    if "host" in told:
        key = "pmix.hname" if told["host"] == told["name"] else "pmix.alias"
        return _located(told["host"], f"PMIx: {key} of rank 0")
    if "home" in told:
        return _located(own_address(), "PMIx: rank 0 is on this host")
    if "name" not in told:
        raise _cannot(f"mpirun's daemon did not answer within {min(seconds, PATIENCE):.0f} s")
    cut = "" if environ.get("OMPI_VERSION") or "." in told["name"] else CUT
    raise _cannot(f"rank 0's host is {told['name']!r}, which has no address here{cut}")


def _told_by_child(environ: Environ, seconds: float, *question: str) -> Mapping[str, str]:
    """Return the lines of two words that the child printed; the libraries may print too."""
    import subprocess

    command = [sys.executable, "-I", "-S", str(CHILD), _library(), *question]
    try:
        child = subprocess.run(  # noqa: S603 - our own program and the daemon's library
            command, env=dict(environ.variables), capture_output=True, timeout=seconds, check=False
        )
        printed = child.stdout
        if child.returncode not in {0, -signal.SIGALRM}:
            raise _cannot(f"the child that asks ended with status {child.returncode}: {_last_line(child.stderr)}")
    except subprocess.TimeoutExpired as late:
        printed = late.stdout or b""
    return dict(re.findall(r"^(name|home|host|pmix[.a-z]+) (.*)$", printed.decode("utf-8", "replace"), re.MULTILINE))


def _last_line(printed: bytes) -> str:
    problem = printed.decode("utf-8", "replace").strip().rpartition("\n")[2]
    return problem + (SPENT if problem.endswith(SPENT_STATUS) else "")


def _located(host: str, source: str) -> HostAnswer:
    try:
        return HostAnswer(host_name(host), source)
    except ValueError as expected:
        raise _cannot(f"rank 0's host is {host!r}, expected {expected}") from None


def _cannot(problem: str) -> CannotLocate:
    return CannotLocate("openmpi", "pmix", problem)


def _library() -> str:
    """Return the PMIx library that the daemon above this process uses, or, where that is out of sight, the system's."""
    for pid in ancestors():
        for name in LIBRARIES:
            for path in mapped_libraries(name, pid):
                if exists(path):
                    return path
    return "libpmix.so.2"
