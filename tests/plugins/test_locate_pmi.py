"""Hydra's channel at the edges: split, garbled and broken answers, asking twice, and forked children."""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
from colossalai_env_mpi.pmi import LONGEST, Channel
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env.errors import CannotLocate

pytestmark = pytest.mark.slow

SOON = float("inf")
"""A deadline that the tests' own limit keeps."""


def channel(until: float = SOON) -> tuple[Channel, socket.socket, socket.socket]:
    """Return a channel, its own end, and the end of the proxy."""
    ours, theirs = socket.socketpair()
    return Channel("hydra", ours.fileno(), until), ours, theirs


@given(
    value=st.from_regex(r"[a-z0-9.:-]{1,60}", fullmatch=True),
    cuts=st.lists(st.integers(1, 80), max_size=6),
)
def test_an_answer_is_read_however_it_is_split_and_no_byte_beyond_it(value: str, cuts: list[int]) -> None:
    asking, ours, theirs = channel()
    answer, next_one = f"cmd=get_result rc=0 value={value}\n".encode(), b"cmd=next\n"
    bounds = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    parts = [answer[start:end] for start, end in itertools.pairwise(bounds)]

    def serve() -> None:
        for part in [*parts[:-1], parts[-1] + next_one]:
            theirs.sendall(part)

    with ours, theirs:
        thread = threading.Thread(target=serve)
        thread.start()
        assert asking.word("value", "get", "get_result", key="k") == value
        thread.join()
        assert theirs.recv(64) == b"cmd=get key=k\n"
        assert ours.recv(64) == next_one


@given(st.binary(max_size=60).filter(lambda told: not told.lstrip().startswith(b"cmd=maxes")))
def test_whatever_is_said_instead_of_the_answer_is_a_clear_error(told: bytes) -> None:
    asking, ours, theirs = channel()
    with ours, theirs:
        theirs.sendall(told)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(CannotLocate, match=r"get_maxes was answered by|the proxy closed the channel"):
            asking.word("vallen_max", "get_maxes", "maxes")


@pytest.mark.parametrize("told", [b"cmd=maxes\n", b"cmd=maxes vallen_max=\n", b"cmd=maxes kvsname_max=1\n"])
def test_an_answer_without_its_word_is_a_clear_error(told: bytes) -> None:
    asking, ours, theirs = channel()
    with ours, theirs:
        theirs.sendall(told)
        with pytest.raises(CannotLocate, match="get_maxes was answered without vallen_max"):
            asking.word("vallen_max", "get_maxes", "maxes")


def test_a_line_without_end_is_not_read_for_ever() -> None:
    asking, ours, theirs = channel()
    with ours, theirs:
        thread = threading.Thread(target=theirs.sendall, args=(b"x" * LONGEST,))
        thread.start()
        with pytest.raises(CannotLocate, match="line without end"):
            asking.send("init", "response_to_init")
        thread.join()


def test_a_proxy_that_is_gone_is_named_at_once() -> None:
    asking, ours, theirs = channel()
    theirs.close()
    with ours, pytest.raises(CannotLocate, match=r"the channel broke at init|closed the channel at init"):
        asking.send("init", "response_to_init")


PROCESS = """
import json, os, sys
from colossalai_env import resolve
from colossalai_env.resolver import Environ
from colossalai_env.errors import CannotLocate
from colossalai_env_mpi import pmi
def ask():
    try:
        return pmi.ask(resolve(), Environ.snapshot(), 5.0).host
    except CannotLocate as error:
        return error.problem
if sys.argv[1] == "mpi may follow":
    pmi.mpi_may_follow = lambda backend: True
told = [ask(), ask()]
if os.fork() == 0:
    same = ask() == told[0]
    raise SystemExit(0 if same else 1)
told.append(os.waitstatus_to_exitcode(os.wait()[1]))
print(json.dumps(told))
raise SystemExit(7)
"""

GOOD = {
    "init": b"cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1\n",
    "get_maxes": b"cmd=maxes kvsname_max=256 keylen_max=64 vallen_max=1024\n",
    "get_my_kvsname": b"cmd=my_kvsname kvsname=kvs_7\n",
    "put": b"cmd=put_result rc=0\n",
    "barrier_in": b"cmd=barrier_out\n",
    "get": b"cmd=get_result rc=0 value=10.0.0.7/pmi-0123\n",
    "finalize": b"cmd=finalize_ack\n",
}
EXCHANGE = ["init", "get_maxes", "get_my_kvsname", "barrier_in", "get"]


def heard_of(mode: str, answers: dict[str, bytes], programs: int = 1) -> tuple[list[list[Any]], list[str]]:
    """Play Hydra's proxy for a task whose programs ask twice and fork; return what each was told, and what was said."""
    ours, theirs = socket.socketpair()
    rank = {"PMI_RANK": "1", "PMI_SIZE": "2", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
    env = {**os.environ, **rank, "PMI_FD": str(theirs.fileno())}
    heard: list[str] = []

    def serve() -> None:
        with ours.makefile("r", encoding="utf-8") as commands:
            for line in commands:
                heard.append(line.split()[0].removeprefix("cmd="))
                ours.sendall(answers[heard[-1]])
                if heard[-1] == "finalize":
                    ours.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=serve)
    thread.start()
    told: list[list[Any]] = []
    with ours:
        for _ in range(programs):
            command = [sys.executable, "-c", PROCESS, mode]
            ran = subprocess.run(
                command, env=env, pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False
            )
            assert ran.returncode == 7, ran.stderr
            told.append(json.loads(ran.stdout))
        theirs.close()
        thread.join()
    return told, heard


@pytest.mark.parametrize("mode", ["no mpi", "mpi may follow"])
def test_one_exchange_serves_two_calls_and_a_forked_child_and_is_ended_once(mode: str) -> None:
    told, heard = heard_of(mode, GOOD)
    assert told == [["10.0.0.7", "10.0.0.7", 0]]
    assert heard == [*EXCHANGE, "get", "finalize"]


@pytest.mark.parametrize("mode", ["no mpi", "mpi may follow"])
def test_one_exchange_serves_the_later_programs_of_a_task(mode: str) -> None:
    told, heard = heard_of(mode, GOOD, programs=3)
    assert told == [["10.0.0.7", "10.0.0.7", 0]] * 3
    assert heard == [*EXCHANGE, "get", "finalize"]


def test_an_exchange_that_failed_is_not_begun_again() -> None:
    (told,), heard = heard_of("no mpi", {**GOOD, "get": b"cmd=get_result rc=0 value=a:b/c\n"})
    assert told[0] == told[1]
    assert "rank 0 published 'a:b/c'" in told[0]
    assert heard == EXCHANGE


def test_where_an_earlier_program_has_had_the_channel_and_left_nothing_the_error_says_so() -> None:
    asking, ours, theirs = channel()
    theirs.close()
    with ours, pytest.raises(CannotLocate, match=r"an earlier program of this task has had it\. Export MASTER_ADDR"):
        asking.left()


def test_what_waits_in_the_channel_and_is_no_answer_to_us_is_shown() -> None:
    asking, ours, theirs = channel()
    with ours, theirs:
        assert asking.left() is None
        theirs.sendall(b"cmd=barrier_out\n")
        with pytest.raises(CannotLocate, match="get was answered by 'cmd=barrier_out'"):
            asking.left()
