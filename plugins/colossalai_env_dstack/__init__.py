"""dstack's distributed tasks, whose commands run once on each node.

Facts: the source of dstack of August 2026 (runner/internal/runner/executor/executor.go) and its page "Distributed
tasks". No run. Tasks of one node have the variables too, with an address that may be empty.
"""

from collections.abc import Iterable

from colossalai_env.resolver import Layer, Resolver, any_of, hookimpl, var

DSTACK = Resolver(
    name="dstack",
    layer=Layer.PLATFORM,
    detect=any_of("DSTACK_NODE_RANK", "DSTACK_NODES_NUM"),
    counts_nodes=True,
    rank=var("DSTACK_NODE_RANK"),
    world_size=var("DSTACK_NODES_NUM"),
    host=var("DSTACK_MASTER_NODE_IP"),
    job_id=var("DSTACK_RUN_ID", "DSTACK_RUN_NAME", required=False),
    accelerators=var("DSTACK_GPUS_PER_NODE", required=False),
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of dstack."""
    return [DSTACK]
