"""The roll call: every rank reports once, rank 0 gives one verdict, and all leave with the same."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import attrs

from colossalai_env.errors import (
    ColossalaiEnvError,
    ExtraProcess,
    InconsistentRanks,
    LostRanks,
    MissingRanks,
    PartialEndpoint,
    RankFailed,
)

from . import keys
from .placement import Placement, node_level, placements, sharing, too_few_devices
from .report import RankReport, ReportLog, named, read_reports
from .requests import (
    Add,
    Append,
    Deadline,
    Post,
    Protocol,
    Together,
    add,
    append,
    call_ended,
    each_is_there,
    is_alive,
    pause,
    post,
    read,
    wait_for,
)
from .timing import (
    ACKNOWLEDGE,
    ACKNOWLEDGE_LATEST,
    BEAT,
    CALL_LATEST,
    CROWD,
    FAREWELL,
    GRACE,
    IMPORTING,
    LAST_WORD,
    LATE_ACKNOWLEDGE,
    LINGER,
    LINGER_LATEST,
    LOOK,
    SILENCE,
    VERDICT_LATEST,
)
from .verdict import missing, no_verdict, problem, read_verdict, written

READY = "ok"
"""What a good verdict begins with; the world's size follows."""

T = TypeVar("T")

Show = Callable[[Sequence[RankReport]], None]
"""Receives the reports of who is here, about twice a second."""


def report(one: RankReport, then: keys.Key | None = None) -> Protocol[int]:
    """Put one's report into the log, and wake rank 0 when it is the last or brings an error; return its place.

    `then` is what is waited for next.
    """
    said = (Append(keys.REPORTS.name, one.line()), Add(keys.COUNT.name, 1))
    _, place = yield Together(said, then and then.name)
    if place == one.world_size or one.error is not None:
        yield from post({keys.WAKE.name: "1"})
    return int(place)


def importing(rank: int, host: str, pid: int, deadline: Deadline) -> Protocol[None]:
    """Wait for this rank's import of torch, the call beside this protocol; report it to rank 0 where it takes long.

    Returns when it is done or the time is over. Raises a bad verdict where rank 0 gives one meanwhile.
    """
    told = False
    while not (yield from call_ended(min(IMPORTING, max(0.0, deadline.remaining)))) and deadline.remaining > 0:
        if not told:
            yield from append(keys.IMPORTING.name, json.dumps([rank, host, pid]) + "\n")
            told = True
        text = yield from read(keys.VERDICT.name)
        failure = None if text is None else _failure(text)
        if failure is not None:
            yield from post({keys.READ.of(f"pid {pid} on {host}"): "1"})
            raise failure


def member(mine: RankReport, leader_process: str, deadline: Deadline) -> Protocol[Placement | None]:
    """Report, acknowledge when called, and return with rank 0's verdict: the placement is what was left unknown.

    Raises a `ColossalaiEnvError`, the same on all ranks, or `ExtraProcess` where the group is complete.
    """
    place = yield from report(mine, keys.CALL)
    called = yield from _hear(_call, CALL_LATEST, leader_process, deadline)
    verdict: str | None = None
    if called:
        yield Together((Post({_acknowledged(mine): "1"}),), keys.VERDICT.name)
        verdict = yield from _hear(_verdict, VERDICT_LATEST, leader_process, deadline)
    if verdict is None:
        verdict = yield from _last_word(mine, deadline)
    failure = _failure(verdict)
    if failure is not None:
        yield from post({keys.READ.of(mine.process): "1"})
        raise failure
    if place > int(verdict.removeprefix(READY)):  # of rank 0's world, not of one's own
        yield from _refuse_extra(mine)
    if not mine.incomplete:
        return None
    placement = yield from read(keys.PLACEMENT.of(mine.rank), SILENCE)
    if placement is None:
        raise LostRanks((f"rank 0 ({leader_process})",), "let all ranks in and then gave no sign of life")
    return Placement(*json.loads(placement))


def _acknowledged(one: RankReport) -> str:
    """Return a key that no other process of that rank sets: one too many must not stand in for one that died."""
    return keys.ACKNOWLEDGED.of(f"{one.rank}.{one.pid}")


def _failure(verdict: str) -> ColossalaiEnvError | None:
    return None if verdict.startswith(READY) else read_verdict(verdict)


def _refuse_extra(mine: RankReport) -> Protocol[None]:
    """Raise who holds this rank: the first that reported it, which has this one's pid where it was replaced by exec."""
    log = yield from read(keys.REPORTS.name)
    holder = next((one for one in read_reports(log) if one.rank == mine.rank), mine)
    raise ExtraProcess(mine.rank, mine.process, holder.process)


def _call(within: float) -> Protocol[bool | None]:
    called = yield from wait_for((keys.CALL.name,), within)
    return called or None


def _verdict(within: float) -> Protocol[str | None]:
    return read(keys.VERDICT.name, within)


def _hear(
    word: Callable[[float], Protocol[T | None]], latest: float, leader_process: str, deadline: Deadline
) -> Protocol[T | None]:
    """Wait for a word of rank 0, as long as it lives and the time lasts: its own deadline may be a moment later.

    Returns None where it has not come by `latest` seconds after this rank's deadline.
    """
    beat, quiet_since = -1, deadline.clock()
    while True:
        remaining = deadline.remaining + latest
        heard = yield from word(min(LOOK, max(0.0, remaining)))
        if heard is not None or remaining <= 0:
            return heard
        alive = yield from is_alive(max(0.05, min(LOOK, deadline.remaining + latest)))
        now = (yield from add(keys.BEAT.name, 0)) if alive else beat
        if now != beat:
            beat, quiet_since = now, deadline.clock()
        elif deadline.clock() - quiet_since >= SILENCE:
            raise LostRanks((f"rank 0 ({leader_process})",), f"gives no sign of life for {SILENCE:.0f} s")


def _last_word(mine: RankReport, deadline: Deadline) -> Protocol[str]:
    """Give up: tell rank 0, whose deadline may be later, and where it does not judge at once, judge alone.

    All reports are as much as the world is large: where all ranks give up at once, they are not read by each.
    """
    yield from report(attrs.evolve(mine, error=f"gave up after {deadline.timeout:.1f} s", gave_up=True))
    verdict = yield from read(keys.VERDICT.name, LAST_WORD)
    if verdict is not None and not verdict.startswith(READY):
        return verdict
    log = yield from read(keys.REPORTS.name)
    reports = read_reports(log)
    if len({one.rank for one in reports}) >= mine.world_size:
        return written(no_verdict(deadline.timeout))
    return written(missing(reports, mine.world_size, deadline.timeout))


def leader(
    mine: RankReport, farewells: str, deadline: Deadline, show: Show, hint: str = ""
) -> Protocol[tuple[Placement, str | None]]:
    """Report, wait for all, judge, see that all are still there, and let them go.

    `farewells` is the key of what ranks report that leave before they know whose store it is. `hint` is added to the
    error where no other host was heard from. Returns rank 0's own placement, and a warning where devices are shared.
    Raises a verdict.
    """
    yield from report(mine)
    failure, reports, placed = yield from _gather(mine, farewells, deadline, show)
    lost: list[RankReport] = []
    if failure is None or isinstance(failure, MissingRanks):
        yield from post({keys.CALL.name: "1"})
        late = failure is not None
        most = ACKNOWLEDGE * max(1.0, len(reports) / CROWD)
        within = LATE_ACKNOWLEDGE if late else min(most, max(0.0, deadline.remaining) + ACKNOWLEDGE_LATEST)
        lost = yield from _unacknowledged(mine, _waiting(reports), deadline, within)
        if late:
            log = yield from read(keys.REPORTS.name)
            waiting = _waiting(read_reports(log))
            lost = [one for one in lost if one in waiting]  # the others gave up meanwhile
            slow = yield from read(keys.IMPORTING.name)
            failure = missing(reports, mine.world_size, deadline.timeout, lost, _importers(slow), hint)
        elif lost:
            failure = LostRanks(named(lost), "answered and then died or froze")
    if failure is None:
        told = {keys.PLACEMENT.of(one.rank): placed[one.rank].line() for one in reports if one.incomplete}
        yield from post({**told, keys.VERDICT.name: f"{READY} {mine.world_size}"})
        return placed[mine.rank], sharing(reports)
    yield from post({keys.CALL.name: "1", keys.VERDICT.name: written(failure)})
    yield from _linger(mine, deadline, failure, lost)
    raise failure


def _waiting(reports: Sequence[RankReport]) -> list[RankReport]:
    """Return one report of each rank that still waits for the verdict: those that gave up have left."""
    left = {one.rank for one in reports if one.gave_up}
    return list({one.rank: one for one in reports if one.rank not in left}.values())


def _gather(
    mine: RankReport, farewells: str, deadline: Deadline, show: Show
) -> Protocol[tuple[ColossalaiEnvError | None, list[RankReport], dict[int, Placement]]]:
    """Wait until all have reported, or cannot; return what forbids the group, who reported, and where each is."""
    log, judged = ReportLog(), -1
    placed: dict[int, Placement] = {}
    found: ColossalaiEnvError | None = None
    woken: str | None = None
    odd_since: float | None = None
    while True:
        if woken is None:
            woken = yield from read(keys.WAKE.name, max(0.0, min(BEAT, deadline.remaining)))
        else:
            yield from pause(BEAT)
        yield from add(keys.BEAT.name, 1)
        text = yield from read(keys.REPORTS.name)
        gone = yield from read(farewells)
        reports = [*log.read(text), *read_reports(gone)]
        show(reports)
        if judged != len(reports):
            judged, found = len(reports), problem(reports, deadline.timeout)
        failure = found
        gave_up = any(one.gave_up for one in reports)  # and reported a second time
        complete = not gave_up and len(reports) >= max(one.world_size for one in reports)  # rank 0 may be the odd one
        if isinstance(failure, (InconsistentRanks, PartialEndpoint)) and not complete:
            odd_since = deadline.clock() if odd_since is None else odd_since
            failure = failure if deadline.clock() - odd_since >= GRACE else None
        if failure is None and complete:
            placed = placements(reports)
            local_ranks = {rank: at.local_rank for rank, at in placed.items()}
            failure = node_level(reports) or too_few_devices(reports, local_ranks)
        if failure is None and not complete and (deadline.remaining <= 0 or gave_up):
            failure = missing(reports, mine.world_size, deadline.timeout)
        if failure is not None or complete:
            return failure, reports, placed


def _importers(log: str | None) -> Mapping[int, str]:
    """Read which ranks have said that they import torch, and where."""
    said = (json.loads(line) for line in (log or "").splitlines())
    return {int(rank): f"pid {pid} on {host}" for rank, host, pid in said}


def _unacknowledged(
    mine: RankReport, reports: Sequence[RankReport], deadline: Deadline, within: float
) -> Protocol[list[RankReport]]:
    """Wait until each has shown that it is still there; return those that have not."""
    others = [one for one in reports if one.rank != mine.rank]
    marks = tuple(map(_acknowledged, others))
    until = deadline.clock() + within
    complete = yield from wait_for(marks, min(BEAT, within))
    while not complete and deadline.clock() < until:
        yield from add(keys.BEAT.name, 1)
        complete = yield from wait_for(marks, max(0.0, min(BEAT, until - deadline.clock())))
    if complete:
        return []
    there = yield from each_is_there(marks)
    return [one for one, came in zip(others, there, strict=True) if not came]


def _linger(
    mine: RankReport, deadline: Deadline, failure: ColossalaiEnvError, lost: Sequence[RankReport]
) -> Protocol[None]:
    """Serve the verdict until all who can read it have, or for as long as it may take them.

    A rank that gave up still asks for rank 0's word, and then leaves as the others do.
    """
    until = deadline.clock() + min(LINGER, max(0.0, deadline.remaining) + LINGER_LATEST)
    log = ReportLog()
    gone = {keys.READ.of(one.process) for one in (mine, *lost)}
    while deadline.clock() < until:
        text = yield from read(keys.REPORTS.name)
        reports = log.read(text)
        if isinstance(failure, MissingRanks) or len(reports) >= mine.world_size:
            slow = yield from read(keys.IMPORTING.name)
            here = {one.process for one in reports} | {*_importers(slow).values()}
            read_by_all = yield from wait_for(tuple({keys.READ.of(process) for process in here} - gone))
            if read_by_all:
                return
        yield from pause(0.05)


def abort(mine: RankReport, *, hosts: bool) -> Protocol[None]:
    """Report at any moment that this rank is stopped; who serves the store for the others does so a moment longer.

    A bad verdict that is out already stays as it is.
    """
    failure = RankFailed(str(mine.error), str(mine))
    told = {keys.BROKEN.name: str(failure)}
    if hosts:
        text = yield from read(keys.VERDICT.name)
        if text is None or text.startswith(READY):
            told |= {keys.CALL.name: "1", keys.VERDICT.name: written(failure)}
    yield from post(told)
    if hosts:
        yield from pause(FAREWELL)
    else:
        yield from report(mine)
