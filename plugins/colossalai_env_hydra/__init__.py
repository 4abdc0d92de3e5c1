"""Hydra, the mpiexec of MPICH 4 and 5 and of Intel MPI.

Facts: runs of MPICH 4.0 and 5.0 and Intel MPI 2021.18. PMI_RANK alone is no mark of Hydra: Slurm's
``srun --mpi=pmi2`` sets it too. No variable holds rank 0's host; Hydra is asked for it.
"""

from collections.abc import Iterable

from colossalai_env import DistSpec, Environ, Layer, Located, Resolver, Way, any_of, hookimpl, var


def ask_pmi(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Ask Hydra's proxy; what that takes is imported when it is needed."""
    from .pmi import ask

    return ask(spec, environ, seconds)


def ask_mpi4py(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Broadcast by mpi4py, where its library is MPICH's or Intel's."""
    from colossalai_env_mpi import broadcast

    del environ
    return broadcast("hydra", ("MPICH", "Intel"), spec, seconds)


HYDRA = Resolver(
    name="hydra",
    layer=Layer.MPI,
    present=any_of("MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    rank=var("PMI_RANK"),
    world_size=var("PMI_SIZE"),
    local_rank=var("MPI_LOCALRANKID"),
    local_world_size=var("MPI_LOCALNRANKS"),
    job_id=var("I_MPI_HYDRA_UUID", required=False),
    locate=(Way("pmi", ask_pmi), Way("mpi4py", ask_mpi4py)),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of Hydra."""
    return [HYDRA]
