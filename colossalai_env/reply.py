"""What each process says of itself in the roll call, and what follows from all replies; pure."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from .errors import (
    Disagreement,
    DuplicateRank,
    MissingRanks,
    NodeLevelRanks,
    NoSuchDevice,
    RankFailed,
    RollCallFailed,
    SharedDevice,
)


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


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
    kind: str = "cpu"
    """What it computes on, by torch's name."""
    visible: int = 0
    """How many devices of that kind it sees."""
    devices: tuple[str, ...] = attrs.field(default=(), converter=_listed)
    """What tells each of these from all others of any node; empty where nothing does."""
    index: int | None = None
    """The one of them that it takes, where that is settled before the roll call."""
    shares: bool = False
    """Whether its backend can share a device with another rank."""
    choice: str = ""
    """The variables that choose among the devices of its machine, as they are set."""
    address: str | None = None
    """By which it reached the store; None where that was loopback."""
    error: str | None = None
    gave_up: bool | None = None

    def line(self) -> str:
        """Return one line of JSON; what is as it is by default is left out."""
        said = {
            field.name: getattr(self, field.name)
            for field in attrs.fields(Reply)
            if getattr(self, field.name) != field.default
        }
        return json.dumps(said, separators=(",", ":")) + "\n"

    def __str__(self) -> str:
        """Name the process: ``rank 3 (pid 4711 on gpu-a02)``."""
        return f"rank {self.rank} ({self.process})" if self.rank >= 0 else f"a process ({self.process})"

    @property
    def process(self) -> str:
        """Name pid and host."""
        return f"pid {self.pid} on {self.host}"

    def device(self, index: int | None) -> str:
        """Name the device of this number among those that it sees."""
        if index is None:
            return "cpu"
        return self.devices[index] if self.devices else f"{self.kind}:{index}"

    @property
    def sight(self) -> str:
        """Say what devices it sees: ``sees 2 cuda device(s) (CUDA_VISIBLE_DEVICES is '0,1')``."""
        found = f"{self.visible} {self.kind} device(s)" if self.visible else "no accelerator"
        return f"sees {found}" + (f" ({self.choice})" if self.choice else "")

    @property
    def unsaid(self) -> bool:
        """Whether rank 0 has to find out a number of this rank's, or its device."""
        numbers = (self.local_rank, self.local_world_size, self.node_rank, self.num_nodes)
        return None in numbers or (self.index is None and self.visible > 0)

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
    return (
        _duplicate(replies)
        or disagreement(replies)
        or shared_device(replies)
        or too_few_devices(replies, said(replies))
    )


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
            rest = [reply for reply in replies if getattr(reply, field) == usual]
            others = ranges(reply.rank for reply in rest)
            told = "; ".join(f"{reply} says {getattr(reply, field)!r}" for reply in odd[:SOME])
            more = f" and {len(odd) - SOME} more" if len(odd) > SOME else ""
            end = f"start all ranks with one {name}"
            if field == "backend" and odd[0].kind != rest[0].kind:
                told = "; ".join(f"{reply} {reply.sight} and takes {reply.backend}" for reply in odd[:SOME])
                return Disagreement(
                    f"the ranks see different devices, and so they disagree on the backend: {told}{more}; rank(s) "
                    f"{others} take {usual}, since {rest[0]} {rest[0].sight}: show every rank its device, or use none "
                    "on any with device='cpu'"
                )
            return Disagreement(
                f"the ranks disagree on the {name}: {told}{more}; rank(s) {others} say {usual!r}: {end}"
            )
    return None


def said(replies: Sequence[Reply]) -> dict[int, int | None]:
    """Return the local ranks that launchers say, by rank."""
    return {reply.rank: reply.local_rank for reply in replies}


def index_among(visible: int, local_rank: int | None, *, shared: bool) -> int | None:
    """Return which of its visible devices a rank takes: the only one, the first of its own, or the local rank's.

    `shared` says whether another task of the node sees one of these devices too. None where there is no device, or
    the local rank counts and is not known. There may be fewer devices than the local rank needs: never a modulo.
    """
    if visible == 0:
        return None
    return 0 if visible == 1 or not shared else local_rank


def taken(replies: Sequence[Reply], local_ranks: Mapping[int, int | None]) -> dict[int, int | None]:
    """Return by rank the index of the device that each takes, as far as it is known."""
    seen = Counter(device for reply in replies for device in reply.devices)
    return {
        reply.rank: index_among(
            reply.visible,
            local_ranks[reply.rank],
            shared=not reply.devices or any(seen[device] > 1 for device in reply.devices),
        )
        if reply.index is None
        else reply.index
        for reply in replies
    }


def too_few_devices(replies: Sequence[Reply], local_ranks: Mapping[int, int | None]) -> RankFailed | None:
    """Find a rank whose local rank's device is not there."""
    indices = taken(replies, local_ranks)
    for reply in replies:
        index = indices[reply.rank]
        if index is not None and index >= reply.visible:
            return RankFailed(f"{reply} failed: {beyond(reply.kind, index, reply.visible, reply.rank)}")
    return None


def beyond(kind: str, local_rank: int, visible: int, rank: int) -> NoSuchDevice:
    """Return the error of a rank whose local rank's device is not there."""
    return NoSuchDevice(
        kind,
        f"local rank {local_rank} needs device {local_rank}",
        visible,
        rank,
        "start one process per device, or show each process its own (CUDA_VISIBLE_DEVICES, --gpus-per-task=1)",
    )


def shared_device(replies: Sequence[Reply]) -> SharedDevice | None:
    """Find two ranks with one device, which their backend cannot share."""
    for first, other, device in _pairs(replies):
        if not (first.shares and other.shares):
            return SharedDevice(
                f"{first} and {other} both have {device}, which {other.backend} cannot share: start one process per "
                "device, or show each process its own (CUDA_VISIBLE_DEVICES, --gpus-per-task=1, its own LOCAL_RANK); "
                "to share it say backend='gloo', to use none device='cpu'"
            )
    return None


def sharing(replies: Sequence[Reply]) -> str | None:
    """Say which ranks share devices, where their backend can; None where each has its own."""
    found = [f"{first} and {other} share {device}" for first, other, device in _pairs(replies)]
    more = f" ({len(found) - 1} more pairs do)" if len(found) > 1 else ""
    return f"{found[0]}{more}: each has a part of its memory and time" if found else None


def _pairs(replies: Sequence[Reply]) -> Iterator[tuple[Reply, Reply, str]]:
    """Return pairs of ranks with one device, told by its UUID, or where it has none by node and local rank."""
    holders: dict[object, Reply] = {}
    indices = taken(replies, said(replies))
    for reply in replies:
        index, device = indices[reply.rank], f"local rank {reply.local_rank}"
        slot: object = None
        if index is not None and index < len(reply.devices):
            slot, device = reply.devices[index], f"device {reply.devices[index]}"
        elif index is not None and not reply.devices and reply.local_rank is not None:
            slot = (*reply.node, reply.node_rank, reply.local_rank)
        if slot is not None:
            first = holders.setdefault(slot, reply)
            if first is not reply:
                yield first, reply, device


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
    device: int | None = None
    """The one of its visible devices that it takes; None where it has none."""

    def numbers(self) -> dict[str, int]:
        """Return what is no device."""
        return {name: number for name, number in attrs.asdict(self).items() if name != "device"}


def places(replies: Sequence[Reply]) -> dict[int, Place]:
    """Give every rank its numbers: as its launcher says, or else by node and order of rank.

    A launcher's nodes may be on one host, such as two containers, or nodes that are played on a laptop: where it says
    which node a rank is on, that counts, and not the host; and two ranks of one local rank are on two nodes. Where it
    says only how many nodes there are, and there cannot be that many, the hosts are counted.
    """
    nodes: dict[object, list[Reply]] = {}
    seats: Counter[object] = Counter()
    for reply in sorted(replies, key=lambda reply: reply.rank):
        seat = (reply.node, reply.local_world_size, reply.local_rank)
        turn = 0 if reply.local_rank is None else seats[seat]
        seats[seat] += 1
        where = (reply.node, reply.local_world_size, turn) if reply.node_rank is None else reply.node_rank
        nodes.setdefault(where, []).append(reply)
    sizes = [max(len(here), *((reply.local_rank or 0) + 1 for reply in here)) for here in nodes.values()]
    most = len(replies) - max(sizes, default=0) + 1
    local_ranks: dict[int, int | None] = {
        reply.rank: _said(reply.local_rank, position) for here in nodes.values() for position, reply in enumerate(here)
    }
    indices = taken(replies, local_ranks)
    return {
        reply.rank: Place(
            local_rank=_said(reply.local_rank, position),
            local_world_size=_said(reply.local_world_size, size),
            node_rank=_said(reply.node_rank, index),
            num_nodes=reply.num_nodes if reply.num_nodes and len(nodes) <= reply.num_nodes <= most else len(nodes),
            device=indices[reply.rank],
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
