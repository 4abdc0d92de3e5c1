"""What resolvers of MPI's launchers and their kin share: PMI-1, processes above, MPI, and files of hosts."""

from .broadcast import broadcast
from .hostfile import listed_host
from .mpi import own_mpi, start
from .process import ancestors, mapped_libraries, mpi_has_begun, mpi_may_follow, mpi_runs, mpi_waits

__all__ = [
    "ancestors",
    "broadcast",
    "listed_host",
    "mapped_libraries",
    "mpi_has_begun",
    "mpi_may_follow",
    "mpi_runs",
    "mpi_waits",
    "own_mpi",
    "start",
]
