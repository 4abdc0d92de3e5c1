"""What rank 0 judges from all reports, and how its verdict reaches the others."""

import json
from typing import Any

import attrs
import pytest

from colossalai_env import ColossalaiEnvError
from colossalai_env._rendezvous.protocol.verdict import (
    AGREED,
    KINDS,
    inconsistency,
    missing,
    problem,
    read_verdict,
    written,
)
from colossalai_env.errors import (
    DuplicateRank,
    InconsistentRanks,
    LostRanks,
    MissingRanks,
    NodeLevelRanks,
    PartialEndpoint,
    RankFailed,
    SharedDevice,
    SlowImport,
)
from tests.rendezvous.reports import gpus, report


def test_missing_ranks_are_named_with_neighbours_and_hosts() -> None:
    failure = missing([report(0, 8), report(1, 8), report(4, 8)], 8, 3.0)
    assert failure.ranks == (2, 3, 5, 6, 7)
    assert "rank(s) 2-3, 5-7 of 8 did not come within 3.0 s" in str(failure)
    assert "neighbours: rank 1 on n0, rank 4 on n2" in str(failure)
    assert "heard from: n0 (2), n2 (1)" in str(failure)


def test_of_many_hosts_some_are_named_and_the_others_counted() -> None:
    failure = missing([report(2 * node, 64) for node in range(11)], 64, 3.0)
    assert "n0 (1), n1 (1), n10 (1), n2 (1)" in str(failure)
    assert "n6 (1) and 3 more:" in str(failure)


def test_missing_ranks_that_still_import_torch_are_named_as_such_and_those_that_came_since_are_not() -> None:
    failure = missing([report(0), report(1)], 4, 3.0, importing={1: "pid 101 on n0", 3: "pid 103 on n1"})
    assert failure.importing == ("rank 3 (pid 103 on n1)",)
    assert "; still importing torch: rank 3 (pid 103 on n1): look at" in str(failure)


def test_what_may_keep_other_hosts_away_is_said_where_no_other_was_heard_from() -> None:
    assert str(missing([report(0), report(1)], 4, 3.0, hint="localhost is each host itself")).endswith("host itself")
    assert missing([report(0), report(2)], 4, 3.0, hint="localhost is each host itself").hint == ""


def test_a_rank_held_twice_names_both_processes() -> None:
    failure = problem([report(0), report(1), report(1, pid=7, host="x")])
    assert isinstance(failure, DuplicateRank)
    assert (failure.rank, failure.first, failure.second) == (1, "pid 101 on n0", "pid 7 on x")
    assert "pid 101 on n0 and pid 7 on x" in str(failure)


OTHER: dict[str, Any] = {"world_size": 2, "backend": "nccl", "torch": "1", "resolver": "openmpi", "library": "0.0.1"}
"""Another value than in `report`, for each field that must agree."""


@pytest.mark.parametrize("field", AGREED)
def test_an_inconsistency_names_the_odd_rank_its_host_and_both_values(field: str) -> None:
    odd = attrs.evolve(report(2), **{field: OTHER[field]})
    failure = inconsistency([report(0), report(1), odd, report(3)])
    assert isinstance(failure, InconsistentRanks)
    assert failure.subject == AGREED[field]
    assert failure.odd == (("rank 2 (pid 102 on n1)", repr(OTHER[field])),)
    assert failure.usual == repr(getattr(report(0), field))
    assert f"rank 2 (pid 102 on n1) says {OTHER[field]!r}; rank(s) 0-1, 3 say {failure.usual}: " in str(failure)


def test_ranks_to_which_rank_0s_place_is_given_and_those_to_which_it_is_not_are_named() -> None:
    given = "n1:29500, from MASTER_ADDR and MASTER_PORT"
    failure = problem([report(3), report(2, given=given), report(0), report(1, given="n1:29500, from argument host")])
    assert isinstance(failure, PartialEndpoint)
    assert (failure.given, failure.others) == (((1, 2),), ((0, 0), (3, 3)))
    assert (failure.process, failure.endpoint) == ("rank 2 (pid 102 on n1)", given)


def test_ranks_may_be_given_one_place_by_several_names() -> None:
    assert problem([report(rank, given=f"n{rank}:29500, from MASTER_ADDR") for rank in range(4)]) is None


def test_where_there_is_no_most_rank_0_is_right() -> None:
    failure = inconsistency([report(1, backend="nccl"), report(0)])
    assert isinstance(failure, InconsistentRanks)
    assert failure.odd == (("rank 1 (pid 101 on n0)", "'nccl'"),)


def test_ranks_that_see_different_devices_are_told_so_and_not_that_they_disagree_on_a_backend() -> None:
    blind = report(2, backend="gloo", choice="CUDA_VISIBLE_DEVICES is ''")
    usual = [gpus(rank, f"GPU-{rank}", choice="CUDA_VISIBLE_DEVICES is '0'") for rank in (0, 1, 3)]
    sentence = str(problem([*usual, blind]))
    assert sentence.startswith(
        "the ranks see different devices, and so they disagree on the backend: rank 2 (pid 102 on n1) "
    )
    assert "sees no accelerator (CUDA_VISIBLE_DEVICES is '') and takes gloo; rank(s) 0-1, 3 take nccl" in sentence
    assert "rank 0 (pid 100 on n0) sees 1 cuda device(s) (CUDA_VISIBLE_DEVICES is '0')" in sentence
    alike = str(problem([usual[0], attrs.evolve(usual[1], backend="gloo")]))
    assert alike.startswith("the ranks disagree on the backend: rank 1 (pid 101 on n0) says 'gloo'")


def test_an_error_of_one_rank_is_said_in_its_own_words() -> None:
    failure = problem([report(0), report(2, error="torch: LOCAL_RANK is 'x'")])
    assert isinstance(failure, RankFailed)
    assert str(failure) == "rank 2 (pid 102 on n1) failed: torch: LOCAL_RANK is 'x'"


def test_ranks_that_gave_up_though_all_answered_waited_for_rank_0() -> None:
    gave_up = report(1, 2, error="no verdict", gave_up=True)
    assert problem([report(1, 2), gave_up], 3.0) is None, "rank 0 may be missing"
    failure = problem([report(0, 2), report(1, 2), gave_up], 3.0)
    assert isinstance(failure, LostRanks)
    assert "rank 0 gave no verdict within 3.0 s, though all ranks answered" in str(failure)


def test_whole_reports_of_one_mind_have_no_problem() -> None:
    assert problem([report(rank) for rank in range(4)]) is None


VERDICTS: list[ColossalaiEnvError] = [
    DuplicateRank(1, "pid 1 on a", "pid 2 on b"),
    InconsistentRanks("backend", (("rank 1", "'nccl'"),), 2, ((0, 0), (2, 3)), "'gloo'", ("sees one", "sees none")),
    LostRanks(("rank 1", "rank 2"), "died", "because"),
    MissingRanks(((1, 2), (4, 4)), 8, 2.5, ((0, "a"),), (("a", 1),), 3, ("rank 5",), ("rank 6",), "a hint"),
    NodeLevelRanks("rank 1", 8),
    PartialEndpoint("rank 1", "n1:29500, from MASTER_ADDR", ((1, 2),), ((0, 0), (3, 3))),
    RankFailed("no GPU\nat all", "rank 1"),
    SharedDevice("rank 1", "rank 2", "device GPU-1", "nccl"),
]


def test_each_kind_of_verdict_has_an_example_here() -> None:
    assert {type(one).__name__ for one in VERDICTS} == KINDS.keys()


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda one: type(one).__name__)
def test_a_verdict_is_the_same_error_with_the_same_fields_on_every_rank(verdict: ColossalaiEnvError) -> None:
    assert all(value != type(value)() for value in verdict.values().values()), "a default would not show"
    again = read_verdict(written(verdict))
    assert type(again) is type(verdict)
    assert again.values() == verdict.values()
    assert str(again) == str(verdict)


def test_no_other_error_is_a_verdict() -> None:
    class Mine(RankFailed):
        pass

    for failure in (SlowImport(2.0, 1, "a"), Mine("ill", "rank 1")):
        with pytest.raises(AssertionError, match="is no verdict"):
            written(failure)


@pytest.mark.parametrize(
    "posted",
    [
        {"kind": "Mutiny", "fields": {}},
        {"kind": "SystemExit", "fields": {"code": 3}},
        {"kind": "SlowImport", "fields": {"seconds": 2.0, "rank": 1, "here": "a"}},
        {"kind": "RankFailed", "fields": {"reason": "ill", "mood": "fine"}},
        {"kind": "RankFailed", "fields": {}},
        {"kind": "RankFailed"},
        {"sentence": "rank 1 failed"},
    ],
)
def test_a_verdict_that_this_version_does_not_know_is_an_error_that_quotes_it(posted: dict[str, Any]) -> None:
    failure = read_verdict(json.dumps(posted))
    assert isinstance(failure, RankFailed)
    assert "a verdict that this version of colossalai-env cannot read" in str(failure)
    assert json.dumps(posted) in str(failure)
