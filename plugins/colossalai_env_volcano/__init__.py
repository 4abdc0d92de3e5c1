"""Volcano's jobs with the plugins env and svc, whose command runs once in each pod.

Facts: the source of Volcano 1.9 (pkg/controllers/job/plugins/env, svc and distributed-framework/pytorch). No run. A pod
is numbered among those of its own task alone, so jobs with several tasks say no rank; with the plugin pytorch RANK and
WORLD_SIZE are set.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import (
    DistSpec,
    Environ,
    Layer,
    NoMatch,
    Resolver,
    any_of,
    derive,
    hookimpl,
    host_name,
    var,
)

INDEX, COUNT, HOSTS = "VC_TASK_INDEX", "VC_WORKER_NUM", "VC_WORKER_HOSTS"


def several_tasks(environ: Environ) -> NoMatch | None:
    """Refuse pods of which nothing says how their task's numbers follow those of the others."""
    if "MA_NUM_HOSTS" in environ:
        return NoMatch("MA_NUM_HOSTS is set: ModelArts numbers its nodes otherwise")
    counts = [name for name in environ.variables if name.startswith("VC_") and name.endswith("_NUM")]
    pods = environ.found(counts)
    if not set(counts) - {COUNT}:
        return None if pods or HOSTS in environ else NoMatch(f"no {COUNT}")
    if [text for _, text in pods] == ["1"]:
        return NoMatch(f"{counts[0]} is 1, and it is the only task")
    raise NotLaunched(
        "volcano",
        "this pod is one of a job whose task is not named worker, or one of several: which pods come first is not said",
        environ.found([INDEX, *counts]),
        "give the job Volcano's plugin pytorch (pytorch: [--master=master, --worker=worker]), which sets RANK and "
        "WORLD_SIZE, or start torchrun in each pod with a --node-rank of your own",
    )


def first_of(hosts: str) -> str:
    """Take the first pod's name."""
    return host_name(hosts.partition(",")[0])


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the names of all pods, of which the first matters."""
    others = "".join(f",job-worker-{index}.job" for index in range(1, spec.world_size))
    return {HOSTS: f"{spec.host}{others}"} if spec.host else {}


VOLCANO = Resolver(
    name="volcano",
    layer=Layer.PLATFORM,
    detect=any_of(INDEX, COUNT, HOSTS),
    exclude=several_tasks,
    counts_nodes=True,
    rank=var(INDEX),
    world_size=var(COUNT),
    host=derive(first_of, HOSTS),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of Volcano."""
    return [VOLCANO]
