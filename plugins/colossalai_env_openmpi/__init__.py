"""Open MPI's mpirun, 4.1 (ORTE), 5 and 6 (PRRTE).

Facts: Open MPI's page "Environment variables set by mpirun" and runs of 4.1.4, 4.1.8, 5.0.11 and 6.0.0rc2. No
variable holds the node's index, the number of nodes or rank 0's host: OMPI_COMM_WORLD_NODE_RANK
is a rank within the node, OMPI_UNIVERSE_SIZE counts slots, and the URIs are mpirun's own. mpirun is asked for it.
"""

from collections.abc import Iterable

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

RANK, SIZE, LOCAL_RANK = (f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK"))


def rank_alone(environ: Environ) -> NoMatch | None:
    """Leave tasks of Flux to it: for Spectrum MPI it sets the rank, and nothing else."""
    if SIZE in environ or LOCAL_RANK in environ:
        return None
    return NoMatch(f"no {SIZE}", (RANK,), (SIZE,))


def ask_mpi4py(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Initialise MPI by mpi4py, where its library is Open MPI's, and ask by it; imported when it is needed."""
    from .pmix import ask_with_mpi

    del spec
    return ask_with_mpi(environ, seconds)


def ask_pmix(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask mpirun's daemon; what that takes is imported when it is needed."""
    from .pmix import ask

    return ask(spec, environ, seconds)


OPENMPI = Resolver(
    name="openmpi",
    layer=Layer.MPI,
    detect=any_of(RANK, SIZE),
    exclude=rank_alone,
    rank=var(RANK),
    world_size=var(SIZE),
    local_rank=var(LOCAL_RANK),
    local_world_size=var("OMPI_COMM_WORLD_LOCAL_SIZE", required=False),
    job_id=var("PMIX_NAMESPACE", required=False),
    locate=(HostQuery("mpi4py", ask_mpi4py), HostQuery("pmix", ask_pmix)),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver."""
    return [OPENMPI]
