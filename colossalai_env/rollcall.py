"""Who is here: every rank answers once, rank 0 gives one verdict, and all leave with the same.

The protocol is two generators, `member` and `leader`, that yield requests to a store and take the
answers; whoever drives them does the input and output, so a test can run a whole world in memory.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs

from . import errors
from .errors import Disagreement, LostRanks, MissingRanks, RollCallFailed, Surplus
from .reply import Place, Reply, missing, named, node_level, places, problem, replies_in, too_few_devices

BEAT = 0.5
"""Seconds between two looks of rank 0 at the replies while it waits."""

ACKNOWLEDGE = 4.0
"""Seconds in which each rank that answered must show that it is still there."""

LOADING = 0.5
"""Seconds between two looks of a rank that imports torch; after the first, rank 0 is told.

Rank 0 serves a bad verdict for longer.
"""

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
class Swap:
    """Set a key if it is as expected, the empty text standing for none; the answer is what it is then."""

    key: str
    expected: str
    desired: str


@attrs.frozen
class Read:
    """Wait for a key and read it; the answer is None when it does not come within the seconds."""

    key: str
    within: float
    shared: bool = False
    """Whether the key is all meetings', not this one's."""


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


Request: TypeAlias = Append | Add | Post | Swap | Read | Await | Alive | Pause
Result = TypeVar("Result")
Protocol: TypeAlias = Generator[Request, Any, Result]


OK = "ok"


def _verdict(text: str) -> RollCallFailed | None:
    if text.startswith(OK):
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


def loading(rank: int, host: str, pid: int, watch: Watch, done: Callable[[float], bool]) -> Protocol[None]:
    """Wait for this rank's import of torch, which `done` waits for; rank 0 is told where it takes long.

    Returns when it is done or the time is over. Raises a `RollCallFailed` where rank 0 gives a bad verdict meanwhile.
    """
    told = False
    while not done(min(LOADING, max(0.0, watch.left))) and watch.left > 0:
        if not told:
            yield Append("loading", json.dumps([rank, host, pid]) + "\n")
            told = True
        for key in ("verdict", "go"):  # go is what bad news comes by when ranks were missing
            text: str | None = yield Read(key, 0)
            failure = None if text is None else _verdict(text)
            if failure is not None:
                yield Post({_left(f"pid {pid} on {host}"): "1"})
                raise failure


def reading(key: str, watch: Watch) -> Protocol[str | None]:
    """Read what rank 0 posts after its verdict."""
    text: str | None = yield Read(key, min(SILENCE, max(0.0, watch.left)))
    return text


def member(reply: Reply, leader_process: str, watch: Watch) -> Protocol[Place | None]:
    """Answer, acknowledge, and return with rank 0's verdict; the place is what the launcher left unsaid.

    Raises a `RollCallFailed`, the same on all ranks, or `Surplus` where the group is complete.
    """
    place = yield from answer(reply)
    call = yield from _hear("verdict", reply, leader_process, watch)
    failure = _verdict(call)
    if failure is not None:
        yield Post({_left(reply.process): "1"})
        raise failure
    if place > int(call.removeprefix(OK)):  # of rank 0's world, not of one's own
        yield from _refuse_surplus(reply)
    yield Post({f"ack/{reply.rank}": "1"})
    failure = _verdict((yield from _hear("go", reply, leader_process, watch)))
    if failure is not None:
        yield Post({_left(reply.process): "1"})
        raise failure
    if reply.unsaid:
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
    return written(failure) if text is None or text.startswith(OK) else text


def leader(
    reply: Reply, farewells: str, watch: Watch, show: Callable[[Sequence[Reply]], None], hint: str = ""
) -> Protocol[Place | None]:
    """Answer, wait for all, judge, see that all are still there, and let them go.

    `farewells` is the key of what is said by ranks that go before they know whose store it is. `show` is told who is
    here, about twice a second; `hint` is added to the error where no other host was heard from. Raises a
    `RollCallFailed`.
    """
    yield from answer(reply)
    failure, replies = yield from _gather(reply, farewells, watch, show)
    lost: list[Reply] = []
    if failure is None or isinstance(failure, MissingRanks):
        late = failure is not None
        yield Post({"verdict": f"{OK} {reply.world_size}"})
        lost = yield from _acknowledged(reply, _waiting(replies), watch, 0.4 if late else ACKNOWLEDGE)
        if late:
            log: str | None = yield Read("replies", 0)
            waiting = _waiting(replies_in(log))
            lost = [other for other in lost if other in waiting]  # the others gave up meanwhile
            slow: str | None = yield Read("loading", 0)
            failure = missing(replies, reply.world_size, watch.timeout, lost, _importing(slow), hint)
        elif lost:
            failure = LostRanks(f"{named(lost)} answered and then died or froze: look at what was said there")
    if failure is None:
        placed = places(replies)
        yield Post(
            {f"place/{other.rank}": json.dumps(attrs.astuple(placed[other.rank])) for other in replies if other.unsaid}
        )
        yield Post({"go": OK})
        return placed[reply.rank]
    yield Post(
        {
            "go": written(failure),
            **({} if isinstance(failure, (MissingRanks, LostRanks)) else {"verdict": written(failure)}),
        }
    )
    yield from _linger(reply, watch, failure, lost)
    raise failure


def _waiting(replies: Sequence[Reply]) -> list[Reply]:
    """Return one reply of each rank that still waits for the verdict: those that gave up have left."""
    left = {reply.rank for reply in replies if reply.gave_up}
    return list({reply.rank: reply for reply in replies if reply.rank not in left}.values())


def _gather(
    reply: Reply, farewells: str, watch: Watch, show: Callable[[Sequence[Reply]], None]
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
        gone: str | None = yield Read(farewells, 0, shared=True)
        replies = [*replies_in(log), *replies_in(gone)]
        show(replies)
        failure = problem(replies)
        complete = len(replies) >= max(other.world_size for other in replies)  # rank 0's own may be the odd one
        if isinstance(failure, Disagreement) and not complete:
            odd_since = watch.clock() if odd_since is None else odd_since
            failure = failure if watch.clock() - odd_since >= GRACE else None
        if failure is None and complete:
            placed = places(replies).items()
            failure = node_level(replies) or too_few_devices(replies, {rank: at.local_rank for rank, at in placed})
        if failure is not None or complete:
            return failure, replies
        if watch.left <= 0:
            return missing(replies, reply.world_size, watch.timeout), replies


def _importing(log: str | None) -> dict[int, str]:
    """Read which ranks have said that they import torch, and where."""
    said = (json.loads(line) for line in (log or "").splitlines())
    return {int(rank): f"pid {pid} on {host}" for rank, host, pid in said}


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


def _linger(reply: Reply, watch: Watch, failure: RollCallFailed, lost: Sequence[Reply]) -> Protocol[None]:
    """Serve the verdict until all who can read it have, or for as long as it may take them.

    A rank that gave up still asks for rank 0's word, and then leaves as the others do.
    """
    until = watch.clock() + min(LINGER, max(0.0, watch.left) + 0.8)
    gone = {_left(other.process) for other in (reply, *lost)}
    while watch.clock() < until:
        log: str | None = yield Read("replies", 0)
        heard = replies_in(log)
        if isinstance(failure, MissingRanks) or len(heard) >= reply.world_size:
            slow: str | None = yield Read("loading", 0)
            here = {other.process for other in heard} | {*_importing(slow).values()}
            told: bool = yield Await(tuple({_left(process) for process in here} - gone), 0)
            if told:
                return
        yield Pause(0.05)


def _left(process: str) -> str:
    """Return the key that a process sets when it has read a bad verdict."""
    return f"left/{process}"
