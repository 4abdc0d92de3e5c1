"""Rank 0's host by a broadcast of MPI's own, through mpi4py.

Facts: runs of mpi4py 4.1: with a library that the launcher does not know the world is silently of one, so its size is
compared; and what MPI cannot send comes as an exception on one rank, while the others wait.
"""

import secrets
import time
from typing import Any

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, HostAnswer, host_name, own_address

from .mpi import own_mpi, start

LONGEST = 256
"""Bytes of what is broadcast: rank 0's address, a space, and a token that serves where the launcher gives no job id."""


def broadcast(resolver: str, families: tuple[str, ...], spec: DistSpec, seconds: float) -> HostAnswer | str:
    """Broadcast rank 0's address with mpi4py, if its library's version begins with one of `families`."""
    mpi = own_mpi(families)
    if isinstance(mpi, str):
        return mpi
    start(resolver, mpi)
    world = mpi.COMM_WORLD
    if world.Get_size() != spec.world_size:
        problem = f"MPI's world has {world.Get_size()} ranks, and the environment's {spec.world_size}"
        raise CannotLocate(resolver, "mpi4py", problem)
    said = f"{own_address()} mpi-{secrets.token_hex(8)}" if spec.rank == 0 else ""
    try:
        told = _broadcast(mpi, said, seconds)
    except mpi.Exception as error:
        raise CannotLocate(resolver, "mpi4py", f"the broadcast failed: {error}") from None
    if told is None:
        raise CannotLocate(resolver, "mpi4py", f"the broadcast did not end within {seconds:.0f} s")
    host, _, token = told.partition(" ")
    try:
        return HostAnswer(host_name(host), "mpi4py broadcast", token)
    except ValueError as expected:
        raise CannotLocate(resolver, "mpi4py", f"rank 0 said {host!r}, expected {expected}") from None


def _broadcast(mpi: Any, said: str, seconds: float) -> str | None:  # noqa: ANN401 - mpi4py's module
    """Return what rank 0 said, or nothing where that does not arrive in time."""
    message = bytearray(said.encode().ljust(LONGEST, b"\0"))
    request = mpi.COMM_WORLD.Ibcast([message, mpi.CHAR], root=0)
    until = time.monotonic() + seconds
    while not request.Test():
        if time.monotonic() > until:
            return None
        time.sleep(0.001)
    return message.rstrip(b"\0").decode("utf-8", "replace")
