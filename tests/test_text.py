"""What stands in variables need not be text: it never ends in a traceback, and ranks of other locales agree on it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env import resolve
from colossalai_env._derived import derived_port
from colossalai_env.resolver import DistSpec
from tests.processes import clean_environment
from tests.test_platforms import told

pytestmark = pytest.mark.slow

SUM = Path(__file__).parent / "programs/sum.py"

COMMAND = [str(Path(sys.executable).parent / "colossalai-env"), "explain"]

UTF8 = {"LC_ALL": "C.UTF-8"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LOCALES = [pytest.param(UTF8, id="utf-8"), pytest.param(ASCII, id="ascii")]


def started(command: list[str], locale: Mapping[str, str], variables: Mapping[str, bytes]) -> "subprocess.Popen[str]":
    env = clean_environment(locale) | {name: os.fsdecode(held) for name, held in variables.items()}
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
    )


def printed(locale: Mapping[str, str], variables: Mapping[str, bytes]) -> str:
    """Return what the command prints on either stream."""
    return "".join(started(COMMAND, locale, variables).communicate(timeout=60))


@pytest.mark.parametrize(
    ("held", "token"),
    [(b"a\xff", "a\\xff"), ("ƒ6Bq".encode(), "ƒ6Bq"), ("/ƒ6\xa0".encode("latin-1", "replace"), "/?6\\xa0")],
)
def test_an_id_is_text_and_the_same_in_every_locale(held: bytes, token: str) -> None:
    for encoding in ("utf-8", "ascii"):
        spec = DistSpec(rank=0, world_size=2, job_id=held.decode(encoding, "surrogateescape"))
        assert spec.job_id == token
        assert derived_port(spec.job_id or "") == derived_port(token)


@given(st.text(st.characters(), min_size=1))
def test_every_id_can_be_encoded(token: str) -> None:
    found = DistSpec(rank=0, world_size=2, job_id=token).job_id
    assert found
    assert found.encode()
    assert found == token or not token.isascii()


@pytest.mark.parametrize("locale", LOCALES)
def test_ids_that_are_no_text_are_explained(locale: Mapping[str, str]) -> None:
    hand = {"RANK": b"0", "WORLD_SIZE": b"2", "MASTER_ADDR": b"a", "MASTER_PORT": b"1"}
    assert "job a\\xff" in printed(locale, hand | {"COLOSSALAI_ENV_JOB_ID": b"a\xff"})
    flux = {"FLUX_TASK_RANK": b"0", "FLUX_JOB_SIZE": b"1", "FLUX_JOB_ID_PATH": "/ƒ6Bq".encode()}
    assert ("job /ƒ6Bq" if locale is UTF8 else "job /\\u01926Bq") in printed(locale, flux)


VARIABLES = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "OMPI_COMM_WORLD_RANK",
    "PMI_RANK", "SLURM_JOB_ID", "SLURM_STEP_NODELIST", "FLUX_TASK_RANK", "FLUX_URI", "SM_HOSTS", "SKYPILOT_NODE_IPS",
    "TF_CONFIG", "COLOSSALAI_ENV_RESOLVER", "COLOSSALAI_ENV_DISABLE", "COLOSSALAI_ENV_JOB_ID", "COLOSSALAI_ENV_LOCATE",
)  # fmt: skip


@pytest.mark.parametrize("locale", LOCALES)
def test_no_variable_that_is_no_text_ends_in_a_traceback(locale: Mapping[str, str]) -> None:
    for name in VARIABLES:
        told = printed(locale, {name: "ƒ".encode() + b"\xff"})
        assert "Traceback" not in told, name
        assert "Answer: " in told or "Error" in told or name in told, told


def test_ranks_of_several_locales_meet_by_an_id_that_is_no_text() -> None:
    hand = {"WORLD_SIZE": b"2", "MASTER_ADDR": b"127.0.0.1", "CUDA_VISIBLE_DEVICES": b""}
    ids = {"COLOSSALAI_ENV_JOB_ID": "ƒ6/".encode() + b"\xff"}
    flux = {
        "FLUX_JOB_SIZE": b"2",
        "FLUX_JOB_NNODES": b"1",
        "FLUX_JOB_ID_PATH": "/ƒ6".encode(),
        "CUDA_VISIBLE_DEVICES": b"",
    }
    ranks = (b"0", b"1")
    launches = [
        [hand | ids | {"MASTER_PORT": b"29519", "RANK": rank, "LOCAL_RANK": rank} for rank in ranks],
        [flux | {"FLUX_TASK_RANK": rank, "FLUX_TASK_LOCAL_ID": rank} for rank in ranks],
    ]
    for launch in launches:
        pair = zip((UTF8, ASCII), launch, strict=True)
        processes = [started([sys.executable, str(SUM)], locale, env) for locale, env in pair]
        ended = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], ended
        assert {told(out)["job_id"] for out, _ in ended} in ({"ƒ6/\\xff"}, {"/ƒ6"})


def test_a_host_that_is_no_text_is_malformed() -> None:
    hand = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a\udcff", "MASTER_PORT": "1"}
    with pytest.raises(ValueError, match=r"MASTER_ADDR is 'a\\udcff', expected a host name"):
        resolve(env=hand)
