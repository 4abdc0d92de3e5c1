"""SkyPilot's tasks on several nodes, whose command runs once on each.

Facts: SkyPilot's pages "Environment Variables" and "Distributed Multi-Node Jobs" (of 0.9 to 0.11). No run. The list of
addresses has one line a node, in the order of their ranks.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.resolver import DistSpec, Layer, Resolver, any_of, derive, hookimpl, host_name, var


def first_line(addresses: str) -> str:
    """Take the address of node 0."""
    return host_name(addresses.partition("\n")[0])


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the addresses of all nodes, of which the first matters."""
    others = "".join(f"\n10.0.0.{index % 256}" for index in range(1, spec.world_size))
    return {"SKYPILOT_NODE_IPS": f"{spec.host}{others}"} if spec.host else {}


SKYPILOT = Resolver(
    name="skypilot",
    layer=Layer.PLATFORM,
    detect=any_of("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    counts_nodes=True,
    rank=var("SKYPILOT_NODE_RANK"),
    world_size=var("SKYPILOT_NUM_NODES"),
    host=derive(first_line, "SKYPILOT_NODE_IPS"),
    job_id=var("SKYPILOT_TASK_ID", required=False),
    accelerators=var("SKYPILOT_NUM_GPUS_PER_NODE", required=False),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of SkyPilot."""
    return [SKYPILOT]
