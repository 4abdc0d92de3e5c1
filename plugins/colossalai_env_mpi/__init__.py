"""What the resolvers of MPI's launchers share: PMI-1, processes above, this one's MPI, and a broadcast by mpi4py."""

from .broadcast import broadcast
from .mpi import own_mpi, start
from .process import ancestors, mapped_libraries, mpi_has_begun, mpi_may_follow, mpi_runs, mpi_waits

__all__ = [
    "ancestors",
    "broadcast",
    "mapped_libraries",
    "mpi_has_begun",
    "mpi_may_follow",
    "mpi_runs",
    "mpi_waits",
    "own_mpi",
    "start",
]
