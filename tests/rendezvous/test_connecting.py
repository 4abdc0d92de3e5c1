"""The end of a job: no rank leaves a group that others are still making."""

from collections.abc import Callable

import pytest

from colossalai_env._rendezvous.protocol import keys
from colossalai_env._rendezvous.protocol.connecting import announce, monitor_connect, settle
from colossalai_env._rendezvous.protocol.requests import Add, Deadline, Pause, Protocol, Read, Request
from colossalai_env._rendezvous.protocol.timing import PULSE, TICK
from colossalai_env.errors import LostRanks
from tests.rendezvous.reports import report

from .test_roll_call import Process, World


def left_after(made: list[int], broken: str | None = None, clock: Callable[[], float] = lambda: 0.0) -> list[Request]:
    """Return what a rank of three asks for until it leaves, where so many groups are made at each look."""
    protocol = settle(0, 3, Deadline(clock, 0.0, 10.0))
    asked: list[Request] = []
    answer: int | str | None = None
    while True:
        try:
            asked.append(protocol.send(answer))
        except StopIteration:
            return asked
        match asked[-1]:
            case Add(key, 0):
                assert key == keys.MADE.name
                answer = made.pop(0)
            case Read():
                answer = broken
            case _:
                answer = None


def test_a_rank_leaves_when_the_last_one_has_made_its_group() -> None:
    asked = left_after([1, 2, 3])
    assert [type(one) for one in asked] == [Add, Read, Pause, Add, Read, Pause, Add]


def test_a_rank_that_trained_for_long_asks_once_and_leaves() -> None:
    assert len(left_after([2], clock=lambda: 5000.0)) == 1


@pytest.mark.parametrize("made", [1, 2])
def test_a_group_that_cannot_be_made_is_left_at_once(made: int) -> None:
    assert [type(one) for one in left_after([made], broken="rank 2 failed")] == [Add, Read]


def made(rank: int, deadline: Deadline) -> Protocol[None]:
    """End a job whose group this rank has made."""
    yield from announce(rank)
    yield from settle(rank, 3, deadline)


def test_ranks_that_are_done_wait_for_one_that_connects_and_ticks() -> None:
    world = World(texts={keys.REPORTS.name: "".join(report(rank, 3).line() for rank in range(3))})
    deadline = Deadline(world.clock, 0.0, timeout := 3 * PULSE * TICK)
    protocols = (made(0, deadline), made(1, deadline), monitor_connect(2, deadline))
    *done, connecting = world.running = [Process(one, place == 0, 0.0) for place, one in enumerate(protocols)]
    while any(one.outcome is None for one in world.running):
        if not any(one.step(world) for one in world.running):
            world.now += 0.05
    assert isinstance(connecting.outcome, LostRanks)
    assert {one.outcome for one in done} == {"in"}
    assert all(one.ended >= timeout for one in done)
