"""What the ranks tell each other while the process group is made: who is connected, who failed, who is gone."""

from collections.abc import Callable

from .errors import LostRanks, RankFailed
from .reply import Reply, named, replies_in
from .rollcall import Add, Await, Pause, Post, Protocol, Read, Watch

TICK = 1.0
"""Seconds between two looks around while the process group is made."""

PULSE = 3
"""Ticks after which rank 0 looks whether ranks that are not connected still tick."""

MARGIN = 1.0
"""Seconds after its deadline in which a rank's connect may still end."""

GONE = 1.7
"""Seconds after its deadline at which a rank whose group failed leaves, whoever has not yet read why."""


def forming(rank: int, watch: Watch, done: Callable[[float], bool]) -> Protocol[None]:
    """Look around while this rank's own connect, which `done` waits for, is under way.

    Raises `RankFailed` when another rank failed at it, and `LostRanks` when one is gone or the time is over.
    """
    ticks = 0
    pulses: dict[int, int] = {}
    while not done(min(TICK, max(0.0, watch.left + MARGIN))):
        broken: str | None = yield Read("broken", 0)
        if broken is not None:
            raise RankFailed(broken)
        if watch.left + MARGIN <= 0:
            late = yield from _not_in(rank)
            names = named(late) or "this rank"
            sentence = f"{names} did not connect to the process group within {watch.timeout:.1f} s"
            yield Post({"broken": sentence})
            raise LostRanks(sentence)
        yield Add(f"pulse/{rank}", 1)
        ticks += 1
        if rank == 0 and ticks % PULSE == 0:
            still = yield from _without_pulse(pulses)
            if still:
                sentence = f"{named(still)} died or froze while the process group was made"
                yield Post({"broken": sentence})
                yield Add("parted", len(still))  # they will not say goodbye
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


def failing(rank: int, watch: Watch, sentence: str) -> Protocol[list[Reply]]:
    """Say that this rank's connect failed, and return those of whom nothing is heard for a moment."""
    yield Post({f"out/{rank}": sentence})
    late = yield from _not_in(rank, ("in", "out"))
    until = _until(watch)
    while late and watch.clock() < until:
        yield Pause(0.1)
        late = yield from _not_in(rank, ("in", "out"))
    yield Post({"broken": sentence})
    if rank == 0:
        yield Add("parted", len(late))
    return late


def parting(others: int, watch: Watch) -> Protocol[None]:
    """Say goodbye after a failure, or, where `others` may still read the store, wait for theirs for a moment."""
    if not others:
        yield Add("parted", 1)
        return
    until = _until(watch)
    while (yield Add("parted", 0)) < others and watch.clock() < until:
        yield Pause(0.05)


def _until(watch: Watch) -> float:
    """Return when a wait for the others' words after a failure ends."""
    return watch.clock() + min(1.5, max(0.0, watch.left + GONE))
