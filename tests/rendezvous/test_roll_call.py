"""The roll call: whole worlds in memory, that must not end in two verdicts, nor late."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossalai_env._rendezvous.protocol import keys
from colossalai_env._rendezvous.protocol.placement import placements
from colossalai_env._rendezvous.protocol.report import RankReport
from colossalai_env._rendezvous.protocol.requests import (
    Add,
    Alive,
    Append,
    Await,
    CallEnd,
    Deadline,
    Pause,
    Post,
    Protocol,
    Read,
    Swap,
    Together,
)
from colossalai_env._rendezvous.protocol.roll_call import READY, leader, member
from colossalai_env._rendezvous.protocol.timing import PROMISE
from colossalai_env._rendezvous.protocol.verdict import read_verdict
from colossalai_env.errors import ExtraProcess, LostRanks, MissingRanks, RendezvousError
from tests.rendezvous.reports import gpus, report

FAREWELLS = keys.FAREWELLS.of("7.0")


@attrs.define
class World:
    """An in-memory store, a clock, and the protocols of many processes, stepped in any order."""

    now: float = 0.0
    texts: dict[str, str] = attrs.field(factory=dict[str, str])
    counts: dict[str, int] = attrs.field(factory=dict[str, int])
    running: "list[Process]" = attrs.field(factory=list)  # pyright: ignore[reportUnknownVariableType]
    leading: "list[Process]" = attrs.field(factory=list)  # pyright: ignore[reportUnknownVariableType]
    """Those of them that are rank 0."""
    requests: int = 0
    heard: int = 0
    """Characters of the texts that were read."""
    late: int = 0
    """Requests that were made when rank 0 had ended, and its store with it."""

    def clock(self) -> float:
        return self.now

    def perform(self, request: object) -> tuple[bool, Any]:  # noqa: PLR0911
        """Return whether the request is answered now, and its answer."""
        match request:
            case Append(key, text):
                self.texts[key] = self.texts.get(key, "") + text
                return True, None
            case Add(key, amount):
                self.counts[key] = self.counts.get(key, 0) + amount
                return True, self.counts[key]
            case Post(entries):
                verdict = entries.get(keys.VERDICT.name)
                assert verdict in {None, self.texts.get(keys.VERDICT.name, verdict)}, "two verdicts"
                self.texts.update(entries)
                return True, None
            case Swap(key, expected, desired):
                found = self.texts.get(key, "")
                self.texts[key] = desired if found == expected else found
                return True, self.texts[key]
            case Read(key, _):
                self.heard += len(self.texts.get(key, ""))
                return key in self.texts, self.texts.get(key)
            case Await(names, _):
                came = all(name in self.texts for name in names)
                return came, came
            case Together(requests, _):
                return True, [self.perform(one)[1] for one in requests]
            case Alive(_):
                return True, any(not process.dead for process in self.leading)
            case Pause(_) | CallEnd(_):
                return False, None
            case _:
                raise AssertionError(request)


@attrs.define(eq=False)
class Process:
    """One process: its protocol, what it waits for, and how it ended."""

    protocol: Protocol[object]
    leads: bool
    arrives: float
    request: Any = None
    until: float | None = None
    outcome: object = None
    result: object = None
    """What the protocol returned of one that is in."""
    dead: bool = False
    ended: float = 0.0
    requests: int = 0

    def step(self, world: World) -> bool:
        """Make one request, if it can be answered; tell whether anything happened."""
        if self.outcome is not None or self.dead or world.now < self.arrives:
            return False
        if self.request is None:
            self._send(world, None)
            return True
        world.late += any(one.outcome is not None for one in world.leading)
        answered, value = world.perform(self.request)
        if not answered:
            if self.until is None:
                seconds = getattr(self.request, "within", getattr(self.request, "seconds", 0.0))
                self.until = world.now + seconds
            if self.until is not None and world.now < self.until:
                return False
            value = False if isinstance(self.request, Await) else None
        self._send(world, value)
        return True

    def _send(self, world: World, value: object) -> None:
        self.until = None
        world.requests += 1
        self.requests += 1
        try:
            self.request = self.protocol.send(value)
        except StopIteration as end:
            self.outcome, self.result, self.ended = "in", end.value, world.now
        except RendezvousError as failure:
            self.outcome, self.ended = failure, world.now


T = 5.0


def simulate(
    reports: list[RankReport],
    arrivals: list[float],
    choose: Callable[[int], int],
    deaths: dict[int, float] | None = None,
) -> tuple[World, list[Process]]:
    """Run one process for each report until all have ended; `choose` picks who steps next."""
    world = begun(reports, arrivals)
    while world.now < 60 and any(one.outcome is None and not one.dead for one in world.running):
        for index, when in (deaths or {}).items():
            world.running[index].dead |= world.now >= when and world.running[index].outcome is None
        waiting = [one for one in world.running if one.outcome is None]
        moved = False
        while waiting and not moved:
            moved = waiting.pop(choose(len(waiting))).step(world)
        if not moved:
            world.now += 0.05
    return world, world.running


def begun(reports: list[RankReport], arrivals: list[float]) -> World:
    """Return a world with one process for each report."""
    world = World()
    for one, arrives in zip(reports, arrivals, strict=True):
        deadline = Deadline(world.clock, arrives, T)
        protocol: Protocol[object] = (
            leader(one, FAREWELLS, deadline, lambda _: None)
            if one.rank == 0
            else member(one, "pid 100 on n0", deadline)
        )
        world.running.append(Process(protocol, one.rank == 0, arrives))
    world.leading += [one for one in world.running if one.leads]
    return world


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[RankReport], list[float], dict[int, float]]:
    size = draw(st.integers(2, 6))
    reports = [report(rank, size) for rank in range(size)]
    for _ in range(draw(st.integers(0, 2))):
        other = draw(st.integers(1, size - 1))
        kind = draw(st.sampled_from(["missing", "twice", "backend", "error", "size"]))
        one = next((item for item in reports if item.rank == other), None)
        if one is None:
            continue
        if kind == "missing":
            reports = [item for item in reports if item.rank != other]
        elif kind == "twice":
            reports.append(attrs.evolve(one, pid=999))
        else:
            changes: dict[str, dict[str, Any]] = {
                "backend": {"backend": "nccl"},
                "error": {"error": "no GPU"},
                "size": {"world_size": size + 1},
            }
            reports[reports.index(one)] = attrs.evolve(one, **changes[kind])
    arrivals = [draw(st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0])) for _ in reports]
    deaths = draw(st.dictionaries(st.integers(0, len(reports) - 1), st.floats(0, 4), max_size=1))
    return reports, arrivals, deaths


@settings(max_examples=300)
@given(worlds(), st.randoms(use_true_random=False))
def test_no_world_ends_in_two_verdicts_nor_late(
    drawn: tuple[list[RankReport], list[float], dict[int, float]], random: Any
) -> None:
    reports, arrivals, deaths = drawn
    world, processes = simulate(reports, arrivals, random.randrange, deaths)
    alive = [one for one in processes if not one.dead]
    assert all(one.outcome is not None for one in alive), "somebody waits for ever"
    for one in alive:
        assert one.ended - one.arrives <= T + PROMISE
    entered = [item for item, one in zip(reports, processes, strict=True) if one.outcome == "in"]
    if entered:
        assert len({item.rank for item in entered}) == len(entered)
        in_before_death = len(entered) + len([one for one in processes if one.dead])
        assert in_before_death >= entered[0].world_size, "some are in and some are not"
        others = [one.outcome for one in alive if one.outcome != "in"]
        assert all(isinstance(outcome, (ExtraProcess, LostRanks)) for outcome in others)
    verdict = world.texts.get(keys.VERDICT.name, READY)
    assert verdict.startswith(READY) or isinstance(read_verdict(verdict), RendezvousError)


@given(st.integers(2, 9), st.randoms(use_true_random=False))
def test_a_whole_world_gets_in_with_a_fixed_number_of_requests(size: int, random: Any) -> None:
    reports = [report(rank, size) for rank in range(size)]
    world, processes = simulate(reports, [0.0] * size, random.randrange)
    assert [one.outcome for one in processes] == ["in"] * size
    placed = placements(reports)
    assert [one.result for one in processes] == [(placed[0], None), *(placed[rank] for rank in range(1, size))]
    assert world.requests <= 12 * size


def test_a_missing_rank_is_told_to_all_at_the_deadline_together_with_one_that_died_meanwhile() -> None:
    reports = [report(rank, 5) for rank in (0, 1, 2, 4)]
    _, processes = simulate(reports, [0.0] * 4, lambda count: count - 1, deaths={2: 1.0})
    outcomes = [one.outcome for one in processes if not one.dead]
    assert {str(outcome) for outcome in outcomes} == {str(outcomes[0])}
    assert isinstance(outcomes[0], MissingRanks)
    assert "rank(s) 3 of 5" in str(outcomes[0])
    assert "answered and then lost: rank 2 (pid 102 on n1)" in str(outcomes[0])
    assert all(one.ended <= T + 1.5 for one in processes)


@given(st.randoms(use_true_random=False))
def test_rank_0_serves_until_ranks_that_give_up_at_one_moment_have_been_told(random: Any) -> None:
    reports = [report(rank, 5) for rank in (0, 1, 2, 4)]
    world, processes = simulate(reports, [2.0, 0.0, 0.0, 0.0], random.randrange)
    assert {str(one.outcome) for one in processes} == {str(processes[0].outcome)}
    assert isinstance(processes[0].outcome, MissingRanks)
    assert world.late == 0


def test_a_rank_whose_launcher_says_all_is_told_nothing_and_rank_0_warns_of_shared_devices() -> None:
    said = {"local_world_size": 2, "node_rank": 0, "num_nodes": 1, "shares": True, "host": "n0"}
    reports = [gpus(rank, "GPU-1", world_size=2, local_rank=rank, **said) for rank in range(2)]
    world, processes = simulate(reports, [0.0, 0.0], lambda _: 0)
    placed = placements(reports)[0]
    shared = "rank 0 (pid 100 on n0) and rank 1 (pid 101 on n0) share device GPU-1: each has a part of its memory"
    assert [one.result for one in processes] == [(placed, f"{shared} and time"), None]
    assert keys.PLACEMENT.of(1) not in world.texts


@pytest.mark.parametrize(
    ("pid", "said"),
    [
        (
            999,
            "rank 1 is already held by pid 101 on n0, and the group is complete; this process, pid 999 on n0, is one",
        ),
        (101, "rank 1 has joined already: this process, pid 101 on n0, did so before it replaced itself by exec"),
    ],
)
def test_a_process_that_comes_when_the_group_is_complete_is_told_who_holds_its_rank(pid: int, said: str) -> None:
    reports = [report(0, 2), report(1, 2), attrs.evolve(report(1, 2), pid=pid)]
    _, processes = simulate(reports, [0.0, 0.0, 1.0], lambda _: 0)
    assert [one.outcome for one in processes[:2]] == ["in", "in"]
    assert isinstance(processes[2].outcome, ExtraProcess)
    assert str(processes[2].outcome).startswith(said)
