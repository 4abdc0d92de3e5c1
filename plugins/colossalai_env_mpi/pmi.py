"""Rank 0's host by PMI-1: the plain-text channel, inherited as PMI_FD, between each process and mpiexec or its proxy.

Facts: MPICH's sources of the PMI-1 wire protocol, and runs of MPICH 4.3 and 5.0 and Intel MPI 2021.18 and 2021.19.
An exchange leaves a later MPI_Init intact unless PMI was finalized. A process that ends without either a finalize
or MPI makes Hydra kill its neighbours. With the finalize Hydra closes its end, for later programs of the task too;
what it answered before, and was never read, waits in the channel for them.
"""

import atexit
import os
import secrets
import select
import socket
import stat
import struct
import time

import attrs

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name, own_address

from .process import ancestors, mpi_has_begun, mpi_may_follow

KEY = "colossalai_env"

LONGEST = 65536
"""Bytes of a line, at most: Hydra's longest values have 1024."""

SPENT = (
    "PMI_FD is closed at its other end: mpiexec has one conversation with each task, and an earlier program of this "
    "task has had it"
)

GOODBYE = 5.0
"""Seconds that the goodbye to the proxy may take, at most."""


@attrs.define
class Channel:
    """The channel to the proxy. Its descriptor stays blocking: libmpi shares it."""

    resolver: str
    descriptor: int
    until: float

    def send(self, command: str, answer: str, **words: object) -> dict[str, str]:
        """Send one command and return the words of its answer; raise `CannotLocate`."""
        self._write(command, **words)
        return self._words(command, answer, self._line(command))

    def word(self, name: str, command: str, answer: str, **words: object) -> str:
        """Send one command and return one word of its answer; raise `CannotLocate` where that is not there."""
        found = self.send(command, answer, **words)
        if not found.get(name):
            raise self.cannot(f"{command} was answered without {name}")
        return found[name]

    def leave(self, command: str, lines: int, **words: object) -> None:
        """Send one command, and leave its answer unread as line `lines` of what waits in the channel."""
        self._write(command, **words)
        while self.waiting().count(b"\n") < lines:
            self._wait(command, select.POLLIN)
            time.sleep(0.001)  # what waits already is no news to poll

    def left(self) -> dict[str, str] | None:
        """Return what an earlier program of this task left, or nothing where this is the first.

        Raises `CannotLocate` where an earlier one has ended the conversation and left nothing.
        """
        waiting, ended = self.waiting(), self.has_ended()
        if ended and not waiting:
            raise self.cannot(SPENT)
        if not waiting:
            return None
        return self._words("get", "get_result", waiting.partition(b"\n")[0].decode("utf-8", "replace"))

    def waiting(self) -> bytes:
        """Return what has been answered and not read."""
        with socket.socket(fileno=os.dup(self.descriptor)) as channel:
            try:
                return channel.recv(LONGEST, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return b""

    def has_ended(self) -> bool:
        """Return whether the other end is closed."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return any(event & select.POLLHUP for _, event in poll.poll(0))

    def cannot(self, problem: str) -> CannotLocate:
        """Make the error of this way."""
        return CannotLocate(self.resolver, "pmi", problem)

    def _write(self, command: str, **words: object) -> None:
        line = " ".join([f"cmd={command}", *(f"{name}={value}" for name, value in words.items())]) + "\n"
        try:
            os.write(self.descriptor, line.encode())
        except OSError as error:
            raise self.cannot(f"the channel broke at {command}: {error.strerror}") from None

    def _words(self, command: str, answer: str, told: str) -> dict[str, str]:
        pairs = (word.partition("=") for word in told.split())
        found = {name: value for name, _, value in pairs}
        if found.get("cmd") != answer or found.get("rc", "0") != "0":
            raise self.cannot(f"{command} was answered by {told!r}")
        return found

    def _line(self, command: str) -> str:
        told = b""
        while not told.endswith(b"\n"):
            if len(told) >= LONGEST:
                raise self.cannot(f"{command} was answered by a line without end")
            self._wait(command, select.POLLIN)
            try:
                byte = os.read(self.descriptor, 1)  # never more than our own answer
            except OSError as error:
                raise self.cannot(f"the channel broke at {command}: {error.strerror}") from None
            if not byte:
                raise self.cannot(f"the proxy closed the channel at {command}")
            told += byte
        return told.decode("utf-8", "replace").strip()

    def _wait(self, command: str, events: int) -> None:
        poll = select.poll()
        poll.register(self.descriptor, events)
        while True:
            left = self.until - time.monotonic()
            if left <= 0:
                raise self.cannot(f"{command} was not answered in time: some rank has not come this far")
            if poll.poll(1000 * min(left, 0.5)):
                return


@attrs.define
class _Exchange:
    """The one exchange of this process, how it ended, and whether PMI was finalized after it."""

    pid: int
    channel: Channel
    outcome: HostAnswer | CannotLocate
    space: str = ""
    finalized: bool = False


_begun: list[_Exchange] = []


def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Let rank 0 publish its address, and all ranks read it; done once, and never again by a forked child."""
    if _begun:
        return _result(_begun[0])
    descriptor = _descriptor(environ)
    if isinstance(descriptor, str):
        return descriptor
    if mpi_has_begun():
        return "MPI, which runs in this process, has taken PMI_FD over"
    channel = Channel(spec.resolver, descriptor, time.monotonic() + seconds)
    left = channel.left()
    if left is not None:
        return _located(channel, left.get("value", ""), ", left by an earlier program of this task")
    exchange = _Exchange(os.getpid(), channel, channel.cannot("the exchange was interrupted"))
    _begun.append(exchange)
    try:
        exchange.outcome = _exchanged(exchange, spec.rank)
    except CannotLocate as problem:
        exchange.outcome = problem
        raise  # PMI stays open: Hydra ends a job that a process leaves so
    if mpi_may_follow(spec.backend):
        atexit.register(_finalize)
    else:
        _finalize()
    return exchange.outcome


def _result(exchange: _Exchange) -> HostAnswer:
    if isinstance(exchange.outcome, CannotLocate):
        raise exchange.outcome
    return exchange.outcome


def _exchanged(exchange: _Exchange, rank: int) -> HostAnswer:
    channel = exchange.channel
    channel.send("init", "response_to_init", pmi_version=1, pmi_subversion=1)
    longest = channel.word("vallen_max", "get_maxes", "maxes")
    space = exchange.space = channel.word("kvsname", "get_my_kvsname", "my_kvsname")
    if rank == 0:
        value = f"{own_address()}/pmi-{secrets.token_hex(8)}"
        if not longest.isdecimal() or len(value) >= int(longest):
            raise channel.cannot(f"{value!r} is longer than Hydra's {longest} characters")
        channel.send("put", "put_result", kvsname=space, key=KEY, value=value)
    channel.send("barrier_in", "barrier_out")
    return _located(channel, channel.word("value", "get", "get_result", kvsname=space, key=KEY))


def _located(channel: Channel, value: str, how: str = "") -> HostAnswer:
    """Read what rank 0 published: its address, and a token that serves where the launcher gives no job id."""
    host, _, token = value.rpartition("/")
    try:
        return HostAnswer(host_name(host), f"PMI-1 of mpiexec{how}", token)
    except ValueError as expected:
        raise channel.cannot(f"rank 0 published {value!r}, expected {expected} and a token") from None


def _descriptor(environ: Environ) -> int | str:
    """Return the channel's descriptor, if it is a socket of one of our ancestors and no number that is left over."""
    text = environ.get("PMI_FD") or ""
    if not text.isdecimal():
        return "PMI_FD is not set" if not text else f"PMI_FD is {text!r}, and no number"
    try:
        if not stat.S_ISSOCK(os.fstat(int(text)).st_mode):
            return f"PMI_FD is {text}, which is no socket"
        with socket.socket(fileno=os.dup(int(text))) as channel:
            credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError as error:
        return f"PMI_FD is {text}, which is no channel of this process: {error.strerror}"
    if struct.unpack("3i", credentials)[0] not in set(ancestors()):
        return f"PMI_FD is {text}, whose other end is no process above this one"
    return int(text)


def _finalize() -> None:
    """Report this rank's end to the proxy, unless MPI has taken the channel over, which says it itself.

    Before, ask once more, and leave the answer for the next program of this task: the goodbye closes the channel.
    """
    exchange = _begun[0]
    if exchange.finalized or exchange.pid != os.getpid() or mpi_has_begun():
        return
    exchange.finalized = True
    channel = exchange.channel
    channel.until = time.monotonic() + GOODBYE
    try:
        channel.leave("get", 1, kvsname=exchange.space, key=KEY)
        channel.leave("finalize", 2)
    except CannotLocate:
        return  # the proxy is gone, and its job with it
