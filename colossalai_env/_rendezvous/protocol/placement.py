"""Which node, local rank and device each rank has: as its launcher says, or else as all reports together show; pure."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import attrs

from colossalai_env.errors import NodeLevelRanks, NoSuchDevice, RankFailed, SharedDevice

from .report import RankReport


@attrs.frozen
class Placement:
    """The numbers of one rank that its launcher may not say, and its device."""

    local_rank: int
    local_world_size: int
    node_rank: int
    num_nodes: int
    device: int | None = None
    """The one of its visible devices that it takes; None where it has none."""

    def line(self) -> str:
        """Write it as JSON."""
        return json.dumps(attrs.astuple(self))

    def numbers(self) -> dict[str, int]:
        """Return what is no device."""
        return {name: number for name, number in attrs.asdict(self).items() if name != "device"}


def placements(reports: Sequence[RankReport]) -> dict[int, Placement]:
    """Give every rank its numbers: as its launcher says, or else by node and order of rank.

    A launcher's nodes may be on one host, such as two containers, or nodes that are played on a laptop: where it says
    which node a rank is on, that counts, and not the host; and two ranks of one local rank are on two nodes. Where it
    says only how many nodes there are, and there cannot be that many, the hosts are counted.
    """
    nodes: dict[object, list[RankReport]] = {}
    seats: Counter[object] = Counter()
    for one in sorted(reports, key=lambda one: one.rank):
        seat = (one.node, one.local_world_size, one.local_rank)
        turn = 0 if one.local_rank is None else seats[seat]
        seats[seat] += 1
        where = (one.node, one.local_world_size, turn) if one.node_rank is None else one.node_rank
        nodes.setdefault(where, []).append(one)
    sizes = [max(len(here), *((one.local_rank or 0) + 1 for one in here)) for here in nodes.values()]
    most = len(reports) - max(sizes, default=0) + 1
    local_ranks: dict[int, int | None] = {
        one.rank: _either(one.local_rank, position) for here in nodes.values() for position, one in enumerate(here)
    }
    indices = taken(reports, local_ranks)
    return {
        one.rank: Placement(
            local_rank=_either(one.local_rank, position),
            local_world_size=_either(one.local_world_size, size),
            node_rank=_either(one.node_rank, index),
            num_nodes=one.num_nodes if one.num_nodes and len(nodes) <= one.num_nodes <= most else len(nodes),
            device=indices[one.rank],
        )
        for index, (here, size) in enumerate(zip(nodes.values(), sizes, strict=True))
        for position, one in enumerate(here)
    }


def too_high(reports: Sequence[RankReport]) -> RankFailed | None:
    """Find a local rank that is too high for all ranks to be there: one left over, or set once for all processes."""
    if not any(one.local_rank and one.local_world_size is None for one in reports):
        return None
    size, placed = reports[0].world_size, placements(reports)
    for one in reports if len(placed) == size else ():
        mine = placed[one.rank]
        if one.local_rank and mine.local_world_size + mine.num_nodes - 1 > size:
            told = (
                f"local rank {one.local_rank} cannot be: its node would have {mine.local_world_size} ranks, beside "
                f"those of {mine.num_nodes - 1} other node(s), in a world of {size}: set LOCAL_RANK in each process, "
                "from 0 on each node, or unset it"
            )
            return RankFailed(told, str(one))
    return None


def _either(value: int | None, counted: int) -> int:
    return counted if value is None else value


def reported(reports: Sequence[RankReport]) -> dict[int, int | None]:
    """Return the local ranks that launchers say, by rank."""
    return {one.rank: one.local_rank for one in reports}


def index_among(visible: int, local_rank: int | None, *, shared: bool) -> int | None:
    """Return which of its visible devices a rank takes: the only one, the first of its own, or the local rank's.

    `shared` says whether another task of the node sees one of these devices too. None where there is no device, or
    the local rank counts and is not known. There may be fewer devices than the local rank needs: never a modulo.
    """
    if visible == 0:
        return None
    return 0 if visible == 1 or not shared else local_rank


def taken(reports: Sequence[RankReport], local_ranks: Mapping[int, int | None]) -> dict[int, int | None]:
    """Return by rank the index of the device that each takes, as far as it is known."""
    seen = Counter(device for one in reports for device in one.devices)
    return {
        one.rank: index_among(
            one.visible,
            local_ranks[one.rank],
            shared=not one.devices or any(seen[device] > 1 for device in one.devices),
        )
        if one.index is None
        else one.index
        for one in reports
    }


def too_few_devices(reports: Sequence[RankReport], local_ranks: Mapping[int, int | None]) -> RankFailed | None:
    """Find a rank whose local rank's device is not there."""
    indices = taken(reports, local_ranks)
    for one in reports:
        index = indices[one.rank]
        if index is not None and index >= one.visible:
            return RankFailed(str(beyond(one.kind, index, one.visible, one.rank)), str(one))
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


def shared_device(reports: Sequence[RankReport]) -> SharedDevice | None:
    """Find two ranks with one device, which their backend cannot share."""
    for first, other, device in _pairs(reports):
        if not (first.shares and other.shares):
            return SharedDevice(str(first), str(other), device, other.backend)
    return None


def sharing(reports: Sequence[RankReport]) -> str | None:
    """Return which ranks share devices, where their backend can; None where each has its own."""
    found = [f"{first} and {other} share {device}" for first, other, device in _pairs(reports)]
    more = f" ({len(found) - 1} more pairs do)" if len(found) > 1 else ""
    return f"{found[0]}{more}: each has a part of its memory and time" if found else None


def _pairs(reports: Sequence[RankReport]) -> Iterator[tuple[RankReport, RankReport, str]]:
    """Return pairs of ranks with one device, told by its UUID, or where it has none by node and local rank."""
    holders: dict[object, RankReport] = {}
    indices = taken(reports, reported(reports))
    for one in reports:
        index, device = indices[one.rank], f"local rank {one.local_rank}"
        slot: object = None
        if index is not None and index < len(one.devices):
            slot, device = one.devices[index], f"device {one.devices[index]}"
        elif index is not None and not one.devices and one.local_rank is not None:
            slot = (*one.node, one.node_rank, one.local_rank)
        if slot is not None:
            first = holders.setdefault(slot, one)
            if first is not one:
                yield first, one, device


def node_level(reports: Sequence[RankReport]) -> NodeLevelRanks | None:
    """Refuse ranks without local ranks that are alone on nodes with several accelerators each."""
    alone = Counter(one.node for one in reports)
    for one in reports:
        if one.local_rank is None and one.visible > 1 and alone[one.node] == 1 and len(reports) > 1:
            return NodeLevelRanks(str(one), one.visible)
    return None
