"""While the process group is made: who is connected, who failed, who is gone; and how a launch is left."""

import json
from collections.abc import Sequence

from colossalai_env.errors import LostRanks, RankFailed

from . import keys
from .report import RankReport, named, read_reports
from .requests import (
    Add,
    Deadline,
    Post,
    Protocol,
    Together,
    add,
    call_ended,
    each_count,
    each_is_there,
    pause,
    post,
    read,
    swap,
    wait_for,
)
from .timing import CLOSE, CONNECT_LATEST, HEARD, LOOKERS, PART, PART_LATEST, PULSE, SEEN, SEEN_LATEST, TICK, WATCHES


def monitor_connect(rank: int, deadline: Deadline) -> Protocol[None]:
    """Look around while this rank's own connect, the call beside this protocol, is under way.

    Raises `RankFailed` when another rank failed at it, and `LostRanks` when one is gone or the time is over.
    """
    ticks = 0
    pulses: dict[int, int] = {}
    watches = rank == 0
    while not (yield from call_ended(min(TICK, max(0.0, deadline.remaining + CONNECT_LATEST)))):
        broken = yield from read(keys.BROKEN.name)
        if broken is not None:
            raise RankFailed(broken)
        if deadline.remaining + CONNECT_LATEST <= 0:
            names = yield from _silent(rank, deadline, (keys.CONNECTED,), 0.0)
            failure = LostRanks(
                names or (f"rank {rank}",), f"did not connect to the process group within {deadline.timeout:.1f} s"
            )
            yield from post({keys.BROKEN.name: str(failure)})
            raise failure
        yield from add(keys.PULSE.of(rank), 1)
        ticks += 1
        if ticks % PULSE == 1:
            watches = watches or (yield from _watches_instead())
            lost = (yield from _lost(rank, pulses)) if watches else None
            if lost is not None:
                raise lost
    if watches and rank != 0:
        yield from add(keys.WATCHES.name, -1)


def _watches_instead() -> Protocol[bool]:
    """Return whether this rank looks after the others from now on: rank 0 is connected, and at most one other does."""
    if not (yield from wait_for((keys.CONNECTED.of(0),))):
        return False
    if (yield from add(keys.WATCHES.name, 1)) <= WATCHES:
        return True
    yield from add(keys.WATCHES.name, -1)
    return False


def _lost(rank: int, pulses: dict[int, int]) -> Protocol[LostRanks | None]:
    """Tell all of ranks that are not connected and have not ticked since the last look; return what is told of them."""
    late = yield from _without((keys.CONNECTED,), (yield from _others(rank)))
    still = yield from _still(late, pulses)
    if not still:
        return None
    failure = LostRanks(named(still), "died or froze while the process group was made")
    yield from post({keys.BROKEN.name: str(failure)})
    return failure


def _still(ranks: list[RankReport], pulses: dict[int, int]) -> Protocol[list[RankReport]]:
    """Return those of some ranks that have not ticked since the last look, none at the first; note their ticks."""
    still: list[RankReport] = []
    counts = yield from each_count(keys.PULSE.of(one.rank) for one in ranks)
    for one, pulse in zip(ranks, counts, strict=True):
        if pulses.get(one.rank) == pulse:
            still.append(one)
        pulses[one.rank] = pulse
    return still


def _silent(rank: int, deadline: Deadline, marks: Sequence[keys.Key], seconds: float) -> Protocol[tuple[str, ...]]:
    """Name the other ranks that bear none of the marks within the seconds, and do not tick in them.

    The first ranks that ask look, and what one of them finds is what all read: the reports are as much as the world is
    large, and all ranks may ask at one moment. None is named where who looked has not said in time.
    """
    if (yield from add(keys.LOOKS.name, 1)) <= LOOKERS:
        until = deadline.clock() + min(seconds, max(0.0, deadline.remaining + SEEN_LATEST))
        late = yield from _without(marks, (yield from _others(rank)))
        pulses: dict[int, int] = {}
        yield from _still(late, pulses)
        while late and deadline.clock() < until:
            yield from pause(0.1)
            late = yield from _without(marks, late)
        late = (yield from _still(late, pulses)) if seconds else late
        told: str | None = yield from swap(keys.SILENT.name, "", json.dumps(named(late)))
    else:
        told = yield from read(keys.SILENT.name, min(HEARD, max(0.0, deadline.remaining + PART_LATEST)))
    names = json.loads(told or "[]")
    return tuple(name for name in names if not name.startswith(f"rank {rank} "))


def _others(rank: int) -> Protocol[list[RankReport]]:
    """Return what all other ranks reported."""
    log = yield from read(keys.REPORTS.name)
    return [one for one in read_reports(log) if one.rank != rank]


def _without(marks: Sequence[keys.Key], ranks: list[RankReport]) -> Protocol[list[RankReport]]:
    """Return those of some ranks that bear none of the marks."""
    for mark in marks:
        there = yield from each_is_there(mark.of(one.rank) for one in ranks)
        ranks = [one for one, found in zip(ranks, there, strict=True) if not found]
    return ranks


def report_connect_failure(rank: int, deadline: Deadline, sentence: str) -> Protocol[None]:
    """Report that this rank's connect failed.

    Raises `RankFailed` where another rank has said before why it leaves, which is then the cause of this failure, too;
    and `LostRanks` where nothing is heard of others for a moment.
    """
    yield from post({keys.FAILED.of(rank): sentence})
    broken = yield from read(keys.BROKEN.name)
    if broken is not None:
        raise RankFailed(broken)
    lost = yield from _silent(rank, deadline, (keys.CONNECTED, keys.FAILED), SEEN)
    failure = LostRanks(lost, "died or froze while the process group was made", sentence) if lost else None
    yield from post({keys.BROKEN.name: str(failure or sentence)})
    if failure is not None:
        raise failure


def part(deadline: Deadline, others: int) -> Protocol[None]:
    """Leave a group that failed; where `others` may still read the store, wait a moment for them to have left."""
    if not others:
        yield from add(keys.PARTED.name, 1)
        return
    yield from _wait_for_count(keys.PARTED, others, _until(deadline), deadline, 0.05)


def _until(deadline: Deadline) -> float:
    """Return when a wait for the others' words after a failure ends."""
    return deadline.clock() + min(PART, max(0.0, deadline.remaining + PART_LATEST))


def announce(rank: int) -> Protocol[None]:
    """Report that this rank's group is made."""
    yield Together((Post({keys.CONNECTED.of(rank): "1"}), Add(keys.MADE.name, 1)))


def settle(rank: int, world_size: int, deadline: Deadline) -> Protocol[None]:
    """Wait until all ranks have made the group, or cannot: a rank that leaves before cuts off those that connect.

    A rank may die when its group is made and it has not reported that yet: it ticks no more, and ends the wait.
    """
    pulses: dict[int, int] = {}
    watches, step = False, 0.01
    look = deadline.clock() + TICK
    while (yield from add(keys.MADE.name, 0)) < world_size and deadline.remaining + CONNECT_LATEST > 0:
        if (yield from read(keys.BROKEN.name)) is not None:
            return
        if deadline.clock() >= look:
            look = deadline.clock() + PULSE * TICK
            watches = watches or (yield from _watches_instead())
            if watches and (yield from _lost(rank, pulses)):
                return
        yield from pause(step)
        step = min(1.5 * step, 0.25)


def close(deadline: Deadline, others: int) -> Protocol[None]:
    """Leave a job that is done; whoever serves the store for `others` waits a moment for them to close, too."""
    if not others:
        yield from add(keys.CLOSED.name, 1)
        return
    yield from _wait_for_count(keys.CLOSED, others, deadline.clock() + CLOSE, deadline, 0.005)


def _wait_for_count(key: keys.Key, count: int, until: float, deadline: Deadline, step: float) -> Protocol[None]:
    while (yield from add(key.name, 0)) < count and (left := until - deadline.clock()) > 0:
        yield from pause(min(step, left))
