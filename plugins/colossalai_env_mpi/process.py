"""The processes above this one, and the libraries that a process has mapped, as /proc tells."""

import ctypes
import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any


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


def mpi_has_begun() -> bool:
    """Return whether MPI has been initialised in this process, without bringing it in."""
    return any(_says(path, "MPI_Initialized") for path in mapped_libraries("libmpi"))


def mpi_runs(families: tuple[str, ...] = ("",)) -> bool:
    """Return whether an MPI whose version begins with one of `families` is initialised here, and not finalised."""
    return any(_says(path, "MPI_Initialized") for path in _not_finalized(families))


def mpi_waits(families: tuple[str, ...]) -> bool:
    """Return whether a libmpi whose version begins with one of `families` is loaded and could still be initialised."""
    return bool(_not_finalized(families)) and not mpi_runs(families)


def _not_finalized(families: tuple[str, ...]) -> list[str]:
    loaded = [path for path in mapped_libraries("libmpi") if _version(path).startswith(families)]
    return [path for path in loaded if not _says(path, "MPI_Finalized")]


def mpi_may_follow(backend: str | None) -> bool:
    """Return whether this process could still call MPI_Init: by mpi4py, a mapped libmpi, or the backend MPI."""
    return find_spec("mpi4py") is not None or bool(mapped_libraries("libmpi")) or backend == "mpi"


def _says(path: str, question: str) -> bool:
    """Ask a library one of the questions that MPI answers at any time."""
    flag = ctypes.c_int(0)
    answer = _function(path, question)
    return answer is not None and answer(ctypes.byref(flag)) == 0 and bool(flag.value)


def _version(path: str) -> str:
    text, length = ctypes.create_string_buffer(8192), ctypes.c_int(0)
    answer = _function(path, "MPI_Get_library_version")
    return (
        text.value.decode("utf-8", "replace") if answer is not None and answer(text, ctypes.byref(length)) == 0 else ""
    )


def _function(path: str, name: str) -> Any:  # noqa: ANN401 - a function of C
    try:
        return getattr(ctypes.CDLL(path), name, None)
    except OSError:  # replaced on disk since it was mapped
        return None
