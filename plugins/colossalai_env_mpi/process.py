"""The processes above this one, and the libraries that a process has mapped, as /proc tells."""

import ctypes
import os
from collections.abc import Iterator
from importlib.util import find_spec


def ancestors() -> Iterator[int]:
    """Return the pids above this process, the nearest first."""
    pid = os.getppid()
    while pid > 0:
        yield pid
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return


def mapped_libraries(beginning: str, pid: int | str = "self") -> list[str]:
    """Return the files that a process has mapped whose names begin so."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count("/") and len(line.split()) > 5}
    except OSError:
        return []
    return sorted(path for path in paths if os.path.basename(path).startswith(beginning))


def mpi_runs() -> bool:
    """Tell whether MPI is initialised in this process, without bringing it in."""
    for path in mapped_libraries("libmpi"):
        flag = ctypes.c_int(0)
        try:
            initialized = getattr(ctypes.CDLL(path), "MPI_Initialized", None)
        except OSError:  # replaced on disk since it was mapped
            continue
        if initialized is not None and initialized(ctypes.byref(flag)) == 0 and flag.value:
            return True
    return False


def mpi_may_follow(backend: str | None) -> bool:
    """Tell whether this process could still call MPI_Init: mpi4py is there, libmpi is mapped, or the backend is MPI."""
    return find_spec("mpi4py") is not None or bool(mapped_libraries("libmpi")) or backend == "mpi"
