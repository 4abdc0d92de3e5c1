"""Hydra, the mpiexec of MPICH 4 and 5 and of Intel MPI.

Facts: runs of MPICH 4.0, 4.3 and 5.0 and Intel MPI 2021.18 and 2021.19. PMI_RANK alone is no mark of Hydra: Slurm's
``srun --mpi=pmi2`` sets it too. No variable holds rank 0's host; Hydra is asked for it. With ``-pmi-port`` no variable
says the world's size.
"""

from collections.abc import Iterable

from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import (
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    NoMatch,
    Resolver,
    any_of,
    hookimpl,
    var,
)


def ask_pmi(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask Hydra's proxy; what that takes is imported when it is needed."""
    from colossalai_env_mpi.pmi import ask

    return ask(spec, environ, seconds)


def ask_mpi4py(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Broadcast by mpi4py, where its library is MPICH's or Intel's."""
    from colossalai_env_mpi import broadcast

    del environ
    return broadcast("hydra", ("MPICH", "Intel"), spec, seconds)


def by_port(environ: Environ) -> NoMatch | None:
    """Refuse a process that Hydra gave a port in place of the channel."""
    if "PMI_PORT" in environ and "PMI_FD" not in environ:
        raise NotLaunched(
            "hydra",
            "mpiexec was told -pmi-port, with which the world's size is said over that port alone",
            environ.found(["PMI_ID", "PMI_PORT"]),
            "leave -pmi-port out (mpiexec -n 4 python train.py), or give rank and size as arguments: "
            "--rank $PMI_ID --world_size 4, with --host and --port",
        )
    return None


HYDRA = Resolver(
    name="hydra",
    layer=Layer.MPI,
    detect=any_of("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    exclude=by_port,
    rank=var("PMI_RANK"),
    world_size=var("PMI_SIZE"),
    local_rank=var("MPI_LOCALRANKID"),
    local_world_size=var("MPI_LOCALNRANKS"),
    job_id=var("I_MPI_HYDRA_UUID", required=False),
    locate=(HostQuery("pmi", ask_pmi), HostQuery("mpi4py", ask_mpi4py)),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of Hydra."""
    return [HYDRA]
