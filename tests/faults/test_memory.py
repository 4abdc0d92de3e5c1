"""The faults that are about the ranks alone, in memory: the library's own code, in many orders of events."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .cases.deaths import sudden
from .faults import FAULTS
from .memory.life import is_played, play
from .memory.world import FIRST_PID
from .model import AGENT, Act, At, Bystander, Fault, Process, Rank, Say, entered, fine
from .runner import Record, Trace
from .verdict import problems, told_all

TWINS = [fault for fault in FAULTS if is_played(fault)]

ORDERS = range(3)
"""Orders of events that each twin is played in; the first is fair, and there the clocks run alike."""


def test_most_faults_have_a_twin_in_memory() -> None:
    assert len(TWINS) >= 100


@pytest.mark.parametrize("fault", TWINS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_promises_are_kept_in_memory(fault: Fault) -> None:
    """In an order of events that is fair, and in others, with clocks that run apart."""
    for order in ORDERS:
        drawn = random.Random(order)
        record = play(fault, choose=drawn.randrange, pace=_clocks(drawn)) if order else play(fault)
        held(record, problems(record))


@pytest.mark.parametrize("order", range(12))
def test_a_rank_that_dies_while_rank_0_is_connected_already_is_told_by_those_that_are_not(order: int) -> None:
    """Its killer comes when all are there, and the connects of each take their time."""
    drawn = random.Random(order)
    record = play(sudden("KILL", 0.1), choose=drawn.randrange)
    held(record, problems(record))


def held(record: Record, found: Sequence[str]) -> None:
    """Fail where anything was found, with all that was seen."""
    assert not found, "\n".join([record.fault.story, *found, told_all(record)])


def _clocks(drawn: random.Random) -> Callable[[int], float]:
    apart = {FIRST_PID + number: drawn.uniform(0.98, 1.02) for number in range(20)}
    return apart.__getitem__


def launch(ranks: Sequence[Rank], says: Sequence[Say] = (), acts: Sequence[Act] = ()) -> Fault:
    """Return a launch as a fault without a name, with the agent of ranks that need one."""
    agent = any(rank.settings == AGENT for rank in ranks)
    processes: tuple[Process, ...] = (*([Bystander(name="agent")] if agent else []), *ranks)
    return Fault(name="drawn", promises=(), story="drawn", processes=processes, says=tuple(says), acts=tuple(acts))


def _started(agent: bool, plus: float = 0.0) -> dict[str, Any]:
    """Return how a rank is started, by hand or by torchrun's agent, and how late."""
    if not agent:
        return {"after": At(plus=plus)}
    return {"dialect": "torchrun", "settings": AGENT, "after": At("ready", "agent", plus)}


@pytest.mark.parametrize("order", range(4))
def test_a_rank_ends_in_time_whose_peer_froze_when_it_had_its_group(order: int) -> None:
    ranks = [Rank(name=str(rank), rank=rank, size=2, **_started(agent=False)) for rank in range(2)]
    record = play(launch(ranks, acts=[Act(entered("1", 0.06), "STOP", "1")]), choose=random.Random(order).randrange)
    held(record, problems(record))


MOMENTS = st.sampled_from([0.0, 0.01, 0.03, 0.06, 0.1, 0.3, 1.0, 3.0, 3.9, 4.1])


@st.composite
def launches(draw: st.DrawFn) -> Fault:
    """Draw a launch in which ranks come late, twice, never or are otherwise configured, die, freeze or are stopped."""
    size, agent = draw(st.integers(2, 4)), draw(st.booleans())
    odd: list[dict[str, Any]] = [{"size": size}] * 6
    odd += [{"size": size + 1}, {"size": size, "keywords": {"backend": "mpi"}}]
    ranks: list[Rank] = []
    for number in range(size):
        for copy in "ab"[: draw(st.sampled_from([1, 1, 1, 1, 0, 2]))]:
            how: dict[str, Any] = {**_started(agent, draw(MOMENTS)), **draw(st.sampled_from(odd))}
            ranks.append(Rank(name=f"{number}{copy}", rank=number, **how))
    hit = draw(st.lists(st.integers(0, len(ranks) - 1), max_size=2, unique=True)) if ranks else []
    deeds = st.sampled_from(["KILL", "STOP", "TERM", "INT"])
    return launch(
        ranks, acts=[Act(entered(ranks[one].name, draw(MOMENTS)), draw(deeds), ranks[one].name) for one in hit]
    )


@settings(max_examples=200)
@given(launches(), st.randoms(use_true_random=False))
def test_every_rank_of_any_launch_ends_in_time_and_no_group_is_mixed(fault: Fault, order: random.Random) -> None:
    record = play(fault, choose=order.randrange)
    mixed = [f"{name} summed over others" for name, trace in record.traces.items() if not _summed_right(trace)]
    held(record, [*problems(record), *mixed])


def _summed_right(trace: Trace) -> bool:
    size = trace.process.size if isinstance(trace.process, Rank) else 0
    return all(event["sum"] == size for event in trace.seen("summed"))


@given(st.integers(2, 6), st.booleans(), st.randoms(use_true_random=False))
def test_a_launch_without_a_fault_starts_in_any_order(size: int, agent: bool, order: random.Random) -> None:
    ranks = [Rank(name=str(rank), rank=rank, size=size, **_started(agent)) for rank in range(size)]
    record = play(launch(ranks, [fine(" ".join(rank.name for rank in ranks))]), choose=order.randrange)
    held(record, problems(record))
