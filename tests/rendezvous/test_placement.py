"""Which node, local rank and device each rank has, and which devices two ranks cannot share."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env._rendezvous.protocol.placement import (
    Placement,
    node_level,
    placements,
    sharing,
)
from colossalai_env._rendezvous.protocol.report import RankReport
from colossalai_env._rendezvous.protocol.verdict import problem
from colossalai_env.errors import NodeLevelRanks, RankFailed, SharedDevice
from tests.rendezvous.reports import gpus, report


def test_unknown_numbers_come_from_hosts_and_those_that_a_launcher_says_stay() -> None:
    found = placements([report(0), report(2), report(1), report(3, local_rank=5)])
    assert {one.device for one in found.values()} == {None}
    assert found[1] == Placement(local_rank=1, local_world_size=2, node_rank=0, num_nodes=2)
    assert found[2] == Placement(local_rank=0, local_world_size=6, node_rank=1, num_nodes=2)
    assert found[3] == Placement(local_rank=5, local_world_size=6, node_rank=1, num_nodes=2)


def test_nodes_that_a_launcher_counts_on_one_host_are_taken_as_it_says_or_else_the_hosts_are_counted() -> None:
    """Two containers of one name, or a node-level launcher that is tried on a laptop."""
    found = placements([report(rank, 2, node_rank=rank, num_nodes=2) for rank in (0, 1)])
    assert [found[rank] for rank in (0, 1)] == [Placement(0, 1, rank, 2) for rank in (0, 1)]
    counted = placements([report(rank, 2, num_nodes=2) for rank in (0, 1)])
    assert counted[1] == Placement(local_rank=1, local_world_size=2, node_rank=0, num_nodes=1)
    wider = placements([report(rank, num_nodes=1) for rank in range(4)])
    assert wider[3] == Placement(local_rank=1, local_world_size=2, node_rank=1, num_nodes=2)


def nodes_of(reports: list[RankReport]) -> list[tuple[int, int]]:
    """Return each rank's node and the number of nodes, in order of rank."""
    return [(one.node_rank, one.num_nodes) for _, one in sorted(placements(reports).items())]


def test_two_ranks_of_one_local_rank_are_on_two_nodes_though_on_one_host() -> None:
    """As when nodes are played on one machine."""
    cyclic = [report(rank, host="n0", local_rank=rank // 2, local_world_size=2) for rank in range(4)]
    assert nodes_of(cyclic) == [(0, 2), (1, 2)] * 2
    by_hand = [report(rank, 2, host="n0", local_rank=0) for rank in range(2)]
    assert placements(by_hand) == {0: Placement(0, 1, 0, 2), 1: Placement(0, 1, 1, 2)}
    uneven = [
        report(rank, 3, host="n0", local_rank=local, local_world_size=size)
        for rank, local, size in ((0, 0, 1), (1, 0, 2), (2, 1, 2))
    ]
    assert [node for node, _ in nodes_of(uneven)] == [0, 1, 1]


def devices_of(reports: list[RankReport]) -> dict[int, int | None]:
    """Return by rank the index of the device that it takes."""
    return {rank: one.device for rank, one in placements(reports).items()}


def test_ranks_whose_gpus_no_other_sees_take_their_first_and_others_the_local_ranks() -> None:
    assert devices_of([gpus(0, "a", "b", local_rank=0), gpus(1, "c", "d", local_rank=1)]) == {0: 0, 1: 0}
    assert devices_of([gpus(0, "a", "b", local_rank=0), gpus(1, "a", "b", local_rank=1)]) == {0: 0, 1: 1}
    assert devices_of([gpus(0, "a", "b"), gpus(1, "a", "b"), report(2)]) == {0: 0, 1: 1, 2: None}
    asked = [gpus(0, "a", "b", local_rank=0, index=1), gpus(1, "a", "b", local_rank=1, index=0)]
    assert devices_of(asked) == {0: 1, 1: 0}
    assert devices_of([gpus(0, "a", "b", local_rank=0), gpus(1, "b", "c", local_rank=1)]) == {0: 0, 1: 1}


def test_a_device_held_twice_names_both_and_every_way_out() -> None:
    failure = problem([gpus(0, "GPU-1"), gpus(1, "GPU-1")])
    assert isinstance(failure, SharedDevice)
    assert failure.device == "device GPU-1"
    assert "rank 0 (pid 100 on n0) and rank 1 (pid 101 on n0) both have device GPU-1, which nccl cannot" in str(failure)
    for way in ("one process per device", "--gpus-per-task=1", "LOCAL_RANK", "backend='gloo'", "device='cpu'"):
        assert way in str(failure)


def test_a_device_is_shared_where_both_backends_can_and_a_warning_says_so() -> None:
    shared = [gpus(0, "GPU-1", shares=True), gpus(1, "GPU-1", shares=True), gpus(2, "GPU-1", shares=True)]
    assert problem(shared) is None
    assert str(sharing(shared)).startswith(
        "rank 0 (pid 100 on n0) and rank 1 (pid 101 on n0) share device GPU-1 (1 mor"
    )
    assert sharing([gpus(0, "GPU-1"), gpus(1, "GPU-2")]) is None
    assert isinstance(problem([shared[0], gpus(1, "GPU-1")]), SharedDevice)


def test_one_local_rank_for_two_is_no_clash_where_uuids_tell_devices_apart_or_there_is_none() -> None:
    assert problem([report(0, local_rank=0), report(1, local_rank=0)]) is None
    assert problem([gpus(0, "GPU-1", local_rank=0), gpus(1, "GPU-2", local_rank=0)]) is None


def test_devices_without_uuids_are_told_apart_by_node_and_local_rank() -> None:
    unnamed: dict[str, Any] = {"kind": "hpu", "visible": 1, "index": 0}
    two = [report(0, local_rank=0, **unnamed), report(1, local_rank=0, **unnamed)]
    assert "both have local rank 0" in str(problem(two))
    agents = [attrs.evolve(one, node_rank=node) for node, one in enumerate(two)]
    assert problem(agents) is None
    assert problem([two[0], report(2, local_rank=0, **unnamed)]) is None


def test_a_local_rank_beyond_the_devices_that_others_see_too_is_an_error_with_the_numbers() -> None:
    failure = problem([gpus(rank, "a", "b", local_rank=rank) for rank in range(3)])
    assert isinstance(failure, RankFailed)
    assert failure.process == "rank 2 (pid 102 on n1)"
    assert "failed: local rank 2 needs device 2, but 2 cuda device(s) are visible" in str(failure)
    assert problem([gpus(2, "a", "b", local_rank=2), gpus(3, "c", "d", local_rank=3)]) is None


@given(st.data(), st.integers(2, 5))
def test_two_ranks_never_get_one_device_in_silence(data: st.DataObject, size: int) -> None:
    """Whatever tasks see: each has a device of its own, or the launch ends."""
    sights = st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True)
    ranks = [gpus(rank, *data.draw(sights), local_rank=rank, host="n0") for rank in range(size)]
    if problem(ranks) is None:
        placed = placements(ranks)
        taken = [one.devices[placed[one.rank].device or 0] for one in ranks]
        assert len(set(taken)) == size


def test_ranks_alone_on_nodes_of_many_accelerators_are_refused() -> None:
    failure = node_level([report(0, visible=8), report(2, visible=8)])
    assert isinstance(failure, NodeLevelRanks)
    assert (failure.process, failure.visible) == ("rank 0 (pid 100 on n0)", 8)
    assert node_level([report(0, visible=8, local_rank=0), report(2, visible=8, local_rank=0)]) is None
    assert node_level([report(0, visible=8), report(1, visible=8)]) is None
    assert node_level([report(0, 1, visible=8)]) is None


@pytest.mark.parametrize("left_over", [1, 3])
def test_a_local_rank_that_was_set_once_for_all_processes_is_refused_with_its_variable(left_over: int) -> None:
    same = [report(rank, local_rank=left_over, world_size=2) for rank in range(2)]
    told = str(problem(same))
    assert f"local rank {left_over} cannot be: its node would have {left_over + 1} ranks" in told
    assert "in a world of 2: set LOCAL_RANK in each process, from 0 on each node, or unset it" in told
    assert problem(same[:1]) is None
    assert problem([report(rank, local_rank=rank, world_size=2) for rank in range(2)]) is None
