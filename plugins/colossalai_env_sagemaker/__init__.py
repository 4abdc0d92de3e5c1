"""Amazon SageMaker's training jobs, whose entry point runs once on each instance.

Facts: runs of SageMaker's training toolkit 5.1.4 with a made-up configuration of two hosts, and the source of the
SageMaker Python SDK 3.20, which sets the same: all instances have one list of hosts in one order.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colossalai_env.resolver import DistSpec, Layer, Resolver, any_of, derive, hookimpl, host_name, var, whole_number


def hosts(text: str) -> Sequence[str]:
    """Read a list of names in JSON."""
    import json

    try:
        names: Any = json.loads(text)
        found = [host_name(name) for name in names]
    except (ValueError, AttributeError, TypeError):
        found = []
    if not found:
        msg = 'a list of names in JSON, such as ["algo-1","algo-2"]'
        raise ValueError(msg)
    return found


def place(names: Sequence[str], here: str) -> int:
    """Find this host among all."""
    if here not in names:
        msg = "SM_CURRENT_HOST is none of SM_HOSTS"
        raise ValueError(msg)
    return names.index(here)


def first(names: Sequence[str]) -> str:
    """Take the first host, as SageMaker's own launchers do."""
    return names[0]


def most(*counts: int | None) -> int:
    """Count GPUs, or the cores of Neuron devices."""
    return max(count or 0 for count in counts)


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return the hosts, of which rank 0's is the first, and this one among them."""
    names = [spec.host or "algo-1", *(f"algo-{index}" for index in range(2, spec.world_size + 1))]
    listed = ",".join(f'"{name}"' for name in names)
    return {"SM_HOSTS": f"[{listed}]", "SM_CURRENT_HOST": names[spec.rank]}


HOSTS = var("SM_HOSTS", read=hosts)

SAGEMAKER = Resolver(
    name="sagemaker",
    layer=Layer.PLATFORM,
    detect=any_of("SM_HOSTS", "SM_CURRENT_HOST"),
    counts_nodes=True,
    rank=derive(place, HOSTS, "SM_CURRENT_HOST"),
    world_size=derive(len, HOSTS),
    host=derive(first, HOSTS),
    job_id=var("TRAINING_JOB_NAME", required=False),
    accelerators=derive(
        most,
        var("SM_NUM_GPUS", required=False, read=whole_number),
        var("SM_NUM_NEURONS", required=False, read=whole_number),
    ),
    emulated=emulated,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of SageMaker's training jobs."""
    return [SAGEMAKER]
