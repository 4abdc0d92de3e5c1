"""Asking launchers, against fakes of their side; the launchers themselves are asked on the bed of pretend hosts."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from colossalai_env_slurm.asking import ask_layout, ask_node

from colossalai_env import DistSpec
from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import Environ, HostAnswer

pytestmark = pytest.mark.slow

ASK = """
import json, sys
from colossalai_env import resolve
from colossalai_env.resolver import Environ
from colossalai_env.errors import CannotLocate
from colossalai_env_hydra import ask_pmi
environ = Environ.snapshot()
try:
    located = ask_pmi(resolve(), environ, 2.0)
    again = ask_pmi(resolve(), environ, 2.0)
    assert again == located
    print(json.dumps(located if isinstance(located, str) else [located.host, located.job_id]))
except CannotLocate as error:
    print(json.dumps(str(error)))
"""

Answer = Callable[[str], bytes]


def proxy(answer: Answer, variables: dict[str, str] | None = None) -> tuple[Any, float]:
    """Play Hydra's proxy for one process; return what the process printed, and how long it asked."""
    ours, theirs = socket.socketpair()
    rank = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    env = {**os.environ, **rank, "PMI_FD": str(theirs.fileno()), **(variables or {})}

    def serve() -> None:
        with ours.makefile("r", encoding="utf-8") as commands:
            for line in commands:
                command = line.split()[0].removeprefix("cmd=")
                for byte in answer(command):
                    ours.send(bytes([byte]))
                if command == "finalize":
                    ours.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", ASK], env=env, pass_fds=[theirs.fileno()], capture_output=True, text=True, check=True
    )
    seconds = time.monotonic() - began
    theirs.close()
    thread.join(5)
    ours.close()
    return json.loads(ran.stdout), seconds


GOOD = {
    "init": b"cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n",
    "get_maxes": b"cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024\n",
    "get_my_kvsname": b"cmd=my_kvsname kvsname=kvs_7\n",
    "put": b"cmd=put_result rc=0\n",
    "barrier_in": b"cmd=barrier_out\n",
    "get": b"cmd=get_result rc=0 value=10.0.0.7/pmi-0123\n",
    "finalize": b"cmd=finalize_ack\n",
}


def test_hydra_is_asked_once_byte_by_byte_and_told_goodbye() -> None:
    heard: list[str] = []

    def answer(command: str) -> bytes:
        heard.append(command)
        return GOOD[command]

    told, _ = proxy(answer)
    assert told == ["10.0.0.7", "pmi-0123"]
    assert heard == ["init", "get_maxes", "get_my_kvsname", "barrier_in", "get", "get", "finalize"]


@pytest.mark.parametrize("step", ["init", "barrier_in", "get"])
@pytest.mark.parametrize(
    ("reply", "problem"),
    [(b"cmd=nonsense rc=-1\n", "was answered by"), (b"\xff\xfe\n", "was answered by"), (b"", "not answered in time")],
    ids=["another answer", "no text", "silence"],
)
def test_what_hydra_should_not_say_is_an_error_in_time(step: str, reply: bytes, problem: str) -> None:
    told, seconds = proxy(lambda command: reply if command == step else GOOD[command])
    assert problem in told
    assert "Export MASTER_ADDR" in told
    assert seconds < 8


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        ("", "PMI_FD is not set"),
        ("x", "PMI_FD is 'x', and no number"),
        ("99", "PMI_FD is 99, which is no channel of this process: Bad file descriptor"),
        ("2", "PMI_FD is 2, which is no socket"),
    ],
)
def test_a_number_that_is_no_channel_of_hydras_is_left_alone_and_said_why(number: str, reason: str) -> None:
    assert proxy(lambda command: GOOD[command], {"PMI_FD": number})[0] == reason


STEP = DistSpec(rank=1, world_size=3, job_id="7.0")
ARBITRARY = {"SLURM_DISTRIBUTION": "arbitrary", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7"}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> None:
    """Put a command of Slurm's on the path."""
    script = folder / name
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


LAYOUT = "Job step layout:\\n\\n\\tNode 0 (a), 1 task(s): 1\\n\\tNode 1 (127.0.0.1), 2 task(s): 0 2\\n"


def test_slurm_tells_where_task_zero_of_an_arbitrary_distribution_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "sattach", f"printf '{LAYOUT}'")
    assert ask_layout(STEP, Environ(ARBITRARY), 5) == HostAnswer("127.0.0.1", "sattach --layout 7.0")
    assert ask_layout(STEP, Environ({}), 5) is None


def test_without_slurms_commands_the_host_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "hosts").write_text("b\na\nb\n")
    found = ask_layout(STEP, Environ({**ARBITRARY, "SLURM_HOSTFILE": str(tmp_path / "hosts")}), 5)
    assert found is not None
    assert found.host == "b"
    assert ask_layout(STEP, Environ(ARBITRARY), 5) is None
    assert ask_node(DistSpec(rank=0, world_size=2, host="cn001"), Environ(ARBITRARY), 5) is None


def test_slurm_tells_the_address_of_a_name_that_resolves_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "scontrol", "echo NodeName=$5 NodeAddr=10.0.0.9 NodeHostName=odd")
    found = ask_node(DistSpec(rank=0, world_size=2, host="cn001"), Environ(ARBITRARY), 5)
    assert found == HostAnswer("10.0.0.9", "scontrol show node cn001: NodeAddr")


def test_a_command_that_fails_is_an_error_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "sattach", "echo 'Invalid job id' >&2; exit 1")
    with pytest.raises(CannotLocate, match=r"sattach --layout 7\.0 failed: Invalid job id"):
        ask_layout(STEP, Environ(ARBITRARY), 5)
