"""The network in memory: what the library calls in place of sockets, threads and torch."""

import socket
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import attrs
import pytest

import colossalai_env._join as join
import colossalai_env._process_group as process_group
import colossalai_env._reporting as reporting
from colossalai_env import DistSpec
from colossalai_env._addresses import Endpoint, Target, shown
from colossalai_env._rendezvous import entered, formed, rendezvous
from colossalai_env._rendezvous.identity import Here, Identity
from colossalai_env._rendezvous.protocol.keys import VERDICT
from colossalai_env._rendezvous.protocol.leader_record import LeaderRecord
from colossalai_env._rendezvous.protocol.requests import (
    Add,
    Alive,
    Append,
    Await,
    CallEnd,
    Pause,
    Post,
    Read,
    Swap,
    Together,
)
from colossalai_env._rendezvous.protocol.roll_call import READY
from colossalai_env._rendezvous.protocol.timing import ANSWER, ANSWER_LEAST
from colossalai_env._rendezvous.store_client import StoreClient, StoreLost
from colossalai_env.environ import Environ
from colossalai_env.errors import RankFailed

from .world import Actor, MemoryCall, MemoryListener, MemoryStore, World

LATENCY = 0.004
"""Seconds that a request takes."""

SLOW_CONNECT = 0.5
"""Seconds that the backend's connects of one rank may take longer than another's."""


class MemoryClient(StoreClient):
    """Performs requests on a store in memory."""

    world: World

    def __init__(self, target: Target, answered: socket.socket | None = None) -> None:
        super().__init__(target, answered)
        found = self.world.store_at(target)
        self.found: Callable[[], MemoryStore | None] = weakref.ref(found) if found is not None else lambda: None
        self.world.times.setdefault(("connected", self.world.me.process.name), self.world.now)

    def perform(self, request: Any) -> Any:
        """Make one request."""
        if self._lost is not None:
            raise self._lost
        world = self.world
        if isinstance(request, CallEnd):
            return self._beside is None or self._beside.wait(request.within)
        world.wait(lambda: False, LATENCY)
        if isinstance(request, Pause):
            return world.wait(lambda: False, request.seconds)
        if isinstance(request, Alive):
            world.wait(lambda: not self._state("frozen"), request.within)
            return self._state("serves")
        if isinstance(request, (Read, Await)) and request.within > 0:
            names = request.keys if isinstance(request, Await) else (request.key,)
            world.wait(lambda: self._state("gone") or self._has(names), request.within)
            came = self._has(names)
            if not came and not self._state("gone"):
                return False if isinstance(request, Await) else None
        seconds = min(ANSWER, max(ANSWER_LEAST, self._latest - world.clock()))
        world.wait(lambda: not self._state("frozen"), seconds)
        store = self.found()
        if store is None or store.owner.gone or store.owner.frozen:
            frozen = store is not None and not store.owner.gone
            self._lost = StoreLost("the store does not answer" if frozen else "the store closed the connection")
            raise self._lost
        return self._answer(store, request)

    def _state(self, name: str) -> bool:
        """Tell whether the store's process "serves", is "frozen" or "gone"."""
        store = self.found()
        if store is None or store.owner.gone:
            return name == "gone"
        return name == ("frozen" if store.owner.frozen else "serves")

    def _has(self, names: Sequence[str]) -> bool:
        store = self.found()
        return store is not None and self._state("serves") and all(self._full(name) in store.keys for name in names)

    def _answer(self, store: MemoryStore, request: Any) -> Any:
        match request:
            case Read(key, _):
                return store.keys.get(self._full(key))
            case Await(names, _):
                return all(self._full(name) in store.keys for name in names)
            case Append(key, text):
                store.keys[self._full(key)] = store.keys.get(self._full(key), "") + text
            case Add(key, amount):
                store.counts[self._full(key)] = store.counts.get(self._full(key), 0) + amount
                return store.counts[self._full(key)]
            case Post(entries):
                before = store.keys.get(self._full(VERDICT.name), READY)
                if not before.startswith(READY) and entries.get(VERDICT.name, before) != before:
                    raise AssertionError(f"two verdicts: {before} and {entries[VERDICT.name]}")
                store.keys.update({self._full(key): text for key, text in entries.items()})
            case Together(requests, _):
                return [self._answer(store, one) for one in requests]
            case Swap(key, expected, desired):
                found = store.keys.get(self._full(key), "")
                if found == expected:
                    store.keys[self._full(key)] = desired
                return store.keys[self._full(key)]
            case _:
                raise AssertionError(request)
        return None

    def own_address(self) -> str:
        found = self.found()
        if found is None or found.owner.gone:
            raise StoreLost("the store closed the connection")
        return self.target[0]


@attrs.define
class MemoryFinder:
    """Looks for a store in memory."""

    world: World
    targets: Sequence[Target]
    job: str | None
    met: dict[Target, str] = attrs.field(factory=dict[Target, str])
    later: dict[Target, float] = attrs.field(factory=dict[Target, float])

    def find(self, until: float) -> Target | None:
        """Return where a store answers."""
        world = self.world
        until = world.now + until - world.clock()

        def answer() -> Target | None:
            for target in self.targets:
                store = world.store_at(target)
                gone = world.gone.get(target[1])
                if gone is not None and gone[0] == self.job:
                    return target
                if store is not None and not store.owner.frozen and self.later.get(target, 0.0) <= world.now:
                    return target
            return None

        wake = [moment for moment in self.later.values() if moment > world.now]
        while world.now < until:
            world.wait(answer, min([until, *wake]) - world.now)
            found = answer()
            if found is not None and self._is_gone(found):
                raise RankFailed(world.gone[found[1]][1])
            if found is not None:
                return found
            wake = [moment for moment in self.later.values() if moment > world.now]
        for target in self.targets:
            if target not in self.met:
                listens = world.listens(target[1])
                self.met[target] = "accepts connections and says nothing" if listens else "answers ECONNREFUSED"
        return None

    def _is_gone(self, target: Target) -> bool:
        job, _, left = self.world.gone.get(target[1], ("", "", [0]))
        if target[1] in self.world.gone and job == self.job:
            left[0] -= 1
            return True
        return False

    def reject(self, target: Target, reason: str, pause: float = 0.5) -> None:
        """Try it again later."""
        self.met[target] = reason
        self.later[target] = self.world.now + pause

    def taken(self) -> None:
        """Have no connection to hand over."""

    def stores(self) -> list[Target]:
        """Return where a store may be."""
        return list(self.targets)

    @property
    def silent(self) -> bool:
        """Tell whether one listens and does not answer."""
        return any("says nothing" in what for what in self.met.values())

    def attempts(self) -> str:
        """Describe what was met."""
        return "; ".join(f"{shown(target)} {what}" for target, what in self.met.items())

    def close(self) -> None:
        """Have nothing to close."""


class Network:
    """What the library calls in place of sockets, threads and torch."""

    def __init__(self, world: World) -> None:
        self.world = world

    def listen(self, endpoint: Endpoint, port: int) -> socket.socket | Target:
        """Listen at a port, or return who has it."""
        if self.world.listens(port) is not None:
            return endpoint.addresses[0], port
        owner = self.world.listeners[port] = self.world.me

        def closing() -> None:
            if self.world.listeners.get(port) is owner:
                del self.world.listeners[port]

        self.world.times.setdefault(("listening", owner.process.name), self.world.now)
        return MemoryListener(("127.0.0.1", port), closing)

    def find(
        self, targets: Sequence[Target], slowest: float = 0.0, job: str | None = None, **how: bool
    ) -> MemoryFinder:
        """Make what looks for a store."""
        del slowest, how
        return MemoryFinder(self.world, targets, job)

    def serve(self, listener: MemoryListener, target: Target, seconds: float) -> MemoryCall:
        """Serve a store."""
        del target, seconds
        store = MemoryStore(self.world.me)
        del self.world.listeners[listener.at[1]]
        self.world.stores[listener.at[1]] = store
        return MemoryCall(self.world, value=lambda: store)

    def start(self, make: Callable[[], Any]) -> MemoryCall:
        """Make a call that takes no time, but for that of a group, which takes until all are there."""
        value = make()
        return value if isinstance(value, MemoryCall) else MemoryCall(self.world, value=lambda: value)

    def make(self, store: object, prefix: str, spec: DistSpec, backend: str, device: object) -> MemoryCall:
        """Make a process group.

        A rank whose connects take longer waits for one that died before they were made, unless that one had made its
        own: then the broken connection says so.
        """
        del store, backend, device
        members, me = self.world.members.setdefault(prefix, {}), self.world.me
        members[spec.rank] = me
        earliest = self.world.now + self.world.choose(2) * SLOW_CONNECT

        def lost() -> list[Actor]:
            return [one for one in members.values() if one.dead or one.frozen]

        def whole() -> bool:
            if len(members) == spec.world_size and self.world.now >= earliest and not lost():
                me.inside.add(prefix)
            return prefix in me.inside

        def reset() -> bool:
            return any(one.dead and prefix in one.inside for one in lost())

        def result() -> None:
            if not whole():
                raise RuntimeError("Connection reset by peer")

        return MemoryCall(self.world, lambda: whole() or reset(), result)

    def turn_away(self, listener: MemoryListener, job: str, sentence: str, others: int, seconds: float) -> None:
        """Report to those who come why there will be no store."""
        left = [others]
        self.world.gone[listener.at[1]] = (job, sentence, left)
        self.world.wait(lambda: left[0] <= 0, seconds)
        del self.world.gone[listener.at[1]]

    def leave_word(self, finder: MemoryFinder, key: str, text: str, seconds: float) -> None:
        """Append to a key of the store that is looked for."""

        def found() -> MemoryStore | None:
            return next(filter(None, map(self.world.store_at, finder.targets)), None)

        self.world.wait(found, seconds)
        store = found()
        if store is not None:
            store.keys[key] = store.keys.get(key, "") + text

    def is_answered(self, target: Target, seconds: float) -> bool:
        """Return whether a store answers."""

        def answers() -> bool:
            store = self.world.store_at(target)
            return store is not None and not store.owner.frozen

        return self.world.wait(answers, seconds)

    def new_record(self, identity: Identity, here: Here) -> LeaderRecord:
        """Begin an attempt of this process."""
        self.world.me.attempts += 1
        return LeaderRecord(identity.job_name, self.world.me.attempts, here.host, here.pid)

    def leave(self, record: LeaderRecord) -> None:
        """Remember that this process has left an attempt."""
        self.world.me.left.add(record)

    def has_left(self, record: LeaderRecord) -> bool:
        """Return whether this process has left an attempt."""
        return record in self.world.me.left

    def here(self) -> Here:
        """Return where this process runs."""
        return Here(socket.gethostname(), self.world.me.trace.pid)

    @contextmanager
    def installed(self) -> Generator[None]:
        """Stand in place of what is real."""
        client = type("Client", (MemoryClient,), {"world": self.world})
        own = ("listen", "serve", "turn_away", "leave_word", "is_answered", "new_record", "has_left", "leave")
        clock = SimpleNamespace(monotonic=self.world.clock, time=time.time)
        put: list[tuple[object, str, object]] = [
            *((rendezvous, name, getattr(self, name)) for name in own),
            (rendezvous, "StoreFinder", self.find),
            (rendezvous, "StoreClient", client),
            (rendezvous, "stranger_at", _stranger),
            (entered, "leave", self.leave),
            (entered, "connect", _nothing),
            (entered, "cut", _nothing),
            *((module, "start", self.start) for module in (entered, formed)),
            (Here, "now", self.here),
            (join, "import_torch", lambda: MemoryCall(self.world)),
            (join, "GlooSettings", _gloo),
            (reporting, "interruptible", nullcontext),
            *((module, "time", clock) for module in (join, reporting)),
            (process_group, "make", self.make),
            (process_group, "abandon", _nothing),
            (join, "hardware", NOTHING),
        ]
        with pytest.MonkeyPatch.context() as patch:
            for where, name, value in put:
                patch.setattr(where, name, value)
            yield


def _gloo(_: Environ, *, agreed: bool) -> SimpleNamespace:
    del agreed
    return NOTHING


def _nothing(*_: object) -> None:
    pass


def _stranger(_: Target) -> str:
    return "a service that is not a torch store"


NOTHING = SimpleNamespace(choose=_nothing, formed=_nothing, close=_nothing, select=_nothing)
"""What sets nothing: neither gloo's variables nor a device."""
