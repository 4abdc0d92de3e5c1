"""gforker, the other mpiexec of MPICH, which starts all processes on its own host.

Facts: runs of ``mpiexec.gforker`` of MPICH 4.3.2 and 5.0.2. PMI_RANK and PMI_SIZE are set by Flux and by Slurm's
``srun --mpi=pmi2`` too, MPI_APPNUM and MPI_UNIVERSE_SIZE by gforker alone. Ranks are numbered through all programs of
one command. The port comes from a token that rank 0 publishes.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import (
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    NoMatch,
    Resolver,
    all_of,
    hookimpl,
    var,
)

marked = all_of("MPI_APPNUM", "MPI_UNIVERSE_SIZE")


def by_gforker(environ: Environ) -> NoMatch | None:
    """MPI_APPNUM and MPI_UNIVERSE_SIZE are set beside PMI_RANK or PMI_SIZE, which are not those of a task of Flux."""
    if "PMI_RANK" not in environ and "PMI_SIZE" not in environ:
        return NoMatch("no PMI_RANK or PMI_SIZE")
    pmi, flux = (
        [environ.get(name) for name in names]
        for names in (("PMI_RANK", "PMI_SIZE"), ("FLUX_TASK_RANK", "FLUX_JOB_SIZE"))
    )
    if pmi == flux:
        return NoMatch("PMI_RANK and PMI_SIZE are those of a task of Flux")
    return marked(environ)


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return gforker's marks; raise `InvalidSpec` for a world that spans hosts."""
    if spec.num_nodes not in {1, None} or spec.local_rank not in {spec.rank, None}:
        problem = "gforker starts all processes on one host, numbered by their ranks"
        raise InvalidSpec(problem, ("num_nodes", "local_rank"))
    return {"MPI_APPNUM": "0", "MPI_UNIVERSE_SIZE": "-1", "PMI_RANK": str(spec.rank), "PMI_SIZE": str(spec.world_size)}


def ask_pmi(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask over the channel that each process inherits; what that takes is imported when it is needed."""
    from colossalai_env_mpi.pmi import ask

    return ask(spec, environ, seconds)


# Where Hydra's variables and gforker's marks are both there, one of them is inherited: of two claims that agree on the
# rank, the first by name counts, and Hydra's says less.
GFORKER = Resolver(
    name="mpich-gforker",
    layer=Layer.MPI,
    detect=by_gforker,
    rank=var("PMI_RANK"),
    world_size=var("PMI_SIZE"),
    local_rank=var("PMI_RANK"),
    local_world_size=var("PMI_SIZE"),
    emulated=emulated,
    locate=(HostQuery("pmi", ask_pmi),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of gforker."""
    return [GFORKER]
