"""AWS Batch's multi-node parallel jobs, whose container runs once on each node.

Facts: Amazon's pages "Environment variables" of multi-node parallel jobs and "AWS Batch job environment variables" (of
2026). No run. The main node need not be the first, and the address is told to the other nodes alone. The id of a
node's own job may end with ``#`` and the node's number.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.resolver import DistSpec, Layer, Resolver, any_of, derive, hookimpl, var

INDEX, COUNT = "AWS_BATCH_JOB_NODE_INDEX", "AWS_BATCH_JOB_NUM_NODES"


def parent(job: str | None) -> str | None:
    """Leave out the node's number."""
    return job.partition("#")[0] or None if job else None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the id of this node's own job."""
    return {} if spec.job_id is None else {"AWS_BATCH_JOB_ID": f"{spec.job_id}#{spec.node_rank or 0}"}


AWS_BATCH = Resolver(
    name="aws-batch",
    layer=Layer.PLATFORM,
    detect=any_of(INDEX, COUNT),
    counts_nodes=True,
    rank=var(INDEX),
    world_size=var(COUNT),
    main_node=var("AWS_BATCH_JOB_MAIN_NODE_INDEX"),
    host=var("AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS", only_others=True),
    job_id=derive(parent, var("AWS_BATCH_JOB_ID", required=False)),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of AWS Batch."""
    return [AWS_BATCH]
