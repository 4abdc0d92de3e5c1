"""Options of a script: what was typed counts, what a parser holds by itself does not, and what is not read is told."""

import logging
import pickle

import pytest

from colossalai_env import explain, get_default_parser, init_from_env, launch, resolve
from colossalai_env._arguments import OURS
from colossalai_env.errors import UnknownBackend

BY_HAND = ["--rank", "0", "--world_size", "1", "--host", "localhost", "--port", "29500"]


def parsed(*words: str) -> object:
    return get_default_parser().parse_args(words)


def test_the_backend_that_a_parser_holds_by_itself_overrides_no_choice() -> None:
    assert resolve(env={}, args=parsed()).backend is None
    with init_from_env(args=parsed()) as job:
        assert job.backend == "gloo"


def test_the_backend_that_was_typed_is_asked_for() -> None:
    assert resolve(env={}, args=parsed("--backend", "nccl")).backend == "nccl"
    with pytest.raises(UnknownBackend, match="NCCL needs a GPU"):
        init_from_env(args=parsed("--backend", "nccl"))


def test_a_launch_function_takes_the_parsers_own_backend() -> None:
    args = get_default_parser().parse_args(BY_HAND)
    assert args.backend == "nccl"
    assert pickle.loads(pickle.dumps(args)).backend == "nccl"
    with pytest.raises(UnknownBackend, match="backend 'nccl'"):
        launch({}, args.rank, args.world_size, args.host, args.port, backend=args.backend)


@pytest.mark.parametrize("typed", ["nccl", "gloo", "cpu:gloo,cuda:nccl"])
def test_a_backend_that_nothing_hands_in_is_told(typed: str) -> None:
    (warning,) = explain(env={}, argv=["--backend", typed]).resolution.warnings
    assert warning.startswith(f"--backend {typed} is not read, since nothing hands it in: call init_from_env(args=")


@pytest.mark.parametrize(
    "read",
    [
        {"argv": ["--backend", "gloo"], "args": parsed("--backend", "gloo")},
        {"argv": ["--backend", "gloo"], "backend": "gloo"},
        {"argv": [*BY_HAND, "--backend", "gloo"]},
        {"argv": ["--rank", "0", "--world_size", "1", "--backend", "gloo"]},
        {"argv": ["--backend", "inductor"]},
        {"argv": []},
    ],
)
def test_a_backend_that_is_read_or_another_programs_is_not_told(read: dict[str, object]) -> None:
    assert explain(env={}, **read).resolution.warnings == ()  # type: ignore[arg-type]


def test_rank_0_logs_the_backend_that_is_not_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--backend", "gloo"])
    with caplog.at_level(logging.WARNING, "colossalai_env"), init_from_env():
        pass
    assert "--backend gloo is not read" in caplog.text


def test_an_explanation_of_an_error_says_where_to_read_on() -> None:
    assert str(explain(env={"RANK": "x", "WORLD_SIZE": "2"})).endswith(
        "More about it: docs/reference/errors.md#malformedvariable"
    )


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("COLOSSALAI_ENV_ROLLCALL", "COLOSSALAI_ENV_ROLL_CALL"),
        ("COLOSSALAI_ENV_DISABEL", "COLOSSALAI_ENV_DISABLE"),
        ("COLOSSALAI_ENV_JOBID", "COLOSSALAI_ENV_JOB_ID"),
        ("COLOSSALAI_ENV_Resolver", "COLOSSALAI_ENV_RESOLVER"),
    ],
)
def test_a_variable_of_ours_that_is_mistyped_is_told_with_the_right_name(
    typed: str, meant: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = f"{typed} is set, which nothing reads: {meant} may be meant"
    assert explain(env={typed: "off"}).resolution.warnings == (told,)
    monkeypatch.setenv(typed, "off")
    with caplog.at_level(logging.WARNING, "colossalai_env"), init_from_env():
        assert told in caplog.messages


@pytest.mark.parametrize("name", [*OURS, "COLOSSALAI_PLATFORM", "COLOSSALAI_ENV"])
def test_a_variable_of_ours_that_is_typed_well_and_one_of_others_are_not_told(name: str) -> None:
    assert not [line for line in explain(env={name: "slurm"}).resolution.warnings if "nothing reads" in line]
