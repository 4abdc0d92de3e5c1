"""horovodrun with its own controller, Gloo; with MPI's or LSF's it is mpirun or jsrun that starts the processes.

Facts: the source of Horovod 0.28.1 (horovod/runner/gloo_run.py, horovod/runner/http), and runs of its rendezvous
server. HOROVOD_CROSS_RANK counts the processes of one local rank, and not nodes. The rendezvous is horovodrun's, on
its own host; rank 0 leaves its address there.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.resolver import (
    DistSpec,
    Environ,
    HostAnswer,
    HostQuery,
    Layer,
    Resolver,
    any_of,
    derive,
    hookimpl,
    var,
)

ADDRESS, PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"


def launch_token(address: str | None, port: str | None) -> str | None:
    """Name the launch after its rendezvous, which no other one has meanwhile."""
    return None if address is None or port is None else f"{address}/{port}"


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the rendezvous."""
    address, _, port = (spec.job_id or "").partition("/")
    return {ADDRESS: address, PORT: port} if port else {}


def ask_rendezvous(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Ask horovodrun's server; what that takes is imported when it is needed."""
    from .rendezvous import ask

    return ask(spec, environ, seconds)


HOROVOD = Resolver(
    name="horovod",
    layer=Layer.MPI,
    detect=any_of("HOROVOD_RANK", "HOROVOD_SIZE"),
    rank=var("HOROVOD_RANK"),
    world_size=var("HOROVOD_SIZE"),
    local_rank=var("HOROVOD_LOCAL_RANK", required=False),
    local_world_size=var("HOROVOD_LOCAL_SIZE", required=False),
    job_id=derive(launch_token, var(ADDRESS, required=False), var(PORT, required=False)),
    emulated=emulated,
    locate=(HostQuery("rendezvous", ask_rendezvous),),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of horovodrun."""
    return [HOROVOD]
