"""The socket: rank 0 binds one address, and the others look for it by plain TCP; no wait is without end.

Here is all that is said without torch, which takes seconds to import and cannot be asked anything before.
"""

import errno
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import cast

import attrs

from .endpoint import Endpoint, addresses
from .errors import NotMyAddress, PortTaken, RankFailed, TooFewFileDescriptors
from .wire import PING, PONG, VALIDATE, Line, Target, family

BACKLOG = 4096
"""Clients that may wait in the kernel's queue while rank 0 imports torch."""

FAREWELL = b"colossalai_env: "
"""What a rank 0 that goes before it has a store says first, instead of a store's answer; its job's id follows."""

SILENT = "accepts connections and says nothing"


def shown(target: Target) -> str:
    """Write an address and a port as people do, IPv6 in brackets."""
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def bind(target: Target) -> socket.socket:
    """Listen at one address, on no other interface; raise `OSError`."""
    listener = socket.socket(family(target[0]))
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listen(endpoint: Endpoint, port: int) -> socket.socket | Target:
    """Bind rank 0's socket at `port`; return who it is taken by otherwise.

    Raises `NotMyAddress` where the host is another machine's.
    """
    for address in endpoint.addresses:
        try:
            return bind((address, port))
        except OSError as error:  # noqa: PERF203 - a host has few addresses
            if error.errno == errno.EADDRINUSE:
                return address, port
            if error.errno != errno.EADDRNOTAVAIL:
                raise PortTaken(endpoint.host, port, endpoint.source, f"the system: {error.strerror}") from None
    here = socket.gethostname()
    raise NotMyAddress(endpoint.host, endpoint.source, " and ".join(endpoint.addresses), here, _own_addresses(here))


def _own_addresses(here: str) -> tuple[str, ...]:
    try:
        return addresses(here)
    except OSError:
        return ()


SPARE = 32
"""File descriptors that torch and the program may need besides."""


def largest_world(limit: int) -> int:
    """Return for how many ranks rank 0's limit of open files suffices: each has two connections at times."""
    return max(0, (limit - len(os.listdir("/proc/self/fd")) - SPARE) // 2)


def check_file_descriptors(world_size: int) -> None:
    """Raise `TooFewFileDescriptors` where rank 0 could not hold the connections of all ranks."""
    limit = os.sysconf("SC_OPEN_MAX")  # the soft limit; the module resource takes a third of a millisecond to import
    if world_size > largest_world(limit):
        raise TooFewFileDescriptors(limit, len(os.listdir("/proc/self/fd")) + 2 * world_size + SPARE)


def turn_away(listener: socket.socket, job: str, sentence: str, seconds: float) -> None:
    """Tell those who wait for a store that is not served yet why it will never be."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        listener.settimeout(left)
        with suppress(OSError), listener.accept()[0] as connection:
            connection.settimeout(0.2)
            connection.recv(64)  # what is unread would cost the other side our words
            connection.sendall(FAREWELL + f"{job}\n{sentence}".encode())


def leave_word(targets: Sequence[Target], key: str, text: str, seconds: float) -> None:
    """Add a text to a key of the stores at `targets`; one that is not served yet reads it when it is."""
    until = time.monotonic() + seconds
    taken = False
    while not taken and time.monotonic() < until:
        for target in targets:
            with suppress(OSError), closing(Line(target, until)) as line:
                line.append(key, text)
                taken = True
        time.sleep(0.01)


@attrs.define(eq=False)
class _Probe:
    """One address and port that rank 0 may listen at, and what is known of it."""

    target: Target
    due: float = 0.0
    pause: float = 0.002
    connection: socket.socket | None = None
    heard: bytes = b""


@attrs.define
class Scout:
    """Looks for a TCPStore by plain TCP, without torch's own client, which waits for ever on a silent service."""

    targets: Sequence[Target]
    slowest: float = 0.02
    """Seconds between two tries, at most; larger worlds try less often."""
    job: str | None = None
    """Whose rank 0 is looked for; when it says that it goes, so do we."""
    met: dict[Target, str] = attrs.field(factory=dict)
    """What answered last at each target."""
    _probes: list[_Probe] = attrs.field(init=False)
    _selector: selectors.BaseSelector = attrs.field(init=False, factory=selectors.DefaultSelector)
    _thread: threading.Thread | None = attrs.field(init=False, default=None)
    _begun: threading.Event = attrs.field(init=False, factory=threading.Event)

    def __attrs_post_init__(self) -> None:
        """Begin with all targets due."""
        self._probes = [_Probe(target) for target in self.targets]

    def begin(self) -> None:
        """Connect in a thread, as soon as somebody listens, so that what is said there before `find` is not missed."""
        self._thread = threading.Thread(target=self._greet, daemon=True, name="colossalai_env scout")
        self._thread.start()

    def _greet(self) -> None:
        while not self._begun.wait(0.01):
            self._connect_due(time.monotonic())
            for key, _ in self._selector.select(0):
                if key.events == selectors.EVENT_WRITE:
                    self._answered(key.data)

    def _go_on(self) -> None:
        """Take over from the thread."""
        self._begun.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def find(self, until: float) -> Target | None:
        """Return a target where a TCPStore answers, or None when the time is over.

        Raises `RankFailed` where the job's rank 0 says that it goes.
        """
        self._go_on()
        while (now := time.monotonic()) < until:
            self._connect_due(now)
            due = [probe.due for probe in self._probes if probe.connection is None]
            wait = max(0.0, min([until, now + 0.2, *due]) - now)
            for key, _ in self._selector.select(wait):
                if self._answered(key.data):
                    return cast("Target", key.data.target)
        return None

    def reject(self, target: Target, reason: str, pause: float = 0.5) -> None:
        """Try a target again later: its store is not the one that is looked for."""
        self.met[target] = reason
        for probe in self._probes:
            if probe.target == target:
                probe.due = time.monotonic() + pause

    def story(self) -> str:
        """Say what answered at each target."""
        return "; ".join(f"{shown(target)} {what}" for target, what in self.met.items()) or "nothing was tried"

    def close(self) -> None:
        """Close what is open."""
        self._go_on()
        for probe in self._probes:
            self._drop(probe)
        self._selector.close()

    def _connect_due(self, now: float) -> None:
        for probe in self._probes:
            if probe.connection is None and probe.due <= now:
                self._connect(probe)

    def _connect(self, probe: _Probe) -> None:
        probe.connection = socket.socket(family(probe.target[0]))
        probe.connection.setblocking(False)  # noqa: FBT003 - the socket's own spelling
        probe.heard = b""
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
                connection.send(VALIDATE + PING)
                self._selector.modify(connection, selectors.EVENT_READ, probe)
                self.met[probe.target] = SILENT
                return False
            heard = connection.recv(4096)
        except OSError as error:
            self._fail(probe, _refusal(error.errno or 0))
            return False
        probe.heard += heard
        if probe.heard == PONG:
            self._drop(probe)
            probe.due = float("inf")
            return True
        if probe.heard.startswith(FAREWELL):
            if not heard:
                self._take_leave(probe)
        elif not heard or not PONG.startswith(probe.heard):
            self._fail(probe, f"is no torch store: {_first(probe.heard)}", 0.5)
        return False

    def _take_leave(self, probe: _Probe) -> None:
        job, _, sentence = probe.heard.removeprefix(FAREWELL).decode(errors="replace").partition("\n")
        if job == self.job:
            raise RankFailed(sentence)
        self._fail(probe, f"was another job's rank 0: {sentence}", 0.5)

    def _fail(self, probe: _Probe, what: str, pause: float = 0.0) -> None:
        self.met[probe.target] = what
        self._drop(probe)
        probe.pause = min(self.slowest, probe.pause * 1.5)
        probe.due = time.monotonic() + max(pause, probe.pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

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


def answers(target: Target, seconds: float) -> bool:
    """Tell whether a TCPStore answers at `target` within the seconds."""
    scout = Scout([target])
    try:
        return scout.find(time.monotonic() + seconds) is not None
    finally:
        scout.close()


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
