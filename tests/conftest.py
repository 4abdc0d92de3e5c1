"""Hypothesis profiles, who gets GPUs, and which tests run in one process, where several run at once.

Of the profiles, `dev` looks further each time, and `ci` tries the same examples every time.
"""

import gc
import os
from collections import Counter
from collections.abc import Generator, Iterator
from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

from tests import devices
from tests.bare import Bare, bare_environment

settings.register_profile("dev", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

devices.hide()

NEEDED = {"gpu": 1, "gpu2": 2}
"""How many GPUs the tests with a mark need."""


RAN = "ran on"
"""The property of a report that says on which release of Slurm its test ran."""

MADE_ONCE = ("alone", "bare", "built", "by_value", "pods", "records", "together")
"""Fixtures that are costly to make: the tests that use one run one after the other, in one process."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Know the setting of pytest-timeout where that is absent, as it may be on a machine with GPUs."""
    if find_spec("pytest_timeout") is None:
        parser.addini("timeout", "read by pytest-timeout, which is not installed")


@pytest.fixture(scope="session")
def bare() -> Iterator[Bare]:
    """Return an environment without torch, in which this checkout is installed."""
    with bare_environment() as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what is collected, which stays to the end: 5,000 tests, and torch."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together what shares a costly fixture; skip what needs more GPUs than there are."""
    for item in items:
        for name in {*MADE_ONCE} & {*getattr(item, "fixturenames", ())}:
            item.add_marker(pytest.mark.xdist_group(name))
    marked = [(item, needed) for item in items for mark, needed in NEEDED.items() if item.get_closest_marker(mark)]
    here = devices.count() if marked else 0
    for item, needed in marked:
        if here < needed:
            item.add_marker(pytest.mark.skip(reason=f"needs {needed} GPU(s), and torch can use {here} here"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which releases of Slurm the tests ran on, also where other processes ran them."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    told = [value for report in reports for name, value in report.user_properties if name == RAN]
    for release, count in Counter(told).items():
        terminalreporter.write_line(f"{count} tests ran on {release}")
