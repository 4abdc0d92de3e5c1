"""Who is here: every rank answers once, rank 0 gives one verdict, and all leave with the same.

The protocol is two generators, `member` and `leader`, that yield requests to a store and take the
answers; whoever drives them does the input and output, so a test can run a whole world in memory.
"""

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs

from . import errors
from .errors import (
    Disagreement,
    DuplicateRank,
    LostRanks,
    MissingRanks,
    NodeLevelRanks,
    RankFailed,
    RollCallFailed,
    SharedDevice,
    Surplus,
)

BEAT = 0.5
"""Seconds between two looks of rank 0 at the replies while it waits."""

ACKNOWLEDGE = 4.0
"""Seconds in which each rank that answered must show that it is still there."""

SILENCE = 5.0
"""Seconds without a sign of life of rank 0 or its store after which it counts as lost."""

GRACE = 1.0
"""Seconds that a first disagreement waits for the other ranks, so that the odd one can be told."""

LATEST = {"verdict": 0.5, "go": 0.9}
"""Seconds after its own deadline that a rank still waits for rank 0's word."""

LINGER = 2.0
"""Seconds that rank 0 keeps serving the store after a bad verdict, so that all can read it."""


@attrs.frozen
class Append:
    """Add text to the end of a key."""

    key: str
    text: str


@attrs.frozen
class Add:
    """Add to a counter; the answer is its new value."""

    key: str
    amount: int


@attrs.frozen
class Post:
    """Set keys."""

    entries: Mapping[str, str]


@attrs.frozen
class Read:
    """Wait for a key and read it; the answer is None when it does not come within the seconds."""

    key: str
    within: float


@attrs.frozen
class Await:
    """Wait for keys; the answer is whether all came within the seconds."""

    keys: tuple[str, ...]
    within: float


@attrs.frozen
class Alive:
    """Ask whether the store's process still answers, within the seconds."""

    within: float


@attrs.frozen
class Pause:
    """Let some seconds pass."""

    seconds: float


Request: TypeAlias = Append | Add | Post | Read | Await | Alive | Pause
Result = TypeVar("Result")
Protocol: TypeAlias = Generator[Request, Any, Result]


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


AGREED = {"world_size": "world size", "backend": "backend", "torch": "torch version", "resolver": "resolver"}
"""What all ranks must say alike, and its name for people."""


def problem(replies: Sequence[Reply]) -> RollCallFailed | None:
    """Find what forbids the group, whoever is still missing: an error, a duplicate, a disagreement, a shared device."""
    for reply in replies:
        if reply.error is not None:
            kind = MissingRanks if reply.gave_up else RankFailed
            return kind(f"{reply} {'gave up' if reply.gave_up else 'failed'}: {reply.error}")
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
            said = "; ".join(f"{reply} says {getattr(reply, field)!r}" for reply in odd[:3])
            more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
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


def missing(replies: Sequence[Reply], world_size: int, seconds: float, lost: Sequence[Reply] = ()) -> RollCallFailed:
    """Name the ranks that did not come, their neighbours' hosts, and all hosts that were heard from."""
    here = {reply.rank: reply.host for reply in replies if reply.rank >= 0}
    absent = [rank for rank in range(world_size) if rank not in here]
    runs = ranges(absent)
    beside = sorted({rank for gone in absent for rank in (gone - 1, gone + 1) if rank in here})
    neighbours = ", ".join(f"rank {rank} on {here[rank]}" for rank in beside[:4])
    hosts = Counter(here.values())
    heard = ", ".join(f"{host} ({count})" for host, count in sorted(hosts.items())) or "no host"
    gone = f"; answered and then lost: {', '.join(map(str, lost))}" if lost else ""
    return MissingRanks(
        f"rank(s) {runs} of {world_size} did not come within {seconds:.1f} s; neighbours: {neighbours or 'none'}; "
        f"heard from: {heard}{gone}: look at what the missing rank(s) said, and whether they were started"
    )


@attrs.frozen
class Place:
    """The numbers of one rank that its launcher may have left unsaid."""

    local_rank: int
    local_world_size: int
    node_rank: int
    num_nodes: int


def places(replies: Sequence[Reply]) -> dict[int, Place]:
    """Give every rank its numbers: as its launcher says, or else by host and order of rank."""
    nodes: dict[tuple[str, str], list[Reply]] = {}
    for reply in sorted(replies, key=lambda reply: reply.rank):
        nodes.setdefault(reply.node, []).append(reply)
    sizes = {node: max(len(here), *((reply.local_rank or 0) + 1 for reply in here)) for node, here in nodes.items()}
    return {
        reply.rank: Place(
            local_rank=_said(reply.local_rank, position),
            local_world_size=_said(reply.local_world_size, sizes[reply.node]),
            node_rank=_said(reply.node_rank, index),
            num_nodes=_said(reply.num_nodes, len(nodes)),
        )
        for index, node in enumerate(nodes.values())
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


OK = "ok"


def _verdict(text: str) -> RollCallFailed | None:
    if text == OK:
        return None
    said = json.loads(text)
    kind: type[RollCallFailed] = getattr(errors, said["kind"])
    return kind(said["sentence"])


def written(failure: RollCallFailed | None) -> str:
    """Write a verdict as it is posted."""
    return OK if failure is None else json.dumps({"kind": type(failure).__name__, "sentence": failure.sentence})


def answer(reply: Reply) -> Protocol[int]:
    """Put one's reply into the log, and wake rank 0 when it is the last or brings an error."""
    yield Append("replies", reply.line())
    place: int = yield Add("count", 1)
    if place == reply.world_size or reply.error is not None:
        yield Post({"wake": "1"})
    return place


@attrs.frozen
class Watch:
    """The clock of one rank's roll call: when it began, and how many seconds it may take."""

    clock: Callable[[], float]
    began: float
    timeout: float

    @property
    def left(self) -> float:
        """Seconds until the deadline, negative after it."""
        return self.began + self.timeout - self.clock()


def member(reply: Reply, leader_process: str, watch: Watch) -> Protocol[Place | None]:
    """Answer, acknowledge, and return with rank 0's verdict; the place is what the launcher left unsaid.

    Raises a `RollCallFailed`, the same on all ranks, or `Surplus` where the group is complete.
    """
    place = yield from answer(reply)
    call = yield from _hear("verdict", reply, leader_process, watch)
    failure = _verdict(call)
    if failure is not None:
        yield Add("left", 1)
        raise failure
    if place > reply.world_size:
        yield from _refuse_surplus(reply)
    yield Post({f"ack/{reply.rank}": "1"})
    failure = _verdict((yield from _hear("go", reply, leader_process, watch)))
    if failure is not None:
        yield Add("left", 1)
        raise failure
    if None in {reply.local_rank, reply.local_world_size, reply.node_rank, reply.num_nodes}:
        said: str | None = yield Read(f"place/{reply.rank}", SILENCE)
        if said is None:
            raise LostRanks(f"rank 0 ({leader_process}) let all ranks in and then gave no sign of life")
        return Place(*json.loads(said))
    return None


def _refuse_surplus(reply: Reply) -> Protocol[None]:
    log: str | None = yield Read("replies", 0)
    holder = next((other for other in replies_in(log) if other.rank == reply.rank and other.pid != reply.pid), None)
    raise Surplus(reply.rank, reply.process, holder.process if holder else "another process")


def _hear(key: str, reply: Reply, leader_process: str, watch: Watch) -> Protocol[str]:
    """Wait for rank 0 to post, as long as it lives and the time lasts; its own deadline may be a moment later."""
    beat, quiet_since = -1, watch.clock()
    while True:
        left = watch.left + LATEST[key]
        text: str | None = yield Read(key, min(2.0, max(0.0, left)))
        if text is not None:
            return text
        if left <= 0:
            text = yield from _last_word(key, reply, watch)
            return text
        alive: bool = yield Alive(max(0.05, min(2.0, watch.left + LATEST[key])))
        now: int = (yield Add("beat", 0)) if alive else beat
        if now != beat:
            beat, quiet_since = now, watch.clock()
        elif watch.clock() - quiet_since >= SILENCE:
            raise LostRanks(
                f"rank 0 ({leader_process}) gives no sign of life for {SILENCE:.0f} s: it died or is stopped; "
                "look at what it said"
            )


def _last_word(key: str, reply: Reply, watch: Watch) -> Protocol[str]:
    """Give up: tell rank 0, whose deadline may be later, and judge alone."""
    log: str | None = yield Read("replies", 0)
    heard = replies_in(log)
    failure = missing(heard, reply.world_size, watch.timeout)
    if len({other.rank for other in heard}) >= reply.world_size:
        failure = MissingRanks(f"rank 0 gave no verdict within {watch.timeout:.1f} s, though all ranks answered")
    yield from answer(attrs.evolve(reply, error=failure.sentence, gave_up=True))
    text: str | None = yield Read(key, 0)
    return written(failure) if text in {None, OK} or text is None else text


def leader(reply: Reply, watch: Watch, show: Callable[[Sequence[Reply]], None]) -> Protocol[Place | None]:
    """Answer, wait for all, judge, see that all are still there, and let them go.

    `show` is told who is here, about twice a second. Raises a `RollCallFailed`.
    """
    yield from answer(reply)
    failure, replies = yield from _gather(reply, watch, show)
    lost: list[Reply] = []
    if failure is None or isinstance(failure, MissingRanks):
        late = failure is not None
        yield Post({"verdict": OK})
        lost = yield from _acknowledged(reply, replies, watch, 0.4 if late else ACKNOWLEDGE)
        if late:
            failure = missing(replies, reply.world_size, watch.timeout, lost)
        elif lost:
            failure = LostRanks(
                f"{', '.join(map(str, lost))} answered and then died or froze: look at what was said there"
            )
    if failure is None:
        placed = places(replies)
        yield Post(
            {
                f"place/{other.rank}": json.dumps(attrs.astuple(placed[other.rank]))
                for other in replies
                if _unsaid(other)
            }
        )
        yield Post({"go": OK})
        return placed[reply.rank]
    yield Post(
        {
            "go": written(failure),
            **({} if isinstance(failure, (MissingRanks, LostRanks)) else {"verdict": written(failure)}),
        }
    )
    yield from _linger(reply, replies, watch, failure, lost)
    raise failure


def _unsaid(reply: Reply) -> bool:
    return None in {reply.local_rank, reply.local_world_size, reply.node_rank, reply.num_nodes}


def _gather(
    reply: Reply, watch: Watch, show: Callable[[Sequence[Reply]], None]
) -> Protocol[tuple[RollCallFailed | None, list[Reply]]]:
    woken: str | None = None
    odd_since: float | None = None
    while True:
        if woken is None:
            woken = yield Read("wake", max(0.0, min(BEAT, watch.left)))
        else:
            yield Pause(BEAT)
        yield Add("beat", 1)
        log: str | None = yield Read("replies", 0)
        replies = replies_in(log)
        show(replies)
        failure = problem(replies)
        complete = len(replies) >= reply.world_size
        if isinstance(failure, Disagreement) and not complete:
            odd_since = watch.clock() if odd_since is None else odd_since
            failure = failure if watch.clock() - odd_since >= GRACE else None
        if failure is None and complete:
            failure = node_level(replies)
        if failure is not None or complete:
            return failure, replies
        if watch.left <= 0:
            return missing(replies, reply.world_size, watch.timeout), replies


def _acknowledged(reply: Reply, replies: Sequence[Reply], watch: Watch, within: float) -> Protocol[list[Reply]]:
    """Wait until each has shown that it is still there; return those that have not."""
    others = [other for other in replies if other.rank != reply.rank]
    keys = tuple(f"ack/{other.rank}" for other in others)
    until = watch.clock() + within
    complete: bool = yield Await(keys, min(BEAT, within))
    while not complete and watch.clock() < until:
        yield Add("beat", 1)
        complete = yield Await(keys, BEAT)
    lost: list[Reply] = []
    if not complete:
        for other, key in zip(others, keys, strict=True):
            here: bool = yield Await((key,), 0)
            if not here:
                lost.append(other)
    return lost


def _linger(
    reply: Reply, replies: Sequence[Reply], watch: Watch, failure: RollCallFailed, lost: Sequence[Reply]
) -> Protocol[None]:
    """Serve the verdict until all who can read it have, or for as long as it may take them."""
    until = watch.clock() + min(LINGER, max(0.0, watch.left) + 0.8)
    expected = len(replies) if isinstance(failure, MissingRanks) else max(reply.world_size, len(replies))
    while watch.clock() < until:
        left: int = yield Add("left", 0)
        if left >= expected - len(lost) - 1:
            return
        yield Pause(0.05)


TICK = 1.0
"""Seconds between two looks around while the process group is made."""

PULSE = 3
"""Ticks after which rank 0 looks whether ranks that are not connected still tick."""


def forming(rank: int, watch: Watch, margin: float, done: Callable[[float], bool]) -> Protocol[None]:
    """Look around while this rank's own connect, which `done` waits for, is under way.

    Raises `RankFailed` when another rank failed at it, and `LostRanks` when one is gone or the time is over.
    """
    ticks = 0
    pulses: dict[int, int] = {}
    while not done(min(TICK, max(0.0, watch.left + margin))):
        broken: str | None = yield Read("broken", 0)
        if broken is not None:
            raise RankFailed(broken)
        if watch.left + margin <= 0:
            late = yield from _not_in(rank)
            names = ", ".join(map(str, late)) or "this rank"
            raise LostRanks(f"{names} did not connect to the process group within {watch.timeout:.1f} s")
        yield Add(f"pulse/{rank}", 1)
        ticks += 1
        if rank == 0 and ticks % PULSE == 0:
            still = yield from _without_pulse(pulses)
            if still:
                sentence = f"{', '.join(map(str, still))} died or froze while the process group was made"
                yield Post({"broken": sentence})
                raise LostRanks(sentence)


def _without_pulse(pulses: dict[int, int]) -> Protocol[list[Reply]]:
    """Return the ranks that are not connected and have not ticked since the last look; note their ticks."""
    late = yield from _not_in(0)
    still: list[Reply] = []
    for reply in late:
        pulse: int = yield Add(f"pulse/{reply.rank}", 0)
        if pulses.get(reply.rank) == pulse:
            still.append(reply)
        pulses[reply.rank] = pulse
    return still


def _not_in(rank: int, marks: tuple[str, ...] = ("in",)) -> Protocol[list[Reply]]:
    """Return the other ranks that bear none of the marks."""
    log: str | None = yield Read("replies", 0)
    late: list[Reply] = []
    for reply in replies_in(log):
        found = False
        for mark in marks:
            found = found or (yield Await((f"{mark}/{reply.rank}",), 0))
        if not found and reply.rank != rank:
            late.append(reply)
    return late


def failing(rank: int, sentence: str) -> Protocol[list[Reply]]:
    """Say that this rank's connect failed, and return those of whom nothing is heard for a moment."""
    yield Post({f"out/{rank}": sentence})
    late: list[Reply] = []
    for _ in range(15):
        late = yield from _not_in(rank, ("in", "out"))
        if not late:
            break
        yield Pause(0.1)
    yield Post({"broken": sentence})
    return late
