"""Every fault is played with real processes, and what was promised of it is kept."""

import os
from collections import Counter
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from typing import cast

import pytest

from tests.pace import RecentPace

from .faults import FAULTS
from .model import Fault, Rank
from .runner import Record, players
from .verdict import problems, told_all

pytestmark = pytest.mark.faults

CAP = 18.0
"""Seconds after which a fault is ended; the longest timeout of a rank and 2 s more are less."""

COLD = 60.0
"""Seconds more for ranks that import torch first, which a busy machine makes long."""

AT_ONCE = int(os.environ.get("FAULTS_AT_ONCE", "4"))
"""Faults that are played together: most of the time they wait."""


@pytest.fixture(scope="session")
def records(request: pytest.FixtureRequest) -> Generator[dict[str, Future[Record]]]:
    """Play all faults that were selected, a few at once, from one warm fork server."""
    selected = {item.name for item in request.session.items}
    chosen = [fault for fault in FAULTS if f"{test_promises_are_kept.__name__}[{_id(fault)}]" in selected]
    with ExitStack() as stack:
        with first():
            play = stack.enter_context(players(AT_ONCE, RecentPace()))
            played = {fault.name: play(fault, "colossalai_env", _cap(fault)) for fault in chosen}
        yield played


@contextmanager
def first() -> Generator[None]:
    """Let what this thread starts now go before the tests of other processes, if it may: there seconds count."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, usual - 10)
        yield
    finally:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, usual)


def _cap(fault: Fault) -> float:
    return CAP + (COLD if any(rank.cold for rank in fault.ranks) else 0.0)


def _id(fault: Fault) -> str:
    return fault.name.replace(" ", "-")


@pytest.mark.parametrize("fault", FAULTS, ids=_id)
def test_promises_are_kept(fault: Fault, records: dict[str, Future[Record]]) -> None:
    """Every rank says what is promised, in the time that is promised, and nothing is left behind."""
    record = records[fault.name].result()
    found = problems(record)
    assert not found, "\n".join([fault.story, *found, told_all(record)])


@pytest.mark.usefixtures("records")
def test_the_faults_are_played_in_one_process(request: pytest.FixtureRequest) -> None:
    """Where several processes run tests, xdist adds a test's group to its name."""
    item = cast("pytest.Item", request.node)  # pyright: ignore[reportUnknownMemberType]
    assert item.nodeid.endswith("@records") or "PYTEST_XDIST_WORKER" not in os.environ


def test_every_promise_has_several_faults() -> None:
    """Promise 15 is the benchmarks' business; each other stands in the table at least twice, 40 faults in all."""
    promised = Counter(promise for fault in FAULTS for promise in fault.promises)
    assert all(promised[promise] >= 2 for promise in (*range(1, 15), 16)), promised
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40


@pytest.mark.parametrize("fault", FAULTS, ids=_id)
def test_every_rank_is_held_to_something(fault: Fault) -> None:
    """No rank's fate is left open, except that of those who are killed or frozen."""
    held = {name for say in fault.says for name in say.who.split()}
    hindered = {act.to for act in fault.acts if act.deed in {"KILL", "STOP"}}
    names = {process.name for process in fault.processes if isinstance(process, Rank)}
    assert names - held <= hindered
    assert held <= names
