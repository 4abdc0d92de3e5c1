"""Rank 0's host by MPI itself, through mpi4py, where that is of the launcher's own family.

Facts: mpi4py's page "mpi4py.rc", and runs of mpi4py 4.1: the wrong family aborts the process or is silently a world of
one, so the library says its version before MPI_Init, and the world's size is compared after it.
"""

import atexit
import secrets
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from colossalai_env import CannotLocate, DistSpec, Located, host_name, own_address

from .process import mpi_runs

LONGEST = 256
"""Bytes of what is broadcast: rank 0's address, a space, and a token that serves where the launcher gives no job id."""


def broadcast(resolver: str, families: tuple[str, ...], spec: DistSpec, seconds: float) -> Located | None:
    """Broadcast rank 0's address with mpi4py, if its library's version begins with one of `families`; None if not."""
    mpi = _own_mpi(families)
    if mpi is None or mpi.Is_finalized():
        return None
    if not mpi.Is_initialized():
        mpi.Init_thread()
        atexit.register(_finalize, mpi)
    world = mpi.COMM_WORLD
    if world.Get_size() != spec.world_size:
        problem = f"MPI's world has {world.Get_size()} ranks, and the environment's {spec.world_size}"
        raise CannotLocate(resolver, "mpi4py", problem)
    said = f"{own_address()} mpi-{secrets.token_hex(8)}" if spec.rank == 0 else ""
    told = bytearray(said.encode().ljust(LONGEST, b"\0"))
    request = world.Ibcast([told, mpi.CHAR], root=0)
    until = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > until:
            raise CannotLocate(resolver, "mpi4py", f"the broadcast did not end within {seconds:.0f} s")
        time.sleep(0.001)
    host, _, token = told.rstrip(b"\0").decode("utf-8", "replace").partition(" ")
    try:
        return Located(host_name(host), "mpi4py broadcast", token)
    except ValueError as expected:
        raise CannotLocate(resolver, "mpi4py", f"rank 0 said {host!r}, expected {expected}") from None


def _own_mpi(families: tuple[str, ...]) -> Any:  # noqa: ANN401 - mpi4py's module
    """Import mpi4py without MPI_Init; return its module if its library is the launcher's, or runs already."""
    if find_spec("mpi4py") is None:
        return None
    if not mpi_runs():
        package: Any = import_module("mpi4py")
        package.rc.initialize = False
    try:
        mpi: Any = import_module("mpi4py.MPI")
    except (ImportError, RuntimeError):  # no MPI library where it looks
        return None
    return mpi if mpi.Get_library_version().startswith(families) else None


def _finalize(mpi: Any) -> None:  # noqa: ANN401 - mpi4py's module
    if not mpi.Is_finalized():
        mpi.Finalize()
