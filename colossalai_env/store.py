"""The TCPStore: torch's own, for the process group, and the roll call's side of it, which waits for nobody in vain."""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar, cast

import attrs

from .addresses import Target, shown
from .rollcall import Add, Alive, Append, Await, Pause, Post, Read, Request, Swap
from .scout import answers
from .wire import Line

log = logging.getLogger("colossalai_env")

T = TypeVar("T")


class Store(Protocol):
    """One of torch's stores."""

    def set(self, key: str, value: str, /) -> None: ...  # noqa: D102


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
        """Return what the call returned, or raise what it raised, when it has ended."""
        self.done.wait()
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


_under_way: "set[Task[Any]]" = set()


def calls_under_way() -> bool:
    """Tell whether a thread is inside a call of torch that nobody waits for any more."""
    return bool(_under_way)


def start(call: Callable[[], T]) -> Task[T]:
    """Make a blocking call on a thread of its own."""
    task: Task[T] = Task()
    _under_way.add(task)

    def run() -> None:
        try:
            task.value = call()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, whatever it is
            task.error = error
        _under_way.discard(task)
        task.done.set()

    threading.Thread(target=run, daemon=True, name="colossalai_env store").start()
    return task


def importing_torch() -> Task[ModuleType] | None:
    """Begin to import torch, on a thread, which can be waited for with a bound; None where it is imported already."""
    if hasattr(sys.modules.get("torch"), "accelerator"):
        return None
    return start(lambda: import_module("torch.distributed"))


ANSWER = 5.0
"""Seconds within which a store answers a request that it need not wait for."""

SLOW = 2.0
"""Seconds after which a connection counts as held up by the name server."""


def torch_release() -> tuple[int, ...]:
    """Return the numbers of torch's version, such as (2, 13, 0)."""
    import torch

    return tuple(int(part) for part in torch.__version__.split("+", maxsplit=1)[0].split(".")[:3] if part.isdigit())


def _tcp_store(target: Target, seconds: float, **options: Any) -> Store:  # noqa: ANN401 - torch's own options
    """Make torch's store; torch takes seconds to import, so it comes after the socket is bound."""
    from torch import distributed

    c10d: Any = distributed  # it does not export its stores to type checkers
    began = time.monotonic()
    store: Store = c10d.TCPStore(*target, wait_for_workers=False, timeout=timedelta(seconds=seconds), **options)
    took = time.monotonic() - began
    if took >= SLOW:
        log.warning(
            "torch's store took %.1f s to connect to %s; before it does, torch asks the name server for that address's "
            "name: see colossalai-env doctor",
            took,
            shown(target),
        )
    return store


def serve(listener: socket.socket, target: Target, seconds: float) -> Task[Store]:
    """Serve a TCPStore on a socket that already listens; clients that came early wait in its queue.

    `target` is where this process itself reaches it.

    torch looks up a name while it makes one, which can take long, though the store already serves.
    """
    taken = {"is_master": True, "master_listen_fd": listener.detach()}

    def make() -> Store:
        older = {"use_libuv": False} if torch_release() < (2, 8) else {}  # takes a socket: pytorch/pytorch#150215
        return _tcp_store(target, seconds, **taken, **older)

    return start(make)


def client(target: Target, seconds: float) -> Store:
    """Connect torch's own client; it waits for ever on a silent server, so call it on a thread."""
    return _tcp_store(target, seconds, is_master=False)


def cut(target: Target) -> None:
    """Shut this process's connections to a store down: torch's stores have no way to be closed."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as connection:
            if connection.family == socket.AF_UNIX:
                continue
            address, port = connection.getpeername()[:2]
            if (address.removeprefix("::ffff:"), port) == target:
                connection.shutdown(socket.SHUT_RDWR)


class Ledger:
    """The roll call's side of a store: it performs requests, under the prefix of a job and an attempt.

    A request that waits occupies its connection; what must be said meanwhile goes over another one.
    """

    def __init__(self, target: Target, prefix: str) -> None:
        self.target = target
        self.prefix = prefix
        self.until = float("inf")
        """When even a store that does not answer may take no more time, on `time.monotonic`'s clock."""
        self._lost: StoreLost | None = None
        self._lines: list[Line] = []
        self._waits: dict[tuple[str, ...], Line] = {}

    def perform(self, request: Request) -> Any:  # noqa: ANN401 - each request has its own answer
        """Make one request; raise `StoreLost` when the store breaks off or is silent, and from then on at once."""
        if self._lost is not None:
            raise self._lost
        try:
            return self._perform(request)
        except OSError as error:
            slow = isinstance(error, TimeoutError)
            self._lost = StoreLost("the store does not answer" if slow else str(error))
            raise self._lost from error

    def _perform(self, request: Request) -> Any:  # noqa: ANN401, PLR0911 - each request has its own answer
        match request:
            case Read(key, within, shared):
                return self._read(key if shared else self.prefix + key, within)
            case Await(keys, within):
                return self._await([self.prefix + key for key in keys], within)
            case Append(key, text):
                return self._ask(lambda line: line.append(self.prefix + key, text))
            case Add(key, amount):
                return self._ask(lambda line: line.add(self.prefix + key, amount))
            case Post(entries):
                named = {self.prefix + key: text for key, text in entries.items()}
                return self._ask(lambda line: line.post(named))
            case Swap(key, expected, desired):
                return self._ask(lambda line: line.swap(self.prefix + key, expected, desired))
            case Alive(within):
                return answers(self.target, within)
            case Pause(seconds):
                return time.sleep(seconds)

    def own_address(self) -> str:
        """Return the address of this host by which the store was reached."""
        return self._ask(lambda line: line.own_address())

    def rest(self) -> None:
        """Keep one connection of those that nothing waits on: rank 0 holds as many as all ranks have."""
        for line in [line for line in self._lines if not line.busy][1:]:
            self._lines.remove(line)
            line.close()

    def close(self) -> None:
        """Let go of the store."""
        for line in self._lines:
            line.close()
        self._lines.clear()
        self._waits.clear()

    def _read(self, name: str, within: float) -> str | None:
        if within == 0:
            return self._ask(lambda line: line.get(name) if line.check([name]) else None)
        line = self._wait((name,), within)
        return None if line is None else self._on(line, lambda line: line.get(name))

    def _await(self, names: Sequence[str], within: float) -> bool:
        if not names or within == 0:
            return not names or self._ask(lambda line: line.check(names))
        return self._wait(tuple(names), within) is not None

    def _ask(self, call: Callable[[Line], T]) -> T:
        return self._on(self._free(), call)

    def _on(self, line: Line, call: Callable[[Line], T]) -> T:
        line.until = self._latest()
        line.busy = True
        value = call(line)
        line.busy = False
        return value

    def _wait(self, names: tuple[str, ...], within: float) -> Line | None:
        """Wait on a connection of its own; a wait that is called off goes on when it is asked for again."""
        line = self._waits.get(names)
        if line is None:
            line = self._waits[names] = self._free()
            line.busy = True
            line.until = self._latest()
            line.wait_for(names)
        if not line.told(within):
            return None
        del self._waits[names]
        line.busy = False
        return line

    def _free(self) -> Line:
        for line in self._lines:
            if not line.busy:
                return line
        self._lines.append(Line(self.target, self._latest()))
        return self._lines[-1]

    def _latest(self) -> float:
        """Return when the answer to a request that need not wait must be there."""
        now = time.monotonic()
        return min(now + ANSWER, max(now + 0.3, self.until))
