"""Launchers that start one process a node, and nodes with several accelerators, which torchrun is for; pure."""

from collections.abc import Sequence

from ._rows import ONE_A_NODE
from .environ import Environ
from .errors import NodeLevelRanks, NotLaunched
from .spec import DistSpec

MEANT = "LOCAL_RANK"
"""Set to 0, one process on a node with several accelerators is meant."""

PORT = 29500
"""Where torchrun's agents meet if nothing says it."""


def torchrun_line(spec: DistSpec, accelerators: int, environ: Environ) -> str:
    """Return the command that starts torchrun on this node, in place of the process of this spec.

    It is the same on all nodes where one variable holds the rank.
    """
    source = spec.sources.get("rank", "")
    rank = f"${source}" if environ.get(source) == str(spec.rank) else str(spec.rank)
    return (
        f"torchrun --nnodes={spec.world_size} --node-rank={rank} --nproc-per-node={accelerators} "
        f"--master-addr={spec.host or 'ADDRESS'} --master-port={spec.port or PORT} train.py"
    )


def refuse_several(spec: DistSpec, accelerators: int | None, environ: Environ, names: Sequence[str]) -> None:
    """Raise `NotLaunched` where the launcher says that a node has several accelerators, unless one process is meant."""
    if accelerators is None or accelerators <= 1 or environ.get(MEANT) == "0":
        return
    raise NotLaunched(
        spec.resolver,
        f"its numbers count nodes here, not processes, and each node has {accelerators} accelerators",
        environ.found(names),
        f"start torchrun once on each node: {torchrun_line(spec, accelerators, environ)}; where one process "
        f"per node is meant, export {MEANT}=0",
    )


def refuse_visible(spec: DistSpec, environ: Environ, visible: int) -> None:
    """Raise `NodeLevelRanks` where this process sees several accelerators, unless one process is meant."""
    counted = spec.sources.get("local_rank") == f"rule: {ONE_A_NODE}"
    if counted and visible > 1 and environ.get(MEANT) != "0":
        reason = f"{spec.resolver}'s numbers count nodes, not processes"
        raise NodeLevelRanks(f"rank {spec.rank}", visible, reason, torchrun_line(spec, visible, environ))
