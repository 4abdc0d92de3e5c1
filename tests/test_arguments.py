"""What a call is handed: a value that its argument cannot have is an error at once, and the other ranks are told."""

import argparse
import re
from datetime import timedelta
from typing import Any

import pytest

from colossalai_env import Config, explain, init_from_env, launch, load_config, resolve
from colossalai_env.errors import InvalidArgument, InvalidConfig, MalformedVariable
from tests.processes import Processes, free_port
from tests.warm import warm

NAMESPACE = argparse.Namespace


IDENTITY: list[tuple[dict[str, object], str]] = [
    ({"rank": "0", "world_size": 1}, "argument rank is '0', expected an int, a whole number from 0 to 2147483647"),
    ({"rank": 0, "world_size": 2.0}, "argument world_size is 2.0, expected an int, a whole number from 1"),
    ({"rank": True, "world_size": 2}, "argument rank is True, expected an int"),
    ({"rank": [0], "world_size": 2}, "argument rank is [0], expected an int"),
    ({"local_rank": -2}, "argument local_rank is -2, expected an int, a whole number from 0"),
    ({"port": "29500"}, "argument port is '29500', expected an int, a whole number from 1 to 65535"),
    ({"host": "node1:29500"}, "argument host is 'node1:29500', expected a str, a host name"),
    ({"host": b"node1"}, "argument host is b'node1', expected a str"),
    ({"backend": 5}, "argument backend is 5, expected a str"),
    ({"resolver": 5}, "argument resolver is 5, expected a resolver, or the name of one"),
    ({"resolver": dict}, "argument resolver is <class 'dict'>, expected a resolver"),
    ({"args": {"rank": 0}}, "argument args is {'rank': 0}, expected a namespace"),
    ({"args": (NAMESPACE(), [])}, "argument args is (Namespace(), []), expected a namespace"),
    ({"args": NAMESPACE(rank=0, world_size=2.0)}, "args.world_size is 2.0, expected an int"),
]


@pytest.mark.parametrize(("keywords", "told"), IDENTITY)
def test_who_a_process_is_is_not_asked_with_a_value_that_cannot_be(keywords: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        resolve(env={}, **keywords)
    with pytest.raises(InvalidArgument, match=re.escape(told)):
        init_from_env(**keywords)
    assert f"InvalidArgument: {told}" in str(explain(env={}, **keywords))


WRONG: dict[str, tuple[str, tuple[object, ...]]] = {
    "timeout": ("a positive number of seconds", ("30", -1, 0, float("nan"), float("inf"), True, [], timedelta(-1))),
    "device": ("cpu, cuda, cuda:1", (1.5, True, b"cpu", [], object())),
    "seed": ("a whole number from -2**63", ("x", 1.5, True, 2**64, -(2**63) - 1)),
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [(name, value, expected) for name, (expected, values) in WRONG.items() for value in values],
)
def test_a_value_that_cannot_be_is_told_before_anything_is_done(name: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(f"argument {name} is {value!r}, expected {expected}")):
        init_from_env(**{name: value})


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"env": ["RANK=0"]}, "argument env is of type list, expected a mapping of names to texts"),
        ({"env": "RANK=0"}, "argument env is of type str"),
        ({"env": {b"RANK": "0"}}, "argument env is a mapping with the name b'RANK', expected names that are texts"),
        ({"argv": "--rank 0"}, "argument argv is '--rank 0', expected a list of texts"),
        ({"argv": ["--rank", 0]}, "argument argv is ['--rank', 0], expected a list of texts"),
        ({"argv": 5}, "argument argv is 5, expected a list of texts"),
    ],
)
def test_an_environment_that_is_none_is_told(keywords: dict[str, Any], told: str) -> None:
    for call in (resolve, explain):
        with pytest.raises(InvalidArgument, match=re.escape(told)):
            call(**keywords)


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(InvalidArgument, match=re.escape("0, 0..., expected an int")):
        resolve(env={}, rank=[0] * 100_000)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wrong", [5, "x", [1]])
def test_what_is_no_mapping_is_no_config(wrong: Any) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(f"config={wrong!r}: a dict is required")):
        Config(wrong)
    with pytest.raises(InvalidConfig):
        load_config(wrong)


def test_launch_names_the_argument_and_not_the_one_that_follows_from_it() -> None:
    with pytest.raises(InvalidArgument, match="argument rank is '0', expected an int"):
        launch({}, "0", "2", "localhost", "29500")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_text_in_a_namespace_is_read_as_its_option_would_be() -> None:
    assert resolve(env={}, args=NAMESPACE(rank="3", world_size="4", host="n1", port="29500")).rank == 3
    with pytest.raises(MalformedVariable, match="--rank is '3x'"):
        resolve(env={}, args=NAMESPACE(rank="3x", world_size="4", host="n1", port="29500"))


def test_a_seed_of_numpy_is_a_seed() -> None:
    numpy = pytest.importorskip("numpy")
    with init_from_env(seed=numpy.int64(7), timeout=numpy.float32(60)) as job:
        assert job.rank == 0


PROGRAM = """
from argparse import Namespace
from colossalai_env import init_from_env, launch
try:
    {}
except Exception as error:
    print("TOLD", type(error).__name__, error)
"""

CALLS = {
    "init_from_env(timeout='30')": "InvalidArgument argument timeout is '30'",
    "init_from_env(device=object())": "InvalidArgument argument device is <object object at",
    "init_from_env(seed='x')": "InvalidArgument argument seed is 'x'",
    "init_from_env(resolver=5)": "InvalidArgument argument resolver is 5",
    "init_from_env(resolver='slrum')": "UnknownResolver argument resolver is 'slrum'",
    "init_from_env(resolver='slurm')": "ResolverDoesNotMatch slurm was asked for alone",
    "init_from_env(rank='x')": "InvalidArgument argument rank is 'x'",
    "init_from_env(port='29500')": "InvalidArgument argument port is '29500'",
    "init_from_env(args=Namespace(rank='x'))": "MalformedVariable arguments: --rank is 'x'",
    "launch({}, None, 2, 'localhost', PORT, 'gloo')": "IncompleteArguments --world_size and --host and --port given",
    "launch(None, 1, 2, 'localhost', PORT, 'gloo')": "InvalidConfig config: config=None",
    "launch({}, 1, '2', 'localhost', PORT, 'gloo')": "InvalidArgument argument world_size is '2'",
}


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_the_other_ranks_are_told_what_one_of_them_was_handed(call: str) -> None:
    port = free_port()
    by_hand = call.startswith("launch")
    right = f"launch({{}}, 0, 2, 'localhost', {port}, 'gloo')" if by_hand else "init_from_env(timeout=60)"
    with Processes() as processes:
        for rank, line in enumerate((right, call.replace("PORT", str(port)))):
            said = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
            processes.start([warm(), "-c", PROGRAM.format(line)], {} if by_hand else said)
        [zero], [one] = [ended.lines("TOLD ") for ended in processes.wait(40)]
    assert one.startswith(CALLS[call])
    assert zero.startswith("RankFailed ")
    assert one.partition(" ")[2] in zero
