"""MPI through mpi4py, where its library is the launcher's own.

Facts: mpi4py's page "mpi4py.rc", and runs of mpi4py 4.1: the wrong library aborts the process or is silently a world of
one, so it says its version before MPI_Init.
"""

import atexit
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from colossalai_env.errors import CannotLocate

from .process import mpi_runs


def own_mpi(families: tuple[str, ...]) -> Any | str:  # noqa: ANN401 - mpi4py's module
    """Return mpi4py's module without MPI_Init, or say why no MPI of the launcher's can be had by it.

    The version that its library tells must begin with one of `families`.
    """
    if find_spec("mpi4py") is None:
        return "mpi4py is not installed"
    if not mpi_runs():
        package: Any = import_module("mpi4py")
        package.rc.initialize = False
    try:
        mpi: Any = import_module("mpi4py.MPI")
    except (ImportError, RuntimeError) as error:
        return f"mpi4py does not load: {' '.join(str(error).split())}"
    version = " ".join(mpi.Get_library_version().partition("\n")[0].partition(",")[0].split())
    if not version.startswith(families):
        return f"mpi4py's library is {version!r}, expected {' or '.join(families)}"
    return "MPI is finalized in this process" if mpi.Is_finalized() else mpi


def start(resolver: str, mpi: Any) -> None:  # noqa: ANN401 - mpi4py's module
    """Initialise MPI until the process ends, if it is not; raise `CannotLocate` in MPI's own words."""
    if mpi.Is_initialized():
        return
    try:
        mpi.Init_thread()
    except mpi.Exception as error:
        raise CannotLocate(resolver, "mpi4py", f"MPI_Init_thread failed: {error}") from None
    atexit.register(_finalize, mpi)


def _finalize(mpi: Any) -> None:  # noqa: ANN401 - mpi4py's module
    if not mpi.Is_finalized():
        mpi.Finalize()
