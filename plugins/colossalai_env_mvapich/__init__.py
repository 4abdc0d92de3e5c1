"""MVAPICH's mpirun_rsh, of MVAPICH2 and of MVAPICH 3 and 4.

Facts: the source of MVAPICH2 2.3 (src/pm/mpirun/mpispawn.c), and that of MVAPICH 4 for the names that begin with MVP.
No run: it is not to be had. Its mpiexec is Hydra. No variable holds rank 0's host.
"""

from collections.abc import Iterable

from colossalai_env.resolver import DistSpec, Environ, HostAnswer, HostQuery, Layer, Resolver, any_of, hookimpl, var


def both_names(name: str) -> tuple[str, str]:
    """Return a variable's names in MVAPICH2 and in MVAPICH 3 and 4."""
    return f"MV2_COMM_WORLD_{name}", f"MVP_COMM_WORLD_{name}"


def ask_mpi4py(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Broadcast by mpi4py, where its library is MVAPICH's."""
    from colossalai_env_mpi import broadcast

    del environ
    return broadcast("mvapich", ("MVAPICH",), spec, seconds)


MVAPICH = Resolver(
    name="mvapich",
    layer=Layer.MPI,
    detect=any_of(*both_names("RANK"), *both_names("SIZE")),
    rank=var(*both_names("RANK")),
    world_size=var(*both_names("SIZE")),
    local_rank=var(*both_names("LOCAL_RANK"), required=False),
    local_world_size=var(*both_names("LOCAL_SIZE"), required=False),
    locate=(HostQuery("mpi4py", ask_mpi4py),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of MVAPICH."""
    return [MVAPICH]
