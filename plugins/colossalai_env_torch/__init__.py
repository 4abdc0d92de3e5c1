"""torchrun, `torch.distributed.launch`, deepspeed's launcher, and RANK and WORLD_SIZE set by hand as for ``env://``.

Facts: PyTorch's page "torchrun (Elastic Launch)", section "Environment Variables", runs of
torchrun 2.13 with standalone, c10d and static rendezvous, restarts, uneven agents and several
agents on one host, and runs of deepspeed 0.19.8. Kubeflow's PyTorchJob (training-operator 1.9, its source) sets RANK to
the number of a pod, and WORLD_SIZE to the pods or, where each has several processes, to all processes.
"""

from collections.abc import Iterable, Mapping

from colossalai_env.errors import NotLaunched
from colossalai_env.resolver import (
    DistSpec,
    Environ,
    Layer,
    NoMatch,
    Resolver,
    all_of,
    any_of,
    derive,
    hookimpl,
    port_number,
    var,
)

RUN, RESTART, AGENT_STORE = "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_USE_AGENT_STORE"

by_torchrun = any_of(RUN, RESTART)
by_hand = all_of("RANK", "WORLD_SIZE")


ONE_OR_UNSAID = {None, "1", "auto", "gpu"}
"""What PET_NPROC_PER_NODE may hold where one process a node is meant: "auto" is the operator's default, and a pod may
have one GPU. Where it has several, the roll call sees them."""


def worker(environ: Environ) -> NoMatch | None:
    """Torchrun's own variables are set, or RANK and WORLD_SIZE are."""
    if by_torchrun(environ) is None:
        return None
    if environ.get("WORLD_SIZE") == "1" and "RANK" not in environ:
        return NoMatch("WORLD_SIZE is 1 and RANK is not set")
    missing = by_hand(environ)
    if missing is not None:
        return missing
    if "LOCAL_RANK" not in environ and environ.get("PET_NPROC_PER_NODE") not in ONE_OR_UNSAID:
        raise NotLaunched(
            "torch",
            "RANK counts nodes here, not processes: it is torchrun's input",
            environ.found(("RANK", "WORLD_SIZE", "PET_NNODES", "PET_NPROC_PER_NODE")),
            TORCHRUN_READS if "PET_NNODES" in environ else NODE_LEVEL_ADVICE,
        )
    return None


def set_by_hand(environ: Environ) -> bool:
    """Return whether neither torchrun nor deepspeed's launcher set RANK and WORLD_SIZE."""
    return by_torchrun(environ) is not None and "CROSS_SIZE" not in environ


def host_advice(environ: Environ) -> str | None:
    """Return how torchrun is told rank 0's address; by hand it is exported."""
    if by_torchrun(environ) is not None:
        return None
    return (
        "start torchrun with --local-addr=ADDRESS on each node, each with its own, or with rank 0's as --master-addr "
        "where that option is used: it sets MASTER_ADDR anew"
    )


def master_port(text: str) -> int:
    """Read MASTER_PORT, which Kubernetes sets too, to something else."""
    try:
        return port_number(text)
    except ValueError as expected:
        if not text.startswith(("tcp://", "udp://", "sctp://")):
            raise
        msg = (
            f"{expected}; this is what Kubernetes sets for a Service named master: export MASTER_PORT=NUMBER on every "
            "rank, or give the pods enableServiceLinks: false"
        )
        raise ValueError(msg) from None


TORCHRUN_READS = (
    "start torchrun train.py once on each node, which reads PET_NNODES and its kin; where one process per node is "
    "meant, export LOCAL_RANK=0"
)

NODE_LEVEL_ADVICE = (
    "start torchrun once on each node: torchrun --nnodes=$WORLD_SIZE --node-rank=$RANK "
    "--nproc-per-node=gpu --master-addr=$MASTER_ADDR --master-port=$MASTER_PORT train.py; "
    "where one process per node is meant, export LOCAL_RANK=0"
)


def several(environ: Environ) -> bool:
    """Return whether the world has more than one process, which need an address to meet at."""
    return environ.get("WORLD_SIZE") != "1" or by_torchrun(environ) is None


def launch_token(run: str, restart: str) -> str:
    """Join the run's id and the number of restarts: a restarted worker is not the one before."""
    return f"{run}/{restart}"


def is_true(value: str | None) -> bool | None:
    """Read torchrun's "True" as torch.distributed does; anything else says nothing."""
    return True if value == "True" else None


def emulated(spec: DistSpec) -> Mapping[str, str]:
    """Return torchrun's own marks, where the spec has them."""
    served = {AGENT_STORE: str(spec.agent_store)}
    if spec.job_id is None:
        return served if spec.agent_store else {}
    run, _, restart = spec.job_id.rpartition("/")
    return {RUN: run, RESTART: restart, **served}


TORCH = Resolver(
    name="torch",
    layer=Layer.WORKER,
    detect=worker,
    rank=var("RANK"),
    world_size=var("WORLD_SIZE"),
    local_rank=var("LOCAL_RANK", required=RUN),
    local_world_size=var("LOCAL_WORLD_SIZE", "LOCAL_SIZE", required=RUN),
    node_rank=var("GROUP_RANK", "CROSS_RANK", required=RUN),
    num_nodes=var("GROUP_WORLD_SIZE", "CROSS_SIZE", required=RUN),
    host=var("MASTER_ADDR", required=several),
    port=var("MASTER_PORT", required=several, read=master_port),
    agent_store=derive(is_true, var(AGENT_STORE, required=False)),
    job_id=derive(launch_token, RUN, RESTART, required=lambda environ: by_torchrun(environ) is None),
    emulated=emulated,
    by_hand=set_by_hand,
    host_advice=host_advice,
    doc=__doc__,
)


@hookimpl
def colossalai_env_resolvers() -> Iterable[Resolver]:
    """Bring the resolver of torchrun and ``env://``."""
    return [TORCH]
