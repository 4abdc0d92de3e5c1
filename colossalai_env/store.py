"""The socket and the TCPStore: rank 0 binds and serves, all others find it; no wait is without end."""

import errno
import os
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar, cast

import attrs

from .endpoint import Endpoint, addresses
from .errors import NotMyAddress, PortTaken, TooFewFileDescriptors
from .rollcall import Add, Alive, Append, Await, Pause, Post, Read, Request

BACKLOG = 4096
"""Clients that may wait in the kernel's queue while rank 0 imports torch."""

NONCE = 20090402
PING = struct.pack("=BIBI", 0, 0x3C85F7CE, 13, NONCE)
"""What every TCPStore client sends first: VALIDATE with c10d's magic number, then PING (TCPStoreBackend.hpp)."""

PONG = struct.pack("=I", NONCE)

SILENT = "accepts connections and says nothing"

Target = tuple[str, int]
T = TypeVar("T")


class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str, /) -> None: ...  # noqa: D102
    def get(self, key: str, /) -> bytes: ...  # noqa: D102
    def add(self, key: str, amount: int, /) -> int: ...  # noqa: D102
    def append(self, key: str, value: str, /) -> None: ...  # noqa: D102
    def check(self, keys: list[str], /) -> bool: ...  # noqa: D102
    def wait(self, keys: list[str], /) -> None: ...  # noqa: D102
    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes: ...  # noqa: D102
    def multi_set(self, keys: list[str], values: list[str], /) -> None: ...  # noqa: D102


def shown(target: Target) -> str:
    """Write an address and a port as people do, IPv6 in brackets."""
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bind(target: Target) -> socket.socket:
    """Listen at one address, on no other interface; raise `OSError`."""
    listener = socket.socket(_family(target[0]))
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


def check_file_descriptors(world_size: int) -> None:
    """Raise `TooFewFileDescriptors` where rank 0 could not hold a connection for each rank."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(os.listdir("/proc/self/fd")) + 2 * world_size + 32
    if needed > limit:
        raise TooFewFileDescriptors(limit, needed)


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
    met: dict[Target, str] = attrs.field(factory=dict)
    """What answered last at each target."""
    _probes: list[_Probe] = attrs.field(init=False)
    _selector: selectors.BaseSelector = attrs.field(init=False, factory=selectors.DefaultSelector)

    def __attrs_post_init__(self) -> None:
        """Begin with all targets due."""
        self._probes = [_Probe(target) for target in self.targets]

    def find(self, until: float) -> Target | None:
        """Return a target where a TCPStore answers, or None when the time is over."""
        while (now := time.monotonic()) < until:
            for probe in self._probes:
                if probe.connection is None and probe.due <= now:
                    self._connect(probe)
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
        for probe in self._probes:
            self._drop(probe)
        self._selector.close()

    def _connect(self, probe: _Probe) -> None:
        probe.connection = socket.socket(_family(probe.target[0]))
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
                connection.send(PING)
                self._selector.modify(connection, selectors.EVENT_READ, probe)
                self.met[probe.target] = SILENT
                return False
            heard = connection.recv(64)
        except OSError as error:
            self._fail(probe, _refusal(error.errno or 0))
            return False
        probe.heard += heard
        if probe.heard == PONG:
            self._drop(probe)
            probe.due = float("inf")
            return True
        if not heard or not PONG.startswith(probe.heard):
            self._fail(probe, f"is no torch store: {_first(probe.heard)}", 0.5)
        return False

    def _fail(self, probe: _Probe, what: str, pause: float = 0.0) -> None:
        self.met[probe.target] = what
        self._drop(probe)
        probe.pause = min(self.slowest, probe.pause * 1.5)
        probe.due = time.monotonic() + max(pause, probe.pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    def _drop(self, probe: _Probe) -> None:
        if probe.connection is not None:
            if probe.connection in self._selector.get_map():
                self._selector.unregister(probe.connection)
            probe.connection.close()
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


class StoreLost(Exception):
    """The store broke off or no longer answers."""


@attrs.define(eq=False)
class Task(Generic[T]):
    """A blocking call under way on a thread of its own, so that signals and deadlines are served meanwhile."""

    done: threading.Event = attrs.field(factory=threading.Event)
    value: T | None = None
    error: BaseException | None = None

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the call; tell whether it has ended."""
        return self.done.wait(max(0.0, seconds))

    def result(self) -> T:
        """Return what the ended call returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


_under_way: "set[Task[Any]]" = set()


def calls_under_way() -> bool:
    """Tell whether a thread is inside a call of torch that nobody waits for any more."""
    return bool(_under_way)


@attrs.define
class Worker:
    """A daemon thread that makes blocking calls one after the other."""

    _calls: SimpleQueue[tuple[Callable[[], Any], Task[Any]] | None] = attrs.field(init=False, factory=SimpleQueue)

    def __attrs_post_init__(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, daemon=True, name="colossalai_env store").start()

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            call, task = item
            _under_way.add(task)
            try:
                task.value = call()
            except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, whatever it is
                task.error = error
            _under_way.discard(task)
            task.done.set()
            del call, task, item

    def start(self, call: Callable[[], T]) -> Task[T]:
        """Make a call when those before it have ended."""
        task: Task[T] = Task()
        self._calls.put((call, task))
        return task

    def close(self) -> None:
        """End the thread after the calls that are under way."""
        self._calls.put(None)


ANSWER = 5.0
"""Seconds within which a store answers a request that it need not wait for."""


def _tcp_store(target: Target, seconds: float, **options: Any) -> Store:  # noqa: ANN401 - torch's own options
    """Make torch's store; torch takes seconds to import, so it comes after the socket is bound."""
    from torch import distributed

    c10d: Any = distributed  # it does not export its stores to type checkers
    store: Store = c10d.TCPStore(*target, wait_for_workers=False, timeout=timedelta(seconds=seconds), **options)
    return store


def client(target: Target, seconds: float) -> Store:
    """Connect to a TCPStore that is known to answer."""
    return _tcp_store(target, seconds, is_master=False)


def serve(listener: socket.socket, seconds: float) -> Store:
    """Serve a TCPStore on a socket that already listens; clients that came early wait in its queue."""
    target = listener.getsockname()[:2]
    return _tcp_store(target, seconds, is_master=True, master_listen_fd=listener.detach())


class _Line:
    """One connection to the store, used from one thread."""

    def __init__(self, connect: "Callable[[], Store]") -> None:
        self.worker = Worker()
        task = self.worker.start(connect)
        if not task.wait(ANSWER):
            msg = f"the store did not take a connection within {ANSWER:.0f} s"
            raise StoreLost(msg)
        self.store = _outcome(task)

    def start(self, call: Callable[[Store], T]) -> Task[T]:
        return self.worker.start(lambda: call(self.store))


def _outcome(task: Task[T]) -> T:
    try:
        return task.result()
    except RuntimeError as error:  # torch.distributed.DistError and what C++ throws
        raise StoreLost(str(error).partition("\n")[0]) from error


_LENT = ("a call of the caller's own",)


class Ledger:
    """The roll call's side of a store: it performs requests, under the prefix of a job and an attempt.

    A request that waits occupies its connection; what must be said meanwhile goes over another one.
    """

    def __init__(self, store: Store, target: Target, prefix: str, seconds: float) -> None:
        self.target = target
        self.prefix = prefix
        self.seconds = seconds
        self._lines = [_Line(lambda: store)]
        self._waits: dict[tuple[str, ...], tuple[_Line, Task[Any]]] = {}

    def perform(self, request: Request) -> Any:  # noqa: ANN401, PLR0911 - each request has its own answer
        """Make one request; raise `StoreLost` when the store breaks off or is silent."""
        match request:
            case Read(key, within):
                return self._read(key, within)
            case Await(keys, within):
                return self._await(keys, within)
            case Append(key, text):
                return self._ask(lambda store: store.append(self.prefix + key, text))
            case Add(key, amount):
                return self._ask(lambda store: store.add(self.prefix + key, amount))
            case Post(entries):
                return self._ask(lambda store: self._post(store, entries))
            case Alive(within):
                return answers(self.target, within)
            case Pause(seconds):
                return time.sleep(seconds)

    def lend(self, call: Callable[[Store], T]) -> Task[T]:
        """Make a blocking call with the first connection, which is taken until `take_back`."""
        task = self._lines[0].start(call)
        self._waits[_LENT] = self._lines[0], task
        return task

    def take_back(self) -> None:
        """Use the first connection again."""
        del self._waits[_LENT]

    def close(self) -> None:
        """Let go of the store; calls that still wait, after a failure, are ended by cutting their connections."""
        tasks = [task for _, task in self._waits.values() if not task.done.is_set()]
        if tasks:
            self._cut()
            for task in tasks:
                task.wait(1.0)
        for line in self._lines:
            line.worker.close()
        self._lines.clear()
        self._waits.clear()

    def _cut(self) -> None:
        """Shut this process's connections to the store down: torch's stores have no way to be closed."""
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as connection:
                address, port = connection.getpeername()[:2]
                if (address.removeprefix("::ffff:"), port) == self.target:
                    connection.shutdown(socket.SHUT_RDWR)

    def _post(self, store: Store, entries: Mapping[str, str]) -> None:
        if len(entries) > 1:
            store.multi_set([self.prefix + key for key in entries], list(entries.values()))
        else:
            for key, value in entries.items():
                store.set(self.prefix + key, value)

    def _read(self, key: str, within: float) -> str | None:
        name = self.prefix + key
        if within == 0:
            return self._ask(lambda store: store.get(name).decode() if store.check([name]) else None)
        return self._wait((key,), lambda store: store.get(name).decode(), within)

    def _await(self, keys: tuple[str, ...], within: float) -> bool:
        names = [self.prefix + key for key in keys]
        if not names or within == 0:
            return not names or self._ask(lambda store: store.check(names))

        def waited(store: Store) -> bool:
            store.wait(names)
            return True

        return bool(self._wait(keys, waited, within))

    def _ask(self, call: Callable[[Store], T]) -> T:
        task = self._free().start(call)
        if not task.wait(ANSWER):
            msg = f"the store did not answer within {ANSWER:.0f} s"
            raise StoreLost(msg)
        return _outcome(task)

    def _wait(self, keys: tuple[str, ...], call: Callable[[Store], T], within: float) -> T | None:
        """Wait on a connection of its own; a wait that is called off goes on when it is asked for again."""
        if keys not in self._waits:
            line = self._free()
            self._waits[keys] = line, line.start(call)
        task: Task[T] = self._waits[keys][1]
        if not task.wait(within):
            return None
        del self._waits[keys]
        return _outcome(task)

    def _free(self) -> _Line:
        taken = [line for line, _ in self._waits.values()]
        for line in self._lines:
            if all(line is not other for other in taken):
                return line
        self._lines.append(_Line(lambda: client(self.target, self.seconds)))
        return self._lines[-1]
