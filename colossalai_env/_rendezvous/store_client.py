"""The protocol's side of a store: it performs requests over plain connections, each with a time limit."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from colossalai_env._addresses import Target
from colossalai_env._calls import Call

from .protocol.keys import full
from .protocol.requests import (
    Add,
    Alive,
    Append,
    Await,
    CallEnd,
    Deadline,
    Pause,
    Post,
    Protocol,
    Read,
    Request,
    Swap,
    Together,
)
from .protocol.timing import ANSWER, ANSWER_LATEST, ANSWER_LEAST
from .tcp_store import TCPStoreConnection, adding, appending, checking, posting

T = TypeVar("T")

Answer = int | bool | None


AT_ONCE = 4096
"""Requests in one message: their answers fit into a socket's buffer, since a store may answer each before the next."""


class StoreLost(Exception):
    """The store broke off or no longer answers."""


class StoreClient:
    """Performs a protocol's requests on a store, under the prefix of an attempt.

    A request that waits occupies its connection; what must be said meanwhile goes over another one.
    """

    def __init__(self, target: Target, answered: socket.socket | None = None) -> None:
        """Connect when something is asked; `answered` is a connection that this store has answered already."""
        self.target = target
        self.prefix = ""
        """What keys begin with, but for those that begin with a slash."""
        self._latest = float("inf")
        """When even a store that does not answer may take no more time, on `time.monotonic`'s clock."""
        self._beside: Call[Any] | None = None
        """The blocking call that goes on beside the protocol at hand."""
        self._lost: StoreLost | None = None
        self._connections = [] if answered is None else [TCPStoreConnection(target, self._until(), answered)]
        self._waits: dict[tuple[str, ...], TCPStoreConnection] = {}

    def drive(self, protocol: Protocol[T], deadline: Deadline | None = None, beside: Call[Any] | None = None) -> T:
        """Perform a protocol's requests, by the deadline and a little later; raise `StoreLost`.

        `beside` is the blocking call that goes on beside the protocol.
        """
        self._beside = beside
        self._latest = float("inf") if deadline is None else deadline.began + deadline.timeout + ANSWER_LATEST
        value: Any = None
        while True:
            try:
                request = protocol.send(value)
            except StopIteration as end:
                return cast("T", end.value)
            value = self.perform(request)

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

    def _perform(self, request: Request) -> Any:  # noqa: ANN401, C901, PLR0911 - each request has its own answer
        match request:
            case Read(key, within):
                return self._read(self._full(key), within)
            case Await(keys, within):
                return self._await([self._full(key) for key in keys], within)
            case Append(key, text):
                return self._ask(lambda connection: connection.append(self._full(key), text))
            case Add(key, amount):
                return self._ask(lambda connection: connection.add(self._full(key), amount))
            case Post(entries):
                return self._ask(lambda connection: connection.post(self._named(entries)))
            case Swap(key, expected, desired):
                return self._ask(lambda connection: connection.swap(self._full(key), expected, desired))
            case Together(requests, then):
                return self._together(requests, () if then is None else (self._full(then),))
            case Alive(within):
                return self._is_alive(within)
            case CallEnd(within):
                return self._beside is None or self._beside.wait(within)
            case Pause(seconds):
                return time.sleep(seconds)

    def _full(self, key: str) -> str:
        return full(key, self.prefix)

    def own_address(self) -> str:
        """Return the address of this host by which the store is reached."""
        try:
            return self._ask(lambda connection: connection.own_address())
        except OSError as error:
            raise StoreLost(str(error)) from error

    def release_idle(self) -> None:
        """Keep one connection of those that nothing waits on: rank 0 holds as many as all ranks have."""
        for connection in [connection for connection in self._connections if not connection.busy][1:]:
            self._connections.remove(connection)
            connection.close()

    def close(self) -> None:
        """Let go of the store."""
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._waits.clear()

    def _read(self, name: str, within: float) -> str | None:
        if within == 0:
            return self._ask(lambda connection: connection.get(name) if connection.check([name]) else None)
        connection = self._wait((name,), within)
        return None if connection is None else self._on(connection, lambda connection: connection.get(name))

    def _await(self, names: Sequence[str], within: float) -> bool:
        if not names or within == 0:
            return not names or self._ask(lambda connection: connection.check(names))
        return self._wait(tuple(names), within) is not None

    def _together(self, requests: Sequence[Append | Add | Post | Await], then: tuple[str, ...]) -> list[Answer]:
        """Make requests, and begin the wait for keys that comes next unless it is under way."""
        packed = [self._packed(request) for request in requests]
        then = () if then in self._waits else then
        connection = self._free()
        connection.until = self._until()
        connection.busy = True
        answers: list[Answer] = []
        for first in range(0, len(packed), AT_ONCE):
            last = first + AT_ONCE >= len(packed)
            answers += connection.together(packed[first : first + AT_ONCE], then if last else ())
        if then:
            self._waits[then] = connection
        connection.busy = bool(then)
        return answers

    def _packed(self, request: Append | Add | Post | Await) -> bytes:
        match request:
            case Append(key, text):
                return appending(self._full(key), text)
            case Add(key, amount):
                return adding(self._full(key), amount)
            case Post(entries):
                return posting(self._named(entries))
            case Await(keys, _):
                return checking([self._full(key) for key in keys])

    def _is_alive(self, within: float) -> bool:
        """Ask over a connection that is there: a new one would cost the store more than the answer."""
        connection = self._free()
        connection.busy = True  # and stays so where its answer may come later
        connection.busy = not connection.ping(within)
        return not connection.busy

    def _named(self, entries: Mapping[str, str]) -> dict[str, str]:
        return {self._full(key): text for key, text in entries.items()}

    def _ask(self, call: Callable[[TCPStoreConnection], T]) -> T:
        return self._on(self._free(), call)

    def _on(self, connection: TCPStoreConnection, call: Callable[[TCPStoreConnection], T]) -> T:
        connection.until = self._until()
        connection.busy = True
        value = call(connection)
        connection.busy = False
        return value

    def _wait(self, names: tuple[str, ...], within: float) -> TCPStoreConnection | None:
        """Wait on a connection of its own; a wait that is called off goes on when it is asked for again."""
        connection = self._waits.get(names)
        if connection is None:
            connection = self._waits[names] = self._free()
            connection.busy = True
            connection.until = self._until()
            connection.wait_for(names)
        if not connection.wait_result(within):
            return None
        del self._waits[names]
        connection.busy = False
        return connection

    def _free(self) -> TCPStoreConnection:
        for connection in self._connections:
            if not connection.busy:
                return connection
        self._connections.append(TCPStoreConnection(self.target, self._until()))
        return self._connections[-1]

    def _until(self) -> float:
        """Return when the answer to a request that need not wait must be there."""
        now = time.monotonic()
        return min(now + ANSWER, max(now + ANSWER_LEAST, self._latest))
