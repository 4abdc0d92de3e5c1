"""Environ: one frozen look at variables and arguments."""

import os
import sys

import pytest

from colossalai_env.resolver import Environ


def test_it_is_a_copy_that_later_changes_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    environ = Environ.snapshot()
    monkeypatch.setenv("RANK", "4")
    assert environ.get("RANK") == "3"


def test_when_either_is_given_nothing_else_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(sys, "argv", ["train.py", "--rank", "3"])
    assert Environ.snapshot({"A": "1"}).get("--rank") is None
    assert Environ.snapshot(argv=["--host", "h"]).get("RANK") is None
    assert Environ.snapshot().get("--rank") == "3"
    assert "RANK" in os.environ


def test_its_repr_shows_no_values() -> None:
    shown = repr(Environ({"TOKEN": "secret"}, ["--password=secret"]))
    assert "secret" not in shown
    assert "TOKEN" not in shown


@pytest.mark.parametrize(
    ("argv", "value"),
    [
        (["--world_size", "4"], "4"),
        (["--world-size", "4"], "4"),
        (["--world-size=4"], "4"),
        (["--world_size=4", "--world-size", "8"], "8"),
        (["--world_size="], ""),
        (["--world_size"], ""),
        (["--", "--world_size", "4"], None),
        (["--world", "4"], None),
        (["world_size", "4"], None),
    ],
)
def test_options_are_found_as_argparse_finds_them(argv: list[str], value: str | None) -> None:
    assert Environ(argv=argv).get("--world_size") == value
    assert ("--world_size" in Environ(argv=argv)) == (value is not None)
