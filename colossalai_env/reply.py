"""What each process says of itself in the roll call, and what follows from all replies; pure."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from .errors import Disagreement, DuplicateRank, MissingRanks, NodeLevelRanks, RankFailed, RollCallFailed, SharedDevice


@attrs.frozen(kw_only=True)
class Reply:
    """What one process says of itself; about 300 bytes as JSON."""

    rank: int
    world_size: int
    host: str
    boot: str
    pid: int
    backend: str
    torch: str
    resolver: str
    local_rank: int | None = None
    local_world_size: int | None = None
    node_rank: int | None = None
    num_nodes: int | None = None
    device: str | None = None
    visible: int = 0
    address: str | None = None
    """By which it reached the store; None where that was loopback."""
    error: str | None = None
    gave_up: bool | None = None

    def line(self) -> str:
        """Return one line of JSON; what is None is left out."""
        said = {name: value for name, value in attrs.asdict(self).items() if value is not None}
        return json.dumps(said, separators=(",", ":")) + "\n"

    def __str__(self) -> str:
        """Name the process: ``rank 3 (pid 4711 on gpu-a02)``."""
        return f"rank {self.rank} ({self.process})" if self.rank >= 0 else f"a process ({self.process})"

    @property
    def process(self) -> str:
        """Name pid and host."""
        return f"pid {self.pid} on {self.host}"

    @property
    def node(self) -> tuple[str, str]:
        """Tell nodes apart: two machines may bear one name, two containers may share one machine."""
        return self.host, self.boot


def replies_in(log: str | None) -> list[Reply]:
    """Read a log of replies."""
    return [Reply(**json.loads(line)) for line in (log or "").splitlines()]


def ranges(ranks: Iterable[int]) -> str:
    """Write ranks as people do: ``0-3, 7, 12-13``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and runs[-1][1] == rank - 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def named(replies: Sequence[Reply]) -> str:
    """Name some processes in full, and of many the others by rank alone."""
    some = ", ".join(map(str, replies[:SOME]))
    more = replies[SOME:]
    return f"{some} and {len(more)} more (rank(s) {ranges(reply.rank for reply in more)})" if more else some


SOME = 4
"""How many processes are named in full."""

AGREED = {"world_size": "world size", "backend": "backend", "torch": "torch version", "resolver": "resolver"}
"""What all ranks must say alike, and its name for people."""


def problem(replies: Sequence[Reply]) -> RollCallFailed | None:
    """Find what forbids the group, whoever is still missing: an error, a duplicate, a disagreement, a shared device."""
    for reply in replies:
        if reply.error is not None:
            return MissingRanks(reply.error) if reply.gave_up else RankFailed(f"{reply} failed: {reply.error}")
    return _duplicate(replies) or disagreement(replies) or _shared_device(replies)


def _duplicate(replies: Sequence[Reply]) -> RollCallFailed | None:
    holders: dict[int, Reply] = {}
    for reply in replies:
        first = holders.setdefault(reply.rank, reply)
        if first is not reply:
            return DuplicateRank(
                f"rank {reply.rank} is held by two processes, {first.process} and {reply.process}: "
                "start each rank once; if these are two jobs, give one of them another port (MASTER_PORT)"
            )
    return None


def disagreement(replies: Sequence[Reply]) -> Disagreement | None:
    """Name the ranks that are of another mind than most, or than rank 0 where there is no most."""
    for field, name in AGREED.items():
        values = Counter(getattr(reply, field) for reply in replies)
        if len(values) > 1:
            most = values.most_common(2)
            tie = most[0][1] == most[1][1]
            usual = (
                next((getattr(reply, field) for reply in replies if reply.rank == 0), most[0][0]) if tie else most[0][0]
            )
            odd = [reply for reply in replies if getattr(reply, field) != usual]
            others = ranges(reply.rank for reply in replies if getattr(reply, field) == usual)
            said = "; ".join(f"{reply} says {getattr(reply, field)!r}" for reply in odd[:SOME])
            more = f" and {len(odd) - SOME} more" if len(odd) > SOME else ""
            return Disagreement(
                f"the ranks disagree on the {name}: {said}{more}; rank(s) {others} say {usual!r}: "
                f"start all ranks with one {name}"
            )
    return None


def _shared_device(replies: Sequence[Reply]) -> RollCallFailed | None:
    """Find two processes with one accelerator, told by its UUID or else by node and local rank."""
    holders: dict[object, Reply] = {}
    for reply in replies:
        if reply.device is None and reply.local_rank is None:
            continue
        slot = reply.device or (reply.node, reply.node_rank, reply.local_rank)
        first = holders.setdefault(slot, reply)
        if first is not reply:
            what = f"device {reply.device}" if reply.device else f"local rank {reply.local_rank}"
            return SharedDevice(
                f"{first} and {reply} both have {what}: give each process of a node its own LOCAL_RANK, "
                "or show each its own devices"
            )
    return None


def missing(
    replies: Sequence[Reply],
    world_size: int,
    seconds: float,
    lost: Sequence[Reply] = (),
    importing: Mapping[int, str] | None = None,
    hint: str = "",
) -> RollCallFailed:
    """Name the ranks that did not come, their neighbours' hosts, and all hosts that were heard from.

    `hint` is what may keep other hosts away, for where none was heard from.
    """
    here = {reply.rank: reply.host for reply in replies if reply.rank >= 0}
    absent = [rank for rank in range(world_size) if rank not in here]
    runs = ranges(absent)
    beside = sorted({rank for gone in absent for rank in (gone - 1, gone + 1) if rank in here})
    neighbours = ", ".join(f"rank {rank} on {here[rank]}" for rank in beside[:4])
    hosts = Counter(here.values())
    heard = ", ".join(f"{host} ({count})" for host, count in sorted(hosts.items())) or "no host"
    gone = f"; answered and then lost: {named(lost)}" if lost else ""
    slow = [f"rank {rank} ({process})" for rank, process in (importing or {}).items() if rank not in here]
    busy = f"; still importing torch: {_some(slow)}" if slow else ""
    return MissingRanks(
        f"rank(s) {runs} of {world_size} did not come within {seconds:.1f} s; neighbours: {neighbours or 'none'}; "
        f"heard from: {heard}{gone}{busy}: look at what the missing rank(s) said, and whether they were started"
        + (f"; {hint}" if hint and len(hosts) < 2 else "")
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SOME} more" if len(names) > SOME else ""
    return ", ".join(names[:SOME]) + more


@attrs.frozen
class Place:
    """The numbers of one rank that its launcher may have left unsaid."""

    local_rank: int
    local_world_size: int
    node_rank: int
    num_nodes: int


def places(replies: Sequence[Reply]) -> dict[int, Place]:
    """Give every rank its numbers: as its launcher says, or else by node and order of rank.

    A launcher's nodes may be on one host, such as two containers, or agents that are tried on a laptop: where it says
    which node a rank is on, that counts, and not the host. Where it says only how many nodes there are, and there
    cannot be that many, the hosts are counted.
    """
    nodes: dict[object, list[Reply]] = {}
    for reply in sorted(replies, key=lambda reply: reply.rank):
        nodes.setdefault(reply.node if reply.node_rank is None else reply.node_rank, []).append(reply)
    sizes = [max(len(here), *((reply.local_rank or 0) + 1 for reply in here)) for here in nodes.values()]
    most = len(replies) - max(sizes, default=0) + 1
    return {
        reply.rank: Place(
            local_rank=_said(reply.local_rank, position),
            local_world_size=_said(reply.local_world_size, size),
            node_rank=_said(reply.node_rank, index),
            num_nodes=reply.num_nodes if reply.num_nodes and len(nodes) <= reply.num_nodes <= most else len(nodes),
        )
        for index, (node, size) in enumerate(zip(nodes.values(), sizes, strict=True))
        for position, reply in enumerate(node)
    }


def _said(value: int | None, counted: int) -> int:
    return counted if value is None else value


def node_level(replies: Sequence[Reply]) -> RollCallFailed | None:
    """Refuse ranks without local ranks that are alone on nodes with several accelerators each."""
    alone = Counter(reply.node for reply in replies)
    for reply in replies:
        if reply.local_rank is None and reply.visible > 1 and alone[reply.node] == 1 and len(replies) > 1:
            return NodeLevelRanks(
                f"{reply} is alone on its node and sees {reply.visible} accelerators, and nothing says its local rank: "
                "these ranks seem to count nodes. Start torchrun once on each node: torchrun --nnodes=$WORLD_SIZE "
                "--node-rank=$RANK --nproc-per-node=gpu --master-addr=$MASTER_ADDR --master-port=$MASTER_PORT "
                "train.py; where one process per node is meant, export LOCAL_RANK=0"
            )
    return None
