"""Errors: their annotations are their fields."""

import inspect
import pickle

import pytest

from colossalai_env import ColossalaiEnvError, MalformedVariable, MissingRanks, UnknownConfigEntry


@pytest.mark.parametrize(
    "error",
    [
        MalformedVariable("slurm", "SLURM_PROCID", "x", expected="a number", rank=3),
        MalformedVariable("slurm", "SLURM_PROCID", "x", "a number"),
        UnknownConfigEntry("lr", ("model",)),
        MissingRanks("rank 3 did not come"),
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
    class Late(MissingRanks):
        seconds: float = 1.0

    assert list(inspect.signature(Late).parameters) == ["sentence", "seconds"]
    assert (Late("s", 2.0).sentence, Late("s").seconds) == ("s", 1.0)
