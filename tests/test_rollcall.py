"""The roll call: what rank 0 judges, and whole worlds in memory that must not end in two verdicts."""

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossalai_env import (
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
from colossalai_env.reply import (
    Place,
    Reply,
    disagreement,
    missing,
    named,
    node_level,
    places,
    problem,
    ranges,
    replies_in,
    sharing,
)
from colossalai_env.rollcall import Add, Alive, Append, Await, Pause, Post, Protocol, Read, Watch, leader, member


def reply(rank: int, world_size: int = 4, **said: Any) -> Reply:
    fields: dict[str, Any] = {"host": f"n{rank // 2}", "boot": "b", "pid": 100 + rank}
    fields |= {"backend": "gloo", "torch": "2", "resolver": "slurm"}
    return Reply(rank=rank, world_size=world_size, **(fields | said))


@given(st.sets(st.integers(0, 40)))
def test_ranks_are_written_as_ranges(ranks: set[int]) -> None:
    runs = [item.partition("-") for item in ranges(ranks).split(", ") if item]
    assert {rank for low, _, high in runs for rank in range(int(low), int(high or low) + 1)} == ranks


def test_a_reply_survives_the_log_and_is_short() -> None:
    one = reply(3, error="no GPU\nat all", local_rank=1)
    assert replies_in(one.line() + reply(0).line()) == [one, reply(0)]
    assert len(one.line()) < 400


def test_missing_ranks_are_named_with_neighbours_and_hosts() -> None:
    told = str(missing([reply(0, 8), reply(1, 8), reply(4, 8)], 8, 3.0))
    assert "rank(s) 2-3, 5-7 of 8 did not come within 3.0 s" in told
    assert "neighbours: rank 1 on n0, rank 4 on n2" in told
    assert "heard from: n0 (2), n2 (1)" in told


def test_a_few_processes_are_named_in_full_and_more_by_rank() -> None:
    assert named([reply(3)]) == "rank 3 (pid 103 on n1)"
    told = named([reply(rank, 64) for rank in range(1, 64)])
    assert told.endswith("rank 4 (pid 104 on n2) and 59 more (rank(s) 5-63)")


def test_a_rank_held_twice_names_both_processes() -> None:
    told = problem([reply(0), reply(1), reply(1, pid=7, host="x")])
    assert isinstance(told, DuplicateRank)
    assert "pid 101 on n0 and pid 7 on x" in str(told)


@pytest.mark.parametrize(
    ("field", "value"), [("world_size", 2), ("backend", "nccl"), ("torch", "1"), ("resolver", "openmpi")]
)
def test_a_disagreement_names_the_odd_rank_its_host_and_both_values(field: str, value: Any) -> None:
    told = disagreement([reply(0), reply(1), attrs.evolve(reply(2), **{field: value}), reply(3)])
    assert isinstance(told, Disagreement)
    assert "rank 2 (pid 102 on n1)" in str(told)
    assert repr(value) in str(told)
    assert repr(getattr(reply(0), field)) in str(told)


def gpus(rank: int, *devices: str, **said: Any) -> Reply:
    """Return the reply of a rank that sees these GPUs, the only one of which is its."""
    only = {"index": 0} if len(devices) == 1 else {}
    seen: dict[str, Any] = {"kind": "cuda", "visible": len(devices), "devices": devices, "backend": "nccl", **only}
    return reply(rank, **(seen | said))


def test_a_device_held_twice_names_both_and_every_way_out() -> None:
    told = problem([gpus(0, "GPU-1"), gpus(1, "GPU-1")])
    assert isinstance(told, SharedDevice)
    assert "rank 0 (pid 100 on n0) and rank 1 (pid 101 on n0) both have device GPU-1, which nccl cannot" in str(told)
    for way in ("one process per device", "--gpus-per-task=1", "LOCAL_RANK", "backend='gloo'", "device='cpu'"):
        assert way in str(told)


def test_a_device_is_shared_where_both_backends_can_and_that_is_said() -> None:
    shared = [gpus(0, "GPU-1", shares=True), gpus(1, "GPU-1", shares=True), gpus(2, "GPU-1", shares=True)]
    assert problem(shared) is None
    assert str(sharing(shared)).startswith(
        "rank 0 (pid 100 on n0) and rank 1 (pid 101 on n0) share device GPU-1 (1 mor"
    )
    assert sharing([gpus(0, "GPU-1"), gpus(1, "GPU-2")]) is None
    assert isinstance(problem([shared[0], gpus(1, "GPU-1")]), SharedDevice)


def test_one_local_rank_for_two_is_no_clash_where_uuids_tell_devices_apart_or_there_is_none() -> None:
    assert problem([reply(0, local_rank=0), reply(1, local_rank=0)]) is None
    assert problem([gpus(0, "GPU-1", local_rank=0), gpus(1, "GPU-2", local_rank=0)]) is None


def test_devices_without_uuids_are_told_apart_by_node_and_local_rank() -> None:
    unnamed: dict[str, Any] = {"kind": "hpu", "visible": 1, "index": 0}
    two = [reply(0, local_rank=0, **unnamed), reply(1, local_rank=0, **unnamed)]
    assert "both have local rank 0" in str(problem(two))
    agents = [attrs.evolve(one, node_rank=node) for node, one in enumerate(two)]
    assert problem(agents) is None
    assert problem([two[0], reply(2, local_rank=0, **unnamed)]) is None


def test_ranks_whose_gpus_nobody_else_sees_take_their_first_and_others_the_local_ranks() -> None:
    own = [gpus(0, "a", "b", local_rank=0), gpus(1, "c", "d", local_rank=1)]
    assert {rank: place.device for rank, place in places(own).items()} == {0: 0, 1: 0}
    seen = [gpus(0, "a", "b", local_rank=0), gpus(1, "a", "b", local_rank=1)]
    assert {rank: place.device for rank, place in places(seen).items()} == {0: 0, 1: 1}
    unsaid = [gpus(0, "a", "b"), gpus(1, "a", "b"), reply(2)]
    assert {rank: place.device for rank, place in places(unsaid).items()} == {0: 0, 1: 1, 2: None}
    asked = [gpus(0, "a", "b", local_rank=0, index=1), gpus(1, "a", "b", local_rank=1, index=0)]
    assert {rank: place.device for rank, place in places(asked).items()} == {0: 1, 1: 0}
    half = [gpus(0, "a", "b", local_rank=0), gpus(1, "b", "c", local_rank=1)]
    assert {rank: place.device for rank, place in places(half).items()} == {0: 0, 1: 1}


def test_a_local_rank_beyond_the_devices_that_others_see_too_is_an_error_with_the_numbers() -> None:
    few = [gpus(rank, "a", "b", local_rank=rank) for rank in range(3)]
    told = problem(few)
    assert isinstance(told, RankFailed)
    assert "rank 2 (pid 102 on n1) failed: local rank 2 needs device 2, but 2 cuda device(s) are visible" in str(told)
    assert problem([gpus(2, "a", "b", local_rank=2), gpus(3, "c", "d", local_rank=3)]) is None


@given(st.data(), st.integers(2, 5))
def test_two_ranks_never_get_one_device_in_silence(data: st.DataObject, size: int) -> None:
    """Whatever tasks see: each has a device of its own, or the launch ends."""
    sights = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)
    ranks = [gpus(rank, *data.draw(sights), local_rank=rank, host="n0") for rank in range(size)]
    if problem(ranks) is None:
        placed = places(ranks)
        taken = [one.devices[placed[one.rank].device or 0] for one in ranks]
        assert len(set(taken)) == size


def test_ranks_that_see_different_devices_are_told_so_and_not_that_they_disagree_on_a_backend() -> None:
    blind = reply(2, backend="gloo", choice="CUDA_VISIBLE_DEVICES is ''")
    usual = [gpus(rank, f"GPU-{rank}", choice="CUDA_VISIBLE_DEVICES is '0'") for rank in (0, 1, 3)]
    told = str(problem([*usual, blind]))
    assert told.startswith(
        "the ranks see different devices, and so they disagree on the backend: rank 2 (pid 102 on n1) "
    )
    assert "sees no accelerator (CUDA_VISIBLE_DEVICES is '') and takes gloo; rank(s) 0-1, 3 take nccl, since" in told
    assert "rank 0 (pid 100 on n0) sees 1 cuda device(s) (CUDA_VISIBLE_DEVICES is '0')" in told
    alike = str(problem([usual[0], attrs.evolve(usual[1], backend="gloo")]))
    assert alike.startswith("the ranks disagree on the backend: rank 1 (pid 101 on n0) says 'gloo'")


def test_an_error_of_one_rank_is_told_in_its_own_words() -> None:
    told = problem([reply(0), reply(2, error="torch: LOCAL_RANK is 'x'")])
    assert isinstance(told, RankFailed)
    assert str(told) == "rank 2 (pid 102 on n1) failed: torch: LOCAL_RANK is 'x'"


def test_unsaid_numbers_come_from_hosts_and_said_ones_stay() -> None:
    found = places([reply(0), reply(2), reply(1), reply(3, local_rank=5)])
    assert {place.device for place in found.values()} == {None}
    assert found[1] == Place(local_rank=1, local_world_size=2, node_rank=0, num_nodes=2)
    assert found[2] == Place(local_rank=0, local_world_size=6, node_rank=1, num_nodes=2)
    assert found[3] == Place(local_rank=5, local_world_size=6, node_rank=1, num_nodes=2)


def test_nodes_that_a_launcher_counts_on_one_host_are_taken_as_it_says_or_else_the_hosts_are_counted() -> None:
    """Two containers of one name, or a node-level launcher that is tried on a laptop."""
    found = places([reply(rank, 2, node_rank=rank, num_nodes=2) for rank in (0, 1)])
    assert [found[rank] for rank in (0, 1)] == [Place(0, 1, rank, 2) for rank in (0, 1)]
    counted = places([reply(rank, 2, num_nodes=2) for rank in (0, 1)])
    assert counted[1] == Place(local_rank=1, local_world_size=2, node_rank=0, num_nodes=1)
    wider = places([reply(rank, num_nodes=1) for rank in range(4)])
    assert wider[3] == Place(local_rank=1, local_world_size=2, node_rank=1, num_nodes=2)


def test_two_ranks_of_one_local_rank_are_on_two_nodes_though_on_one_host() -> None:
    """As when nodes are played on one machine."""
    cyclic = [reply(rank, host="n0", local_rank=rank // 2, local_world_size=2) for rank in range(4)]
    assert [(place.node_rank, place.num_nodes) for _, place in sorted(places(cyclic).items())] == [(0, 2), (1, 2)] * 2
    by_hand = [reply(rank, 2, host="n0", local_rank=0) for rank in range(2)]
    assert places(by_hand) == {0: Place(0, 1, 0, 2), 1: Place(0, 1, 1, 2)}
    uneven = [
        reply(rank, 3, host="n0", local_rank=local, local_world_size=size)
        for rank, local, size in ((0, 0, 1), (1, 0, 2), (2, 1, 2))
    ]
    assert [place.node_rank for _, place in sorted(places(uneven).items())] == [0, 1, 1]


def test_ranks_alone_on_nodes_of_many_accelerators_are_refused() -> None:
    assert isinstance(node_level([reply(0, visible=8), reply(2, visible=8)]), NodeLevelRanks)
    assert node_level([reply(0, visible=8, local_rank=0), reply(2, visible=8, local_rank=0)]) is None
    assert node_level([reply(0, visible=8), reply(1, visible=8)]) is None


@attrs.define
class World:
    """An in-memory store, a clock, and the protocols of many processes, stepped in any order."""

    now: float = 0.0
    keys: dict[str, str] = attrs.field(factory=dict[str, str])
    counts: dict[str, int] = attrs.field(factory=dict[str, int])
    running: "list[Process]" = attrs.field(factory=list)  # pyright: ignore[reportUnknownVariableType]
    requests: int = 0
    late: int = 0
    """Requests that were made when rank 0 had ended, and its store with it."""

    def clock(self) -> float:
        return self.now

    def perform(self, request: object) -> tuple[bool, Any]:  # noqa: PLR0911
        """Return whether the request is answered now, and its answer."""
        match request:
            case Append(key, text):
                self.keys[key] = self.keys.get(key, "") + text
                return True, None
            case Add(key, amount):
                self.counts[key] = self.counts.get(key, 0) + amount
                return True, self.counts[key]
            case Post(entries):
                for key in ("verdict", "go"):
                    before = self.keys.get(key, "ok")
                    assert key not in entries or before.startswith("ok") or before == entries[key], "two verdicts"
                self.keys.update(entries)
                return True, None
            case Read(key, _, _):
                return key in self.keys, self.keys.get(key)
            case Await(keys, _):
                return all(key in self.keys for key in keys), True
            case Alive(_):
                return True, any(process.leads and not process.dead for process in self.running)
            case Pause(_):
                return False, None
            case _:
                raise AssertionError(request)


@attrs.define(eq=False)
class Process:
    """One process: its protocol, what it waits for, and how it ended."""

    protocol: Protocol[Place | None]
    leads: bool
    arrives: float
    request: Any = None
    until: float | None = None
    outcome: object = None
    dead: bool = False
    ended: float = 0.0

    def step(self, world: World) -> bool:
        """Make one request, if it can be answered; tell whether anything happened."""
        if self.outcome is not None or self.dead or world.now < self.arrives:
            return False
        if self.request is None:
            self._send(world, None)
            return True
        world.late += any(one.leads and one.outcome is not None for one in world.running)
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
        try:
            self.request = self.protocol.send(value)
        except StopIteration:
            self.outcome, self.ended = "in", world.now
        except (RollCallFailed, Surplus) as failure:
            self.outcome, self.ended = failure, world.now


T = 5.0


def simulate(
    replies: list[Reply], arrivals: list[float], choose: Callable[[int], int], deaths: dict[int, float] | None = None
) -> tuple[World, list[Process]]:
    """Run one process for each reply until all have ended; `choose` picks who steps next."""
    world = World()
    for one, arrives in zip(replies, arrivals, strict=True):
        watch = Watch(world.clock, arrives, T)
        protocol = (
            leader(one, "farewells", watch, lambda _: None) if one.rank == 0 else member(one, "pid 100 on n0", watch)
        )
        world.running.append(Process(protocol, one.rank == 0, arrives))
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


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Reply], list[float], dict[int, float]]:
    size = draw(st.integers(2, 6))
    replies = [reply(rank, size) for rank in range(size)]
    for _ in range(draw(st.integers(0, 2))):
        other = draw(st.integers(1, size - 1))
        kind = draw(st.sampled_from(["missing", "twice", "backend", "error", "size"]))
        one = next((item for item in replies if item.rank == other), None)
        if one is None:
            continue
        if kind == "missing":
            replies = [item for item in replies if item.rank != other]
        elif kind == "twice":
            replies.append(attrs.evolve(one, pid=999))
        else:
            changes: dict[str, dict[str, Any]] = {
                "backend": {"backend": "nccl"},
                "error": {"error": "no GPU"},
                "size": {"world_size": size + 1},
            }
            replies[replies.index(one)] = attrs.evolve(one, **changes[kind])
    arrivals = [draw(st.sampled_from([0.0, 0.01, 0.3, 1.0, 4.0])) for _ in replies]
    deaths = draw(st.dictionaries(st.integers(0, len(replies) - 1), st.floats(0, 4), max_size=1))
    return replies, arrivals, deaths


@settings(max_examples=300)
@given(worlds(), st.randoms(use_true_random=False))
def test_no_world_ends_in_two_verdicts_nor_late(
    drawn: tuple[list[Reply], list[float], dict[int, float]], random: Any
) -> None:
    replies, arrivals, deaths = drawn
    world, processes = simulate(replies, arrivals, random.randrange, deaths)
    alive = [one for one in processes if not one.dead]
    assert all(one.outcome is not None for one in alive), "somebody waits for ever"
    for one in alive:
        assert one.ended - one.arrives <= T + 6.0
    entered = [item for item, one in zip(replies, processes, strict=True) if one.outcome == "in"]
    if entered:
        assert len({item.rank for item in entered}) == len(entered)
        in_before_death = len(entered) + len([one for one in processes if one.dead])
        assert in_before_death >= entered[0].world_size, "some are in and some are not"
        others = [one.outcome for one in alive if one.outcome != "in"]
        assert all(isinstance(outcome, (Surplus, LostRanks)) for outcome in others)
    assert world.keys.get("go", "ok") == "ok" or json.loads(world.keys["go"])["sentence"]


@given(st.integers(2, 9), st.randoms(use_true_random=False))
def test_a_whole_world_gets_in_with_a_fixed_number_of_requests(size: int, random: Any) -> None:
    replies = [reply(rank, size) for rank in range(size)]
    world, processes = simulate(replies, [0.0] * size, random.randrange)
    assert [one.outcome for one in processes] == ["in"] * size
    assert world.requests <= 12 * size


def test_a_missing_rank_is_told_to_all_at_the_deadline_together_with_one_that_died_meanwhile() -> None:
    replies = [reply(rank, 5) for rank in (0, 1, 2, 4)]
    _, processes = simulate(replies, [0.0] * 4, lambda count: count - 1, deaths={2: 1.0})
    told = [one.outcome for one in processes if not one.dead]
    assert {str(outcome) for outcome in told} == {str(told[0])}
    assert isinstance(told[0], MissingRanks)
    assert "rank(s) 3 of 5" in str(told[0])
    assert "answered and then lost: rank 2 (pid 102 on n1)" in str(told[0])
    assert all(one.ended <= T + 1.5 for one in processes)


@given(st.randoms(use_true_random=False))
def test_rank_0_serves_until_ranks_that_give_up_at_one_moment_have_been_told(random: Any) -> None:
    replies = [reply(rank, 5) for rank in (0, 1, 2, 4)]
    world, processes = simulate(replies, [2.0, 0.0, 0.0, 0.0], random.randrange)
    assert {str(one.outcome) for one in processes} == {str(processes[0].outcome)}
    assert isinstance(processes[0].outcome, MissingRanks)
    assert world.late == 0
