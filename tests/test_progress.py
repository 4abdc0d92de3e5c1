"""What rank 0 says while it waits."""

import io
import time

import pytest
from colossalai_env_slurm import SLURM

from colossalai_env import Environ
from colossalai_env.init import early_end
from colossalai_env.progress import Waiting
from colossalai_env.rollcall import Watch

NOW = 100.0
CLOCK = lambda: NOW  # noqa: E731 - a clock that stands


def waits(ends: float | None, caplog: pytest.LogCaptureFixture) -> str:
    """Return what is logged after 4 s of waiting for one of two ranks."""
    waiting = Waiting(2, ends, io.StringIO(), lambda: NOW - 4)
    waiting.clock = CLOCK
    waiting.show([])
    return caplog.text


def test_a_wait_names_who_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    assert "0/2 ranks are here after 4 s, missing 0-1\n" in waits(None, caplog)


def test_a_wait_that_outlasts_the_job_says_when_that_ends(caplog: pytest.LogCaptureFixture) -> None:
    assert "missing 0-1; the job ends in 42 s, before this wait does\n" in waits(NOW + 42, caplog)


@pytest.mark.parametrize(
    ("left", "early"), [("60", True), ("600", False), ("-5", False)], ids=["soon", "after the wait", "past"]
)
def test_slurm_says_when_the_job_ends(left: str, early: bool) -> None:
    environ = Environ({"SLURM_JOB_END_TIME": str(int(time.time()) + int(left))})
    found = early_end(SLURM, environ, Watch(CLOCK, NOW, 300.0))
    assert (found is not None) == early
    assert found is None or 58 <= found - NOW <= 60


@pytest.mark.parametrize("variables", [{}, {"SLURM_JOB_END_TIME": ""}, {"SLURM_JOB_END_TIME": "tomorrow"}])
def test_where_nothing_says_when_the_job_ends_nothing_is_said_of_it(variables: dict[str, str]) -> None:
    assert early_end(SLURM, Environ(variables), Watch(CLOCK, NOW, 300.0)) is None
    assert early_end(None, Environ(variables), Watch(CLOCK, NOW, 300.0)) is None
