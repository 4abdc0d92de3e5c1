"""The store of a process group that exists already: torch's own client performs requests, each with a time limit."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from colossalai_env._calls import Call, start

from .protocol.requests import Add, Alive, Append, Await, Post, Read, Request, Swap, Together
from .store_client import StoreClient

T = TypeVar("T")

NOWHERE = ("", 0)
"""The target of a client that makes no connection of its own."""

PAUSES = (0.001, 0.05)
"""Seconds between two looks for a key, at first and in the end: torch's own wait keeps others from the store."""


class GroupStore(StoreClient):
    """Performs a protocol's requests on one of torch's stores, of whatever kind."""

    def __init__(self, store: Any) -> None:  # noqa: ANN401 - torch does not export its stores to type checkers
        super().__init__(NOWHERE)
        self._store = store

    def _perform(self, request: Request) -> Any:  # noqa: ANN401, PLR0911 - each request has its own answer
        store = self._store
        match request:
            case Read(key, within):
                name = self._full(key)
                return self._call(lambda: store.get(name).decode()) if self._come([name], within) else None
            case Await(keys, within):
                return self._come([self._full(key) for key in keys], within)
            case Append(key, text):
                return self._call(lambda: store.append(self._full(key), text))
            case Add(key, amount):
                return self._call(lambda: store.add(self._full(key), amount))
            case Post(entries):
                return self._call(lambda: [store.set(self._full(key), text) for key, text in entries.items()])
            case Swap(key, expected, desired):
                return self._call(lambda: store.compare_set(self._full(key), expected, desired).decode())
            case Together(requests, _):
                return [self._perform(one) for one in requests]
            case Alive(within):
                return start(lambda: store.check([self._full("")])).wait(within)
            case _:
                return super()._perform(request)

    def _call(self, make: Callable[[], T]) -> T:
        """Return what torch's client returns; raise `OSError` where the store breaks off or does not answer."""
        call: Call[T] = start(make)
        if not call.wait(self._until() - time.monotonic()):
            raise TimeoutError
        try:
            return call.result()
        except RuntimeError as broken:
            raise ConnectionError(str(broken).partition("\n")[0]) from None

    def _come(self, names: list[str], within: float) -> bool:
        """Look for keys until all are there, or the seconds are over."""
        until, pause = time.monotonic() + within, PAUSES[0]
        while names and not self._call(lambda: self._store.check(names)):
            remaining = until - time.monotonic()
            if remaining <= 0:
                return False
            time.sleep(min(pause, remaining))
            pause = min(PAUSES[1], 1.5 * pause)
        return True
