"""The platform house, which starts the command once on each node.

Facts: state here where they come from: a manual, a version that was run.
"""

from collections.abc import Iterable

from colossalai_env.resolver import Layer, Resolver, any_of, hookimpl, var

HOUSE = Resolver(
    name="house",
    layer=Layer.PLATFORM,  # who starts whom? WORKER, MPI, STEP, PLATFORM
    detect=any_of("HOUSE_NODE", "HOUSE_NODES"),
    counts_nodes=True,
    rank=var("HOUSE_NODE"),
    world_size=var("HOUSE_NODES"),
    main_node=var("HOUSE_MAIN_NODE"),  # no row where it is always node 0
    host=var("HOUSE_MAIN_ADDRESS", only_others=True),  # or is it told too?
    accelerators=var("HOUSE_GPUS", required=False),
    job_id=var("HOUSE_JOB_ID", required=False),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver."""
    return [HOUSE]
