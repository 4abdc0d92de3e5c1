"""What a process reports of itself: how it is written, read and named, also by another version of the library."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env._rendezvous.protocol.report import ReportLog, limited, named, ranges_of, read_reports, runs
from colossalai_env._rendezvous.protocol.requests import VERSION
from colossalai_env._rendezvous.protocol.verdict import problem
from colossalai_env._version import VERSION as LIBRARY
from colossalai_env.errors import RankFailed
from tests.rendezvous.reports import report


@given(st.sets(st.integers(0, 40)))
def test_ranks_are_written_as_ranges(ranks: set[int]) -> None:
    items = [item.partition("-") for item in ranges_of(ranks).split(", ") if item]
    assert {rank for low, _, high in items for rank in range(int(low), int(high or low) + 1)} == ranks


@given(st.sets(st.integers(0, 40)))
def test_ranks_are_gathered_in_as_few_runs_as_can_be(ranks: set[int]) -> None:
    found = runs(ranks)
    assert [rank for low, high in found for rank in range(low, high + 1)] == sorted(ranks)
    assert all(low > high + 1 for (_, high), (low, _) in pairwise(found))


def test_a_report_survives_the_log_and_is_short() -> None:
    one = report(3, error="no GPU\nat all", local_rank=1, devices=("GPU-1", "GPU-2"))
    assert read_reports(one.line() + report(0).line()) == [one, report(0)]
    assert len(report(3, error="no GPU\nat all", local_rank=1).line()) < 400


def test_an_empty_log_has_no_reports() -> None:
    assert read_reports(None) == read_reports("") == []


def test_a_log_that_grows_is_read_on_where_it_was_left() -> None:
    lines = [report(rank).line() for rank in range(3)]
    log = ReportLog()
    assert log.read(None) == []
    assert log.read(lines[0]) == [report(0)]
    assert log.read("".join(lines)) == log.read("".join(lines)) == [report(rank) for rank in range(3)]


def test_a_few_processes_are_named_in_full_and_more_by_rank() -> None:
    assert named([report(3)]) == ("rank 3 (pid 103 on n1)",)
    several = named([report(rank, 64) for rank in range(1, 64)])
    assert several[-2:] == ("rank 4 (pid 104 on n2)", "59 more (rank(s) 5-63)")
    assert len(several) == 5
    assert limited("abcde") == ("a", "b", "c", "d", "1 more")


@pytest.mark.parametrize("unknown", [{}, {"local_rank": None}, {"index": None, "visible": 2}])
def test_a_report_without_a_number_or_a_device_of_its_own_is_incomplete(unknown: dict[str, Any]) -> None:
    full = {"local_rank": 0, "local_world_size": 1, "node_rank": 0, "num_nodes": 1}
    assert report(0, **(full | unknown)).incomplete == bool(unknown)


def of_another_version(**changes: Any) -> str:
    """Return a line of the log as a library of another version may write it: less is there, and more."""
    line = {"rank": 3, "host": "n7", "pid": 9, "protocol": VERSION + 1, "library": "9.9", "mood": "fine"}
    return json.dumps({**line, **changes}) + "\n"


def test_a_report_of_another_version_is_refused_with_both_versions_and_its_host() -> None:
    found = read_reports(report(0).line() + of_another_version())
    failure = problem(found)
    assert isinstance(failure, RankFailed)
    assert failure.process == "rank 3 (pid 9 on n7)"
    assert str(failure) == (
        f"rank 3 (pid 9 on n7) failed: it has colossalai-env 9.9, whose roll call has version {VERSION + 1}, and "
        f"rank 0 has colossalai-env {LIBRARY}, whose roll call has version {VERSION}: install one version on all nodes"
    )


def test_an_error_that_another_version_reports_is_said_in_its_own_words() -> None:
    (one,) = read_reports(of_another_version(error="no GPU"))
    assert one.error == "no GPU"


def test_a_report_from_before_there_were_versions_is_refused_too() -> None:
    line = json.loads(report(3).line())
    del line["protocol"], line["library"]
    (one,) = read_reports(json.dumps(line))
    assert "colossalai-env ?, whose roll call has version 0" in str(one.error)


def test_a_field_that_this_version_does_not_know_is_left_out() -> None:
    line = {**json.loads(report(3).line()), "mood": "fine"}
    assert read_reports(json.dumps(line)) == [report(3)]
