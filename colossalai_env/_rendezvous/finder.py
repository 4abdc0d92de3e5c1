"""Guests look for rank 0's store by plain TCP; torch's own client would wait for ever on a silent service."""

import errno
import os
import random
import selectors
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import cast

import attrs

from colossalai_env._addresses import Target, family, shown
from colossalai_env.errors import RankFailed

from .gate import Gate
from .listener import EARLY, read_early
from .tcp_store import PING, PONG, VALIDATE, TCPStoreConnection

SILENT = "accepts connections and says nothing"
UNHEARD = "does not answer"

OVERDUE = 1.0
"""Seconds after which a connection that is not acknowledged is tried anew.

Where rank 0's queue is full, the kernel would try again after 1, 2, 4, 8 and more seconds, also when there is room.
"""

AWHILE = 10.0
"""Seconds between two tries of a rank that waits for another of its node to find the store, if that one is stopped."""


def leave_word(finder: "StoreFinder", key: str, text: str, seconds: float) -> None:
    """Add a text to a key of the stores where rank 0 may be; one that is not served yet reads it when it is."""
    until = time.monotonic() + seconds
    taken = False
    while not taken and time.monotonic() < until:
        for target in finder.stores():
            with suppress(OSError), closing(TCPStoreConnection(target, until)) as connection:
                connection.append(key, text)
                taken = True
        time.sleep(0.01)


@attrs.define(eq=False)
class _Probe:
    """One address and port that rank 0 may listen at, and what is known of it."""

    target: Target
    due: float = 0.0
    pause: float = 0.002
    connection: socket.socket | None = None
    overdue: float = 0.0
    """When it is tried anew, where what was sent is not acknowledged until then."""
    heard: bytes = b""


@attrs.define
class StoreFinder:
    """Looks for a TCPStore at some targets, and where the job's directory says that rank 0 is."""

    targets: Sequence[Target]
    slowest: float = 0.02
    """Seconds between two tries, at most; larger worlds try less often."""
    job: str | None = None
    """Whose rank 0 is looked for; when it says that it goes, so do we."""
    directory: bool = False
    """Whether a directory answers at the targets, and not rank 0."""
    crowd: bool = False
    """Whether there are so many ranks that one of a node looks for all."""
    met: dict[Target, str] = attrs.field(factory=dict)
    """What answered last at each target."""
    _probes: list[_Probe] = attrs.field(init=False)
    _gate: Gate = attrs.field(init=False)
    _found: socket.socket | None = attrs.field(init=False, default=None)
    """The connection over which a store has answered, until it is taken."""
    _until: float = attrs.field(init=False, default=0.0)
    _selector: selectors.BaseSelector = attrs.field(init=False, factory=selectors.DefaultSelector)

    def __attrs_post_init__(self) -> None:
        """Begin with all targets due."""
        self._probes = [_Probe(target) for target in self.targets]
        self._gate = Gate(self.job, self.targets)

    def find(self, until: float) -> Target | None:
        """Return a target where a TCPStore answers, or None when the time is over.

        Raises `RankFailed` where the job's rank 0 says that it goes.
        """
        self._until = until
        while (now := time.monotonic()) < until:
            found = self.look(min(until, now + 0.2))
            if found is not None:
                return found
        return None

    def look(self, until: float) -> Target | None:
        """Do what is due, and take what comes next; return a target where a TCPStore answers."""
        now = time.monotonic()
        self._connect_due(now)
        due = [probe.due for probe in self._probes if probe.connection is None]
        for key, _ in self._selector.select(max(0.0, min([until, *due]) - now)):
            if key.data is None:
                self._pass_gate()
            elif self._answered(key.data):
                self._leave_gate()  # the others of this node find it too
                return cast("Target", key.data.target)
        self._give_up_overdue(now)
        return None

    def reject(self, target: Target, reason: str, pause: float = 0.5) -> None:
        """Try a target again later: its store is not the one that is looked for."""
        self.met[target] = reason
        for probe in self._probes:
            if probe.target == target:
                probe.due = time.monotonic() + pause

    def taken(self) -> socket.socket | None:
        """Hand over the connection to the store that was found: in a large world each one fewer counts."""
        found, self._found = self._found, None
        return found

    def stores(self) -> list[Target]:
        """Return where a store may be: the targets, or, where they are a directory's, what that has told."""
        told = [probe.target for probe in self._probes[len(self.targets) :]]
        return told if self.directory else list(self.targets)

    @property
    def silent(self) -> bool:
        """Whether a process listens at a target and does not answer."""
        return SILENT in self.met.values()

    def attempts(self) -> str:
        """Describe what answered at each target; those at which the same did are named together."""
        alike: dict[str, list[str]] = {}
        for target, what in self.met.items():
            alike.setdefault(what, []).append(shown(target))
        told = (f"{'each of ' if len(who) > 1 else ''}{', '.join(who)} {what}" for what, who in alike.items())
        return "; ".join(told) or "nothing was tried"

    def close(self) -> None:
        """Close what is open."""
        for probe in self._probes:
            self._drop(probe)
        self._let_go()
        self._gate.leave()
        self._selector.close()

    def _connect_due(self, now: float) -> None:
        for probe in self._probes:
            if probe.connection is None and probe.due <= now:
                self._connect(probe)

    def _give_up_overdue(self, now: float) -> None:
        """Drop what rank 0's host has not acknowledged, though this process has looked: nobody will see that soon."""
        for probe in self._probes:
            connection = probe.connection
            if connection is not None and probe.overdue <= now:
                probe.overdue = float("inf")
                connecting = self._selector.get_key(connection).events == selectors.EVENT_WRITE
                if connecting or unacknowledged(connection):
                    self._fail(probe, UNHEARD)

    def _pass_gate(self) -> None:
        """Look by oneself, now that the one who looked has found the store or is gone."""
        self._leave_gate()
        for probe in self._probes:
            probe.due = min(probe.due, time.monotonic())

    def _leave_gate(self) -> None:
        if self._gate.ahead is not None and self._gate.ahead in self._selector.get_map():
            self._selector.unregister(self._gate.ahead)
        self._gate.leave()

    def _connect(self, probe: _Probe) -> None:
        probe.connection = socket.socket(family(probe.target[0]))
        probe.connection.setblocking(False)  # noqa: FBT003 - the socket's own spelling
        probe.heard = b""
        probe.overdue = time.monotonic() + OVERDUE
        code = probe.connection.connect_ex(probe.target)
        if code not in {0, errno.EINPROGRESS}:
            self._fail(probe, _refusal(code))
            return
        self._selector.register(probe.connection, selectors.EVENT_WRITE, probe)

    def _answered(self, probe: _Probe) -> bool:
        connection = probe.connection
        if connection is None:
            return False
        code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(probe, _refusal(code))
            return False
        try:
            if self._selector.get_key(connection).events == selectors.EVENT_WRITE:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.send(VALIDATE + PING)
                probe.overdue = time.monotonic() + OVERDUE
                self._selector.modify(connection, selectors.EVENT_READ, probe)
                self.met[probe.target] = SILENT
                return False
            heard = connection.recv(4096)
        except OSError as error:
            self._fail(probe, _refusal(error.errno or 0))
            return False
        probe.heard += heard
        if probe.heard == PONG:
            self._selector.unregister(connection)
            self._let_go()
            self._found, probe.connection, probe.due = connection, None, float("inf")
            return True
        if probe.heard.startswith(EARLY):
            if probe.heard.count(b"\n") == 2 or not heard:
                self._hear(probe)
        elif not heard or not PONG.startswith(probe.heard):
            self._fail(probe, f"is no torch store: {_first(probe.heard)}", 0.5)
        return False

    def _hear(self, probe: _Probe) -> None:
        """Take what a process of ours says in a store's place."""
        job, told = read_early(probe.heard)
        if job != self.job:
            self._fail(probe, f"belongs to another job, {job!r}: {told.get('gone', 'it looks for its rank 0')}", 0.5)
        elif "rank0" in told:
            address, port = told["rank0"]
            self._fail(probe, f"says that rank 0 is at {shown((address, port))}", 5.0)
            if all(other.target != (address, port) for other in self._probes):
                self._probes.append(_Probe((address, port)))
        elif "gone" in told:
            raise RankFailed(told["gone"])
        else:
            self._fail(probe, _first(probe.heard), 0.5)

    def _fail(self, probe: _Probe, what: str, pause: float = 0.0) -> None:
        self.met[probe.target] = what
        self._drop(probe)
        probe.pause = min(self.slowest, probe.pause * 1.5)
        now, apart = time.monotonic(), random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        if self.crowd:
            self._gate.enter()
        if self._gate.ahead is not None:
            if self._gate.ahead not in self._selector.get_map():
                self._selector.register(self._gate.ahead, selectors.EVENT_READ)
            pause = max(pause, min(AWHILE, (self._until - now) / 4) * apart)
        probe.due = now + max(pause, probe.pause * apart)

    def _let_go(self) -> None:
        if self._found is not None:
            self._found.close()
            self._found = None

    def _drop(self, probe: _Probe) -> None:
        """Let go of a connection; a signal that came between these lines leaves the rest of them to `close`."""
        connection = probe.connection
        if connection is not None and connection.fileno() >= 0:
            if connection in self._selector.get_map():
                self._selector.unregister(connection)
            connection.close()
        probe.connection = None


def _first(heard: bytes) -> str:
    return f"its first bytes are {heard[:32]!r}" if heard else "it closes the connection"


def _refusal(code: int) -> str:
    return f"answers {errno.errorcode.get(code, code)} ({os.strerror(code)})"


def unacknowledged(connection: socket.socket) -> bool:
    """Return whether the other host's kernel has not taken what was sent."""
    from fcntl import ioctl  # neither is a module of Windows
    from termios import TIOCOUTQ

    (waiting,) = struct.unpack("=i", ioctl(connection, TIOCOUTQ, bytes(4)))
    return bool(waiting)


def is_answered(target: Target, seconds: float) -> bool:
    """Return whether a TCPStore answers at `target` within the seconds."""
    finder = StoreFinder([target])
    try:
        return finder.find(time.monotonic() + seconds) is not None
    finally:
        finder.close()


def stranger_at(target: Target, seconds: float = 1.5) -> str:
    """Describe what listens at `target` and is no TCPStore, by its first bytes; it is greeted as HTTP expects."""
    try:
        with socket.create_connection(target, timeout=seconds) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            heard = connection.recv(64)
    except TimeoutError:
        return f"a service that is not a torch store: it {SILENT}"
    except OSError as error:
        return f"a service that is not a torch store: it {_refusal(error.errno or 0)}"
    return f"a service that is not a torch store: {_first(heard)}"
