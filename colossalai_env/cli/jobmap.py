"""The map of a job: its nodes, their ranks and devices, what is odd about them, and how fast they talk; pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from colossalai_env._addresses import is_loopback
from colossalai_env._rendezvous.protocol.report import ranges_of
from colossalai_env.errors import listed

SKEW = 1.0
"""Seconds between two hosts' clocks from which they are worth a word."""


@attrs.frozen(kw_only=True)
class Member:
    """One rank, as it describes itself."""

    rank: int
    host: str
    node_rank: int
    local_rank: int
    device: str
    """torch's name for it, such as ``cuda:3``."""
    model: str
    """What the device calls itself, such as ``NVIDIA H100``."""
    accelerators: int
    """How many accelerators the process sees."""
    cores: tuple[int, ...]
    """The numbers of the cores that it may use; a launcher may bind each rank to its own."""
    threads: int
    """How many threads torch uses in it."""
    clock: float
    """Seconds since the epoch, read when all ranks had met."""
    addresses: tuple[str, ...] = ()
    """What its host's own name leads to on that host."""


@attrs.frozen
class Sample:
    """How long an all_reduce of some bytes takes, in seconds."""

    size: int
    seconds: float

    @property
    def bandwidth(self) -> float:
        """Bytes per second as the caller sees them."""
        return self.size / self.seconds

    def bus_bandwidth(self, world_size: int) -> float:
        """Bytes per second over the slowest link, if the ranks form a ring: each byte crosses it 2(n-1)/n times."""
        return self.bandwidth * 2 * (world_size - 1) / world_size


@attrs.frozen
class Node:
    """The ranks that run on one node."""

    number: int
    host: str
    members: tuple[Member, ...]
    marks: tuple[str, ...]
    """What is odd about it."""

    @property
    def ranks(self) -> str:
        """Its ranks, as people write them."""
        return ranges_of(member.rank for member in self.members)

    @property
    def devices(self) -> str:
        """Its devices, each kind with its numbers and its model."""
        kinds: dict[tuple[str, str], list[int]] = {}
        for member in self.members:
            kind, _, index = member.device.partition(":")
            kinds.setdefault((kind, member.model), []).extend([int(index)] if index else [])
        return ", ".join(
            f"{kind}{':' + ranges_of(found) if found else ''}{f' ({model})' if model else ''}"
            for (kind, model), found in kinds.items()
        )


@attrs.frozen(kw_only=True)
class JobMap:
    """A job that has met."""

    backend: str
    resolver: str
    endpoint: str
    versions: str
    members: tuple[Member, ...]
    samples: tuple[Sample, ...] = ()
    failures: tuple[str, ...] = ()
    """What is wrong, beyond what is odd."""

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return len(self.members)

    @property
    def title(self) -> str:
        """The job in one line."""
        nodes = len({member.node_rank for member in self.members})
        return (
            f"{_count(self.world_size)} on {nodes} node{'s' if nodes > 1 else ''}, {self.backend}, by {self.resolver}"
        )

    def nodes(self) -> Iterator[Node]:
        """Return the nodes in order, each with what is odd about it."""
        found: dict[int, list[Member]] = {}
        for member in sorted(self.members, key=lambda member: member.rank):
            found.setdefault(member.node_rank, []).append(member)
        everywhere = [*found.values()]
        for number, members in sorted(found.items()):
            yield Node(number, members[0].host, tuple(members), tuple(_marks(members, everywhere)))

    @property
    def model(self) -> str:
        """What all devices call themselves; empty where they differ or have no name."""
        models = {member.model for member in self.members}
        return models.pop() if len(models) == 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the map as plain values; sizes in bytes, times in seconds, bandwidths in bytes per second."""
        return {
            "world_size": self.world_size,
            "backend": self.backend,
            "resolver": self.resolver,
            "endpoint": self.endpoint,
            "versions": self.versions,
            "nodes": [
                {
                    "node_rank": node.number,
                    "host": node.host,
                    "marks": list(node.marks),
                    "ranks": [{**attrs.asdict(member), "cores": ranges_of(member.cores)} for member in node.members],
                }
                for node in self.nodes()
            ],
            "all_reduce": [
                {
                    "bytes": sample.size,
                    "seconds": sample.seconds,
                    "bandwidth": sample.bandwidth,
                    "bus_bandwidth": sample.bus_bandwidth(self.world_size),
                }
                for sample in self.samples
            ],
            "failures": list(self.failures),
        }


def _marks(members: Sequence[Member], everywhere: Sequence[Sequence[Member]]) -> Iterator[str]:
    """Describe what is odd about one node among all."""
    yield from _unlike(_count(len(members)), [_count(len(others)) for others in everywhere])
    yield from _unlike(_models(members), [_models(others) for others in everywhere])
    idle = [member.rank for member in members if member.device.startswith("cpu") and member.accelerators]
    if idle:
        yield f"rank(s) {ranges_of(idle)} on the CPU beside accelerators"
    threads, cores = sum(member.threads for member in members), len({core for one in members for core in one.cores})
    if len(members) > cores:
        yield f"{len(members)} ranks share {cores} core{'s' if cores > 1 else ''}"
    elif threads > cores and len(members) > 1:
        yield f"{threads} threads on {cores} cores: set OMP_NUM_THREADS={cores // len(members)}"
    loopback = [address for address in members[0].addresses if is_loopback(address)]
    if loopback and len(everywhere) > 1 and len(loopback) == len(members[0].addresses):
        yield f"its name leads to {listed(loopback)}, which no other host can reach: mend /etc/hosts"
    clocks = sorted(one.clock for others in everywhere for one in others)
    skew = members[0].clock - clocks[len(clocks) // 2]
    if abs(skew) > SKEW:
        yield f"its clock is {abs(skew):.1f} s {'ahead' if skew > 0 else 'behind'}"


def _unlike(here: str, everywhere: Sequence[str]) -> Iterator[str]:
    """Describe what a node has that is not what most nodes have, or the first where there is no most."""
    usual, times = Counter(everywhere).most_common(1)[0]
    if here != usual:
        yield f"{here} here, {usual} on {f'each of {times} others' if times > 1 else 'another'}"


def _count(ranks: int) -> str:
    return f"{ranks} rank{'s' if ranks > 1 else ''}"


def _models(members: Sequence[Member]) -> str:
    return listed(sorted({member.model for member in members if member.model})) or "the CPU"


def amount(size: float) -> str:
    """Write a number of bytes: ``8 B``, ``32 KiB``, ``64 MiB``."""
    unit = 0
    while size >= 1024 and unit < 3:
        size, unit = size / 1024, unit + 1
    return f"{size:.4g} {('B', 'KiB', 'MiB', 'GiB')[unit]}"


def duration(seconds: float) -> str:
    """Write a time: ``18 µs``, ``2.5 ms``, ``1.2 s``."""
    return _with_unit(seconds, (1, "s"), (1e-3, "ms"), (1e-6, "µs"))


def rate(per_second: float) -> str:
    """Write a bandwidth: ``1.25 GB/s``, ``310 MB/s``, ``4.2 kB/s``; decimal, as links are sold."""
    return _with_unit(per_second, (1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"))


def _with_unit(value: float, *units: tuple[float, str]) -> str:
    """Write three figures of a value, in the largest unit of which it is one or more, or else in the smallest."""
    size, unit = next((known for known in units if value >= 0.9995 * known[0]), units[-1])
    return f"{value / size:.3g} {unit}"
