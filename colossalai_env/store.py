"""The TCPStore: served or found, and used from threads, so that signals and deadlines are served meanwhile."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar, cast

import attrs

from .rollcall import Add, Alive, Append, Await, Pause, Post, Read, Request, Swap
from .scout import Target, answers, shown

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
    def set_timeout(self, timeout: timedelta, /) -> None: ...  # noqa: D102
    def multi_set(self, keys: list[str], values: list[str], /) -> None: ...  # noqa: D102


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


def client(target: Target, seconds: float, within: float) -> Store:
    """Connect to a TCPStore that answers; its later calls may take `seconds`. Raise `StoreLost` if it fails in time.

    torch's own client tries again for as long as its calls may take, and waits for ever on a server that is silent, so
    it is made on a thread.
    """
    worker = Worker()
    task = worker.start(lambda: _tcp_store(target, within, is_master=False))
    worker.close()
    if not task.wait(within + 0.2):
        cut(target)
        msg = f"the store at {shown(target)} did not take a connection within {within:.1f} s"
        raise StoreLost(msg)
    store = _outcome(task)
    store.set_timeout(timedelta(seconds=seconds))
    return store


def cut(target: Target) -> None:
    """Shut this process's connections to a store down: torch's stores have no way to be closed."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as connection:
            if connection.family == socket.AF_UNIX:
                continue
            address, port = connection.getpeername()[:2]
            if (address.removeprefix("::ffff:"), port) == target:
                connection.shutdown(socket.SHUT_RDWR)


def serve(listener: socket.socket, seconds: float) -> Store:
    """Serve a TCPStore on a socket that already listens; clients that came early wait in its queue."""
    target = listener.getsockname()[:2]
    return _tcp_store(target, seconds, is_master=True, master_listen_fd=listener.detach())


class _Line:
    """One connection to the store, used from one thread."""

    def __init__(self, connect: Callable[[], Store], within: float = ANSWER) -> None:
        self.worker = Worker()
        task = self.worker.start(connect)
        if not task.wait(within):
            raise StoreLost(f"the store did not take a connection within {within:.1f} s")
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
        self.until = float("inf")
        """When even a store that does not answer may take no more time, on `time.monotonic`'s clock."""
        self._lost: StoreLost | None = None
        self._lines = [_Line(lambda: store)]
        self._waits: dict[tuple[str, ...], tuple[_Line, Task[Any]]] = {}

    def perform(self, request: Request) -> Any:  # noqa: ANN401 - each request has its own answer
        """Make one request; raise `StoreLost` when the store breaks off or is silent, and from then on at once."""
        if self._lost is not None:
            raise self._lost
        try:
            return self._perform(request)
        except StoreLost as lost:
            self._lost = lost
            raise

    def _perform(self, request: Request) -> Any:  # noqa: ANN401, PLR0911 - each request has its own answer
        match request:
            case Read(key, within, shared):
                return self._read(key if shared else self.prefix + key, within)
            case Await(keys, within):
                return self._await(keys, within)
            case Append(key, text):
                return self._ask(lambda store: store.append(self.prefix + key, text))
            case Add(key, amount):
                return self._ask(lambda store: store.add(self.prefix + key, amount))
            case Post(entries):
                return self._ask(lambda store: self._post(store, entries))
            case Swap(key, expected, desired):
                return self._ask(lambda store: store.compare_set(self.prefix + key, expected, desired).decode())
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
            cut(self.target)
            within = min(1.0, self._within()) / len(tasks)
            for task in tasks:
                task.wait(within)
        for line in self._lines:
            line.worker.close()
        self._lines.clear()
        self._waits.clear()

    def _post(self, store: Store, entries: Mapping[str, str]) -> None:
        if len(entries) > 1:
            store.multi_set([self.prefix + key for key in entries], list(entries.values()))
        else:
            for key, value in entries.items():
                store.set(self.prefix + key, value)

    def _read(self, name: str, within: float) -> str | None:
        if within == 0:
            return self._ask(lambda store: store.get(name).decode() if store.check([name]) else None)
        return self._wait((name,), lambda store: store.get(name).decode(), within)

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
        within = self._within()
        if not task.wait(within):
            msg = f"the store did not answer within {within:.1f} s"
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
        within = self._within()
        if not answers(self.target, min(2.0, within)):
            raise StoreLost("the store no longer answers")
        self._lines.append(_Line(lambda: client(self.target, self.seconds, within), within + 0.5))
        return self._lines[-1]

    def _within(self) -> float:
        """Return how long a request that need not wait may take."""
        return min(ANSWER, max(0.3, self.until - time.monotonic()))
