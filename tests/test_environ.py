"""Environ: one frozen look at variables and arguments."""

import os
import sys

import pytest

from colossalai_env import resolve
from colossalai_env.environ import Export
from colossalai_env.errors import MalformedVariable
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


def test_an_export_sets_variables_and_gives_back_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "7")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    before = dict(os.environ)
    with Export({"RANK": "0", "LOCAL_RANK": "1"}) as export:
        assert (os.environ["RANK"], os.environ["LOCAL_RANK"]) == ("0", "1")
    assert dict(os.environ) == before
    monkeypatch.setenv("RANK", "0")
    export.take_back()
    assert os.environ["RANK"] == "0"


def test_what_the_program_changed_in_an_export_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "7")
    with Export({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}):
        os.environ["WORLD_SIZE"] = "9"
        del os.environ["LOCAL_RANK"]
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ.get("LOCAL_RANK")) == ("7", "9", None)


def test_an_export_in_an_export_gives_back_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with Export({"RANK": "1"}):
        with Export({"RANK": "1"}):
            pass
        assert os.environ["RANK"] == "1"
    assert "RANK" not in os.environ


@pytest.mark.parametrize("value", [1, None])
def test_a_given_variable_that_is_no_text_is_named(value: object) -> None:
    env = {"RANK": value, "WORLD_SIZE": "2"}
    with pytest.raises(
        MalformedVariable, match=f"env: RANK is '{value}', expected a str, and found {type(value).__name__}"
    ):
        resolve(env=env)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
