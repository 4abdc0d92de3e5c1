"""Errors: their annotations are their fields, and each is of the kind that the drawing says."""

import inspect
import pickle

import pytest

from colossalai_env import ColossalaiEnvError, errors
from colossalai_env.errors import ContradictoryVariables, MalformedVariable, MissingRanks, UnknownConfigEntry
from tests.error_tree import BASE, EVERY, KINDS, TREE


@pytest.mark.parametrize(
    "error",
    [
        MalformedVariable("slurm", "SLURM_PROCID", "x", expected="a number", rank=3),
        MalformedVariable("slurm", "SLURM_PROCID", "x", "a number"),
        UnknownConfigEntry("lr", ("model",)),
        MissingRanks(((3, 3), (5, 7)), 8, 2.5, hosts=(("n0", 4),)),
    ],
    ids=repr,
)
def test_an_error_crosses_process_boundaries_whole(error: ColossalaiEnvError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_field_without_a_value_is_a_type_error_that_names_it() -> None:
    with pytest.raises(TypeError, match="expected"):
        MalformedVariable("slurm", "SLURM_PROCID", "x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_child_has_its_parents_fields_and_its_own() -> None:
    class Remembered(MalformedVariable):
        since: float = 1.0

    assert list(inspect.signature(Remembered).parameters) == [*inspect.signature(MalformedVariable).parameters, "since"]
    known = Remembered("slurm", "SLURM_PROCID", "x", "a number", 3, 2.0)
    assert (known.rank, known.since) == (3, 2.0)
    assert Remembered("slurm", "SLURM_PROCID", "x", "a number").since == 1.0


def test_the_drawing_names_every_error_and_nothing_else() -> None:
    assert TREE.keys() == EVERY.keys()
    assert KINDS == [
        "ResolutionError", "PluginError", "ConfigError", "RendezvousError", "DeviceError", "LaunchError",
    ]  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_an_error_is_the_child_of_what_it_is_drawn_under_and_of_one_kind(name: str) -> None:
    bases = [base for base in EVERY[name].__bases__ if issubclass(base, ColossalaiEnvError)]
    assert [base.__name__ for base in bases] == [TREE[name]] * (name != BASE)
    assert sum(issubclass(EVERY[name], EVERY[kind]) for kind in KINDS) == (name != BASE)


@pytest.mark.parametrize("name", EVERY)
def test_every_error_is_a_name_of_the_public_module(name: str) -> None:
    assert getattr(errors, name) is EVERY[name]
    assert EVERY[name].__module__ == "colossalai_env.errors"


def test_a_name_that_is_no_error_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"'colossalai_env\.errors' has no attribute 'RollCallFailed'"):
        getattr(errors, "RollCallFailed")  # noqa: B009 - no name that type checkers know


def test_a_long_value_is_shown_by_its_beginning() -> None:
    found = "x" * 100_000
    told = str(MalformedVariable("torch", "RANK", found, "a number"))
    assert f"RANK is '{'x' * 200}'... (100000 characters), expected a number" in told
    assert len(told) < 400
    told = str(ContradictoryVariables("torch", "these are two", (("RANK", found), ("WORLD_SIZE", "2"))))
    assert told.endswith("... (100000 characters), WORLD_SIZE='2': correct these where the process is started.")


@pytest.mark.parametrize("value", ["$SLURM_PROCID", "${RANK}", "$(hostname)", "%t", "{{ rank }}", "<ip>"])
def test_a_value_that_nothing_was_put_in_the_place_of_is_told_so(value: str) -> None:
    assert f"RANK is {value!r} (nothing has put" in str(MalformedVariable("torch", "RANK", value, "a number"))
