"""AWS Batch's multi-node parallel jobs, whose container runs once on each node.

Facts: Amazon's pages "Environment variables" of multi-node parallel jobs and "AWS Batch job environment variables" (of
2026). No run. The main node need not be the first, and the address is told to the other nodes alone. The id of a
node's own job may end with ``#`` and the node's number.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import (
    DistSpec,
    Layer,
    Resolver,
    any_of,
    derive,
    hookimpl,
    positive_number,
    var,
    whole_number,
)

INDEX, MAIN, COUNT = "AWS_BATCH_JOB_NODE_INDEX", "AWS_BATCH_JOB_MAIN_NODE_INDEX", "AWS_BATCH_JOB_NUM_NODES"


def main_first(node: int, main: int, count: int) -> int:
    """Give the main node, whose address all know, rank 0, and the others the next ones in their order."""
    if main >= count:
        msg = f"{MAIN} must be below {COUNT}"
        raise ValueError(msg)
    return 0 if node == main else node + (node < main)


def parent(job: str | None) -> str | None:
    """Leave out the node's number."""
    return job.partition("#")[0] or None if job else None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return a main node with which this node has its rank."""
    node, rank = spec.node_rank or 0, spec.rank
    if rank not in {0, node, node + 1}:
        msg = f"node_rank is {node} and rank {rank}: only the main node leaves the order"
        raise InvalidSpec(msg, ("node_rank", "rank"))
    main = node if rank == 0 else 0 if rank == node else node + 1
    ids = {} if spec.job_id is None else {"AWS_BATCH_JOB_ID": f"{spec.job_id}#{node}"}
    return {MAIN: str(main), **ids}


AWS_BATCH = Resolver(
    name="aws-batch",
    layer=Layer.PLATFORM,
    detect=any_of(INDEX, COUNT),
    counts_nodes=True,
    rank=derive(
        main_first, var(INDEX, read=whole_number), var(MAIN, read=whole_number), var(COUNT, read=positive_number)
    ),
    world_size=var(COUNT),
    node_rank=var(INDEX),
    host=var("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", only_others=True),
    job_id=derive(parent, var("AWS_BATCH_JOB_ID", required=False)),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of AWS Batch."""
    return [AWS_BATCH]
