"""What rank 0 says while it waits."""

import io
import math
import time

import pytest
from colossalai_env_slurm import SLURM

from colossalai_env._join import _job_end  # pyright: ignore[reportPrivateUsage]
from colossalai_env._rendezvous.progress import Waiting
from colossalai_env._rendezvous.protocol.requests import Deadline
from colossalai_env.resolver import Environ

NOW = 100.0
CLOCK = lambda: NOW  # noqa: E731 - a clock that stands


def waits(caplog: pytest.LogCaptureFixture, ends: float = math.inf) -> str:
    """Return what is logged after 4 s of waiting for two ranks."""
    waiting = Waiting(2, ends, io.StringIO(), lambda: NOW - 4)
    waiting.clock = CLOCK
    waiting.show([])
    return caplog.text


def test_a_wait_names_who_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    assert "0/2 ranks are here after 4 s, missing 0-1\n" in waits(caplog)


def test_a_wait_that_outlasts_the_job_says_when_that_ends(caplog: pytest.LogCaptureFixture) -> None:
    assert "missing 0-1; the job ends in 42 s, before this wait does\n" in waits(caplog, NOW + 42)


@pytest.mark.parametrize(
    ("left", "early"), [("60", True), ("600", False), ("-5", False)], ids=["soon", "after the wait", "past"]
)
def test_slurm_says_when_the_job_ends(left: str, early: bool) -> None:
    environ = Environ({"SLURM_JOB_END_TIME": str(int(time.time()) + int(left))})
    found = _job_end(SLURM, environ, Deadline(CLOCK, NOW, 300.0))
    assert (found != math.inf) == early
    assert not early or 58 <= found - NOW <= 60


@pytest.mark.parametrize("variables", [{}, {"SLURM_JOB_END_TIME": ""}, {"SLURM_JOB_END_TIME": "tomorrow"}])
def test_where_nothing_says_when_the_job_ends_nothing_is_said_of_it(variables: dict[str, str]) -> None:
    for resolver in (SLURM, None):
        assert _job_end(resolver, Environ(variables), Deadline(CLOCK, NOW, 300.0)) == math.inf
