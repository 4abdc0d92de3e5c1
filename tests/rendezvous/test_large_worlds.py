"""4,096 ranks in memory, in the roll call and where they make no group: the promises are those of a small world."""

from collections.abc import Callable, Collection

import attrs
import pytest

from colossalai_env._rendezvous.protocol import keys
from colossalai_env._rendezvous.protocol.connecting import announce, monitor_connect, report_connect_failure, settle
from colossalai_env._rendezvous.protocol.report import RankReport
from colossalai_env._rendezvous.protocol.requests import Deadline, Protocol
from colossalai_env._rendezvous.protocol.timing import LOOKERS, PART_LATEST, PROMISE, PULSE, TICK
from colossalai_env.errors import DuplicateRank, InconsistentRanks, LostRanks, MissingRanks, RankFailed, RendezvousError
from tests.rendezvous.reports import report

from .test_roll_call import Process, T, World, begun

SIZE = 4096
NODES = [report(rank, SIZE, host=f"n{rank // 8}", pid=100 + rank % 8) for rank in range(SIZE)]
"""In containers, whose processes have the same pids on each node."""

ROUND_TRIPS = 120
"""Of rank 0 at most, which serves a bad verdict for two seconds: far fewer than there are ranks."""


def play(reports: list[RankReport], dead: Collection[int] = (), late: float = 0.0) -> tuple[World, list[Process]]:
    """Let all processes go on until they have ended; those of `dead` ranks die when they have reported.

    Rank 0 comes `late` seconds after the others.
    """
    world = begun(reports, [late if one.rank == 0 else 0.0 for one in reports])
    while world.now < T + late + 2 * PROMISE and any(one.outcome is None and not one.dead for one in world.running):
        moved = [one.step(world) for one in world.running]
        for one, process in zip(reports, world.running, strict=True):
            process.dead |= one.rank in dead and process.requests > 1
        if not any(moved):
            world.now += 0.05
    return world, world.running


def told(processes: list[Process]) -> RendezvousError:
    """Return the error that all living ranks end with, in time."""
    living = [one for one in processes if not one.dead]
    assert len({str(one.outcome) for one in living}) == 1
    assert all(one.ended <= T + PROMISE for one in living)
    assert next(one for one in processes if one.leads).requests <= ROUND_TRIPS
    failure = living[0].outcome
    assert isinstance(failure, RendezvousError)
    return failure


def test_all_get_in_with_few_requests_each() -> None:
    _, processes = play(NODES)
    assert {one.outcome for one in processes} == {"in"}
    assert max(one.requests for one in processes if not one.leads) <= 10
    assert next(one for one in processes if one.leads).requests <= ROUND_TRIPS


def test_a_rank_and_a_node_that_are_missing_are_told() -> None:
    gone = {7, *range(4000, 4008)}
    failure = told(play([one for one in NODES if one.rank not in gone])[1])
    assert isinstance(failure, MissingRanks)
    assert "rank(s) 7, 4000-4007 of 4096" in str(failure)


def test_a_missing_rank_is_told_where_all_others_give_up_before_rank_0_does() -> None:
    failure = play([one for one in NODES if one.rank != 77], late=1.0)[1]
    assert {type(one.outcome) for one in failure} == {MissingRanks}
    assert {"rank(s) 77 of 4096" in str(one.outcome) for one in failure} == {True}
    assert all(one.ended <= one.arrives + T + PROMISE for one in failure)


def test_two_processes_with_one_rank_are_told() -> None:
    failure = told(play([*NODES, attrs.evolve(NODES[4095], host="n9", pid=999)])[1])
    assert isinstance(failure, DuplicateRank)
    assert "rank 4095" in str(failure)
    assert "pid 999 on n9" in str(failure)


def test_a_rank_of_another_mind_is_told() -> None:
    odd = [*NODES]
    odd[2049] = attrs.evolve(NODES[2049], backend="nccl")
    failure = told(play(odd)[1])
    assert isinstance(failure, InconsistentRanks)
    assert "rank 2049" in str(failure)


@pytest.mark.parametrize("dead", [{3}, {1, 8, 4095}, {*range(2048, 4096)}], ids=["one", "three", "half of them"])
def test_ranks_that_die_when_they_have_reported_are_told(dead: set[int]) -> None:
    failure = told(play(NODES, dead)[1])
    assert isinstance(failure, LostRanks)
    assert all(f"rank {rank} (" in str(failure) for rank in sorted(dead)[:4])
    assert "rank 4 " not in str(failure)


BRIEF = 2.0
"""A timeout that ends before any rank is missed for its silence."""


def fail(rank: int, deadline: Deadline) -> Protocol[None]:
    """End the connect of a rank with an error, of which others may be the cause."""
    return report_connect_failure(rank, deadline, f"rank {rank} was reset by its peer")


def connecting(
    how: Callable[[int, Deadline], Protocol[None]],
    silent: Collection[int] = (),
    dead: Collection[int] = (),
    broken: str | None = None,
    timeout: float = BRIEF,
) -> tuple[World, list[Process]]:
    """Let all ranks but the silent ones connect, all at one moment and in vain; the dead die at their fourth request.

    `broken` is what one of the silent has said before.
    """
    world = World(texts={keys.REPORTS.name: "".join(one.line() for one in NODES)})
    if broken is not None:
        world.texts[keys.BROKEN.name] = broken
    deadline = Deadline(world.clock, 0.0, timeout)
    world.running = [Process(how(rank, deadline), rank == 0, 0.0) for rank in range(SIZE) if rank not in silent]
    while world.now < timeout + 2 * PROMISE and any(one.outcome is None and not one.dead for one in world.running):
        moved = [one.step(world) for one in world.running]
        for rank in dead:
            world.running[rank].dead |= world.running[rank].requests > 3
        if not any(moved):
            world.now += 0.05
    return world, world.running


def cheap(world: World, processes: list[Process]) -> None:
    """Make sure that the store was asked for as much as all ranks reported by few, and by each for little."""
    reported = len(world.texts[keys.REPORTS.name])
    assert world.heard <= LOOKERS * reported + SIZE * 500
    assert sorted(one.requests for one in processes)[-LOOKERS - 1] <= 20


@pytest.mark.parametrize("silent", [{3}, {1, 8, 4095}, {*range(2048, 4096)}], ids=["one", "three", "half of them"])
def test_where_all_connects_fail_at_once_all_name_the_silent_and_few_look_for_them(silent: set[int]) -> None:
    world, processes = connecting(fail, silent)
    cheap(world, processes)
    assert all(one.ended <= BRIEF + PART_LATEST for one in processes)
    for one in processes:
        assert isinstance(one.outcome, LostRanks)
        assert all(f"rank {rank} (" in str(one.outcome) for rank in sorted(silent)[:4])


def test_where_no_connect_ends_in_time_all_name_who_is_not_connected_and_few_look_for_them() -> None:
    world, processes = connecting(monitor_connect, {3})
    cheap(world, processes)
    assert all(one.ended <= BRIEF + PART_LATEST for one in processes)
    for one in processes:
        assert isinstance(one.outcome, LostRanks)
        assert "rank 3 (" in str(one.outcome)
        assert "did not connect to the process group within 2.0 s" in str(one.outcome)


def test_where_all_connects_fail_and_none_is_silent_each_has_its_own_error() -> None:
    world, processes = connecting(fail)
    cheap(world, processes)
    assert {one.outcome for one in processes} == {"in"}
    assert all(one.ended < 1.0 for one in processes)


def test_ranks_that_still_connect_are_not_named_beside_the_one_that_is_silent() -> None:
    """A killed rank fails the connects to it at once; those that are not so far yet live, and tick."""
    _, processes = connecting(lambda rank, deadline: (monitor_connect, fail)[rank % 2](rank, deadline), {77})
    for one in processes:
        assert isinstance(one.outcome, (LostRanks, RankFailed))
        assert str(one.outcome).startswith("rank 77 (pid 105 on n9) died or froze while the process group was made")


def test_a_connect_that_fails_when_another_rank_has_said_why_it_leaves_fails_of_that() -> None:
    """A rank that is interrupted says so, then its connections break off, and with them the others' connects."""
    said = "rank 3 (pid 103 on n0): was stopped by Ctrl-C"
    _, processes = connecting(fail, {3}, broken=said)
    assert {type(one.outcome) for one in processes} == {RankFailed}
    assert {str(one.outcome) for one in processes} == {str(RankFailed(said))}
    assert all(one.ended < 0.1 for one in processes)


def test_one_that_looks_for_the_silent_may_die_of_it() -> None:
    world, processes = connecting(fail, {77}, dead={0})
    cheap(world, processes)
    assert {"rank 77 (" in str(one.outcome) for one in processes if not one.dead} == {True}


def test_where_all_who_look_die_each_ends_in_time_with_its_own_error() -> None:
    world, processes = connecting(fail, {77}, dead=range(LOOKERS))
    cheap(world, processes)
    assert {one.outcome for one in processes if not one.dead} == {"in"}
    assert all(one.ended <= BRIEF + PART_LATEST for one in processes)


def finish(rank: int, deadline: Deadline) -> Protocol[None]:
    """End a job whose group this rank has made."""
    yield from announce(rank)
    yield from settle(rank, SIZE, deadline)


def test_where_a_rank_died_before_it_could_say_that_it_is_connected_the_others_leave_when_it_has_not_ticked() -> None:
    world, processes = connecting(finish, {77}, timeout=12.0)
    assert world.heard <= LOOKERS * len(world.texts[keys.REPORTS.name]) * 2 + SIZE * 500
    assert {one.outcome for one in processes} == {"in"}
    assert all(one.ended <= TICK + PULSE * TICK + 1.0 for one in processes)
