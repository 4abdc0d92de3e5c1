"""Rank 0's host by PMI-1: the plain-text channel, inherited as PMI_FD, between each process and Hydra's proxy.

Facts: MPICH's sources of the PMI-1 wire protocol, and runs of MPICH 5.0 and Intel MPI 2021.18: an exchange leaves a
later MPI_Init intact unless PMI was finalized, and a process that ends without either a finalize or MPI makes Hydra
kill its neighbours.
"""

import atexit
import os
import select
import socket
import stat
import struct
import time

import attrs
from colossalai_env_mpi import ancestors, mpi_may_follow, mpi_runs

from colossalai_env import CannotLocate, DistSpec, Environ, Located, host_name, own_address

KEY = "colossalai_env"

LONGEST = 65536
"""Bytes of a line, at most: Hydra's longest values have 1024."""


@attrs.define
class Channel:
    """The channel to the proxy. Its descriptor stays blocking: libmpi shares it."""

    descriptor: int
    until: float

    def send(self, command: str, answer: str, **words: object) -> dict[str, str]:
        """Send one command and return the words of its answer; raise `CannotLocate`."""
        line = " ".join([f"cmd={command}", *(f"{name}={value}" for name, value in words.items())]) + "\n"
        try:
            os.write(self.descriptor, line.encode())
            told = self._line(command)
        except OSError as error:
            raise _cannot(f"the channel broke at {command}: {error.strerror}") from None
        pairs = (word.partition("=") for word in told.split())
        found = {name: value for name, _, value in pairs}
        if found.get("cmd") != answer or found.get("rc", "0") != "0":
            raise _cannot(f"{command} was answered by {told!r}")
        return found

    def word(self, name: str, command: str, answer: str, **words: object) -> str:
        """Send one command and return one word of its answer; raise `CannotLocate` where that is not there."""
        found = self.send(command, answer, **words)
        if not found.get(name):
            raise _cannot(f"{command} was answered without {name}")
        return found[name]

    def _line(self, command: str) -> str:
        told = b""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not told.endswith(b"\n"):
            if len(told) >= LONGEST:
                raise _cannot(f"{command} was answered by a line without end")
            left = self.until - time.monotonic()
            if left <= 0 or not poll.poll(1000 * min(left, 0.5)):
                if left <= 0:
                    raise _cannot(f"{command} was not answered in time: some rank has not come this far")
                continue
            byte = os.read(self.descriptor, 1)  # never more than our own answer
            if not byte:
                raise _cannot(f"the proxy closed the channel at {command}")
            told += byte
        return told.decode("utf-8", "replace").strip()


def _cannot(problem: str) -> CannotLocate:
    return CannotLocate("hydra", "pmi", problem)


@attrs.define
class _Exchange:
    """The one exchange of this process, how it ended, and whether PMI was finalized after it."""

    pid: int
    channel: Channel
    outcome: Located | CannotLocate
    finalized: bool = False


_begun: list[_Exchange] = []


def ask(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Let rank 0 publish its address, and all ranks read it; done once, and never again by a forked child."""
    if _begun:
        return _result(_begun[0])
    descriptor = _descriptor(environ)
    if descriptor is None or mpi_runs():
        return None
    channel = Channel(descriptor, time.monotonic() + seconds)
    exchange = _Exchange(os.getpid(), channel, _cannot("the exchange was interrupted"))
    _begun.append(exchange)
    try:
        exchange.outcome = _exchanged(channel, spec.rank)
    except CannotLocate as problem:
        exchange.outcome = problem
        raise  # PMI stays open: Hydra ends a job that a process leaves so
    if mpi_may_follow(spec.backend):
        atexit.register(_finalize)
    else:
        _finalize()
    return exchange.outcome


def _result(exchange: _Exchange) -> Located:
    if isinstance(exchange.outcome, CannotLocate):
        raise exchange.outcome
    return exchange.outcome


def _exchanged(channel: Channel, rank: int) -> Located:
    channel.send("init", "response_to_init", pmi_version=1, pmi_subversion=1)
    longest = channel.word("vallen_max", "get_maxes", "maxes")
    space = channel.word("kvsname", "get_my_kvsname", "my_kvsname")
    if rank == 0:
        value = own_address()
        if not longest.isdecimal() or len(value) >= int(longest):
            raise _cannot(f"{value!r} is longer than Hydra's {longest} characters")
        channel.send("put", "put_result", kvsname=space, key=KEY, value=value)
    channel.send("barrier_in", "barrier_out")
    host = channel.word("value", "get", "get_result", kvsname=space, key=KEY)
    try:
        return Located(host_name(host), "PMI-1 of Hydra", space)
    except ValueError as expected:
        raise _cannot(f"rank 0 published {host!r}, expected {expected}") from None


def _descriptor(environ: Environ) -> int | None:
    """Return the channel's descriptor, if it is a socket of one of our ancestors and no number that is left over."""
    text = environ.get("PMI_FD") or ""
    if not text.isdecimal() or environ.get("MPI_LOCALRANKID") is None:
        return None
    try:
        if not stat.S_ISSOCK(os.fstat(int(text)).st_mode):
            return None
        with socket.socket(fileno=os.dup(int(text))) as channel:
            credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return None
    return int(text) if struct.unpack("3i", credentials)[0] in set(ancestors()) else None


def _finalize() -> None:
    """Say goodbye to the proxy, unless MPI has taken the channel over, which says it itself."""
    exchange = _begun[0]
    if exchange.finalized or exchange.pid != os.getpid() or mpi_runs():
        return
    exchange.finalized = True
    exchange.channel.until = time.monotonic() + 5
    try:
        exchange.channel.send("finalize", "finalize_ack")
    except CannotLocate:
        return  # the proxy is gone, and its job with it
