"""The launcher house.

Facts: state here where they come from: a manual, a version that was run.
"""

from collections.abc import Iterable

from colossalai_env.resolver import Layer, Resolver, any_of, hookimpl, var

HOUSE = Resolver(
    name="house",
    layer=Layer.MPI,  # who starts whom? WORKER, MPI, STEP, PLATFORM
    detect=any_of("HOUSE_RANK", "HOUSE_WORLD_SIZE"),
    rank=var("HOUSE_RANK"),
    world_size=var("HOUSE_WORLD_SIZE"),
    local_rank=var("HOUSE_LOCAL_RANK"),
    local_world_size=var("HOUSE_LOCAL_WORLD_SIZE", required=False),
    host=var("HOUSE_HOST"),
    job_id=var("HOUSE_JOB_ID", required=False),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver."""
    return [HOUSE]
