"""Processes, stores and a clock in memory.

Each rank is a thread, and one of them runs at a time: until it waits for something. When all wait, the clock jumps to
the next moment at which one goes on. So a fault takes milliseconds, and ends alike each time.
"""

import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any

import attrs

from colossalai_env._addresses import Target
from colossalai_env._rendezvous.protocol.leader_record import LeaderRecord
from tests.faults.dialects import Place, place_for
from tests.faults.model import Act, Fault, Process, Rank
from tests.faults.runner import Record, Trace

FOREVER = float("inf")

FIRST_PID = 1001


class Killed(BaseException):
    """The process of this thread is no more."""


class Stopped(BaseException):
    """SIGTERM, where it raises."""


@attrs.define(eq=False)
class Actor:
    """One process, and what it waits for."""

    process: Process
    trace: Trace
    ready: Callable[[], object] = lambda: True
    until: float = FOREVER
    dead: bool = False
    frozen: bool = False
    ended: bool = False
    signal: BaseException | None = None
    released: bool = False
    """Whether it was told to go on."""
    inside: set[str] = attrs.field(factory=set[str])
    """The prefixes of the groups that it has made."""
    sums: int = 0
    turn: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    left: set[LeaderRecord] = attrs.field(factory=set[LeaderRecord])
    attempts: int = 0

    @property
    def gone(self) -> bool:
        """Whether its sockets are closed."""
        return self.dead or self.ended


@attrs.define(eq=False)
class MemoryStore:
    """A TCPStore, and the process that serves it."""

    owner: Actor
    keys: dict[str, str] = attrs.field(factory=dict[str, str])
    counts: dict[str, int] = attrs.field(factory=dict[str, int])


class MemoryListener(socket.socket):
    """A socket that listens, if only in memory."""

    def __init__(self, at: Target, closing: Callable[[], None]) -> None:
        super().__init__()
        os.close(self.detach())
        self.at, self._closing = at, closing

    def getsockname(self) -> Target:
        return self.at

    def close(self) -> None:
        self._closing()


@attrs.define(eq=False)
class MemoryCall:
    """A blocking call beside a protocol."""

    world: "World"
    ready: Callable[[], object] = lambda: True
    value: Callable[[], object] = lambda: None

    @property
    def is_done(self) -> bool:
        return bool(self.ready())

    def wait(self, seconds: float) -> bool:
        return self.world.wait(self.ready, max(0.0, seconds))

    def result(self) -> Any:
        self.world.wait(self.ready)
        return self.value()


@attrs.define(eq=False)
class World:
    """The machine on which a fault is played."""

    fault: Fault
    live: "Callable[[World, Rank], bool]"
    """What a rank does from its first step to its last; returns whether all went well."""
    choose: Callable[[int], int] = lambda _count: 0
    """Picks who goes on among so many."""
    pace: Callable[[int], float] = lambda _pid: 1.0
    """How fast the clock of a process goes."""
    now: float = 0.0
    actors: dict[str, Actor] = attrs.field(factory=dict[str, Actor])
    stores: weakref.WeakValueDictionary[int, MemoryStore] = attrs.field(factory=weakref.WeakValueDictionary)
    """Stores by their ports, as long as their processes keep them."""
    kept: list[MemoryStore] = attrs.field(factory=list)
    listeners: dict[int, Actor] = attrs.field(factory=dict[int, Actor])
    gone: dict[int, tuple[str, str, list[int]]] = attrs.field(factory=dict[int, tuple[str, str, list[int]]])
    """Ports at which a rank 0 reports why it goes: its job, the sentence, and to how many others it still does."""
    members: dict[str, dict[int, Actor]] = attrs.field(factory=dict[str, dict[int, Actor]])
    times: dict[tuple[str, str], float] = attrs.field(factory=dict[tuple[str, str], float])
    place: Place = attrs.field(init=False)
    _coming: list[Process | Act] = attrs.field(init=False)
    _back: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    _mine: threading.local = attrs.field(factory=threading.local)

    def __attrs_post_init__(self) -> None:
        self.place = place_for(self.fault)
        self.times["begin", ""] = 0.0
        self._coming = [*self.fault.processes, *self.fault.acts]

    def clock(self) -> float:
        """Return the time on the clock of the process whose turn it is; no two of them show the same."""
        pid = self.me.trace.pid
        return 1000.0 * pid + self.now * self.pace(pid)

    @property
    def me(self) -> Actor:
        """The process whose turn it is; what a dead one still does has no effect."""
        actor: Actor = self._mine.actor
        if actor.dead:
            raise Killed
        return actor

    def wait(self, ready: Callable[[], object] = lambda: True, seconds: float = FOREVER) -> bool:
        """Let others go on until something is so, or the seconds are over; return whether it is."""
        actor = self.me
        actor.ready, actor.until = ready, self.now + seconds
        self._back.release()
        actor.turn.acquire()
        actor.ready = bool  # it holds what it looks at
        if actor.dead:
            raise Killed
        if actor.signal is not None:
            came, actor.signal = actor.signal, None
            raise came
        return bool(ready())

    def play(self, cap: float) -> Record:
        """Run all processes to their ends."""
        while self.now < cap:
            self._act()
            able = [one for one in self.actors.values() if not one.gone and not one.frozen and self._goes_on(one)]
            if able:
                self._run(able[self.choose(len(able))])
                continue
            moments = [one.until for one in self.actors.values() if not one.gone and not one.frozen]
            moments += [due for item in self._coming if (due := self._due(item)) is not None]
            if min(moments, default=FOREVER) == FOREVER:
                break
            self.now = min(moments)
        for actor in self.actors.values():
            if not actor.gone:
                actor.dead = True
                self._run(actor)
        traces = {name: actor.trace for name, actor in self.actors.items()}
        return Record(self.fault, "colossalai_env", self.place, self.times, traces, [], [], cap, 0.0)

    def _goes_on(self, actor: Actor) -> bool:
        return actor.signal is not None or self.now >= actor.until or bool(actor.ready())

    def _run(self, actor: Actor) -> None:
        actor.turn.release()
        self._back.acquire()

    def _due(self, item: Process | Act) -> float | None:
        at = item.at if isinstance(item, Act) else item.after
        seen = self.times.get((at.seen, at.of))
        return None if seen is None else seen + at.plus

    def _act(self) -> None:
        for item in list(self._coming):
            due = self._due(item)
            if due is None or due > self.now:
                continue
            self._coming.remove(item)
            if isinstance(item, Act):
                self._signal(self.actors[item.to], item.deed)
            else:
                self._start(item)

    def _start(self, process: Process) -> None:
        trace = Trace(process, FIRST_PID + len(self.actors), self.now)
        actor = self.actors[process.name] = Actor(process, trace)
        self.times["started", process.name] = self.now
        if isinstance(process, Rank):
            threading.Thread(target=self._live, args=(actor, process), daemon=True).start()
        else:  # an agent: it serves, and does nothing
            self.kept.append(MemoryStore(actor))
            self.stores[self.place.port] = self.kept[-1]
            self.times["ready", process.name] = self.now
            actor.ready = lambda: False
            threading.Thread(target=self._serve, args=(actor,), daemon=True).start()

    def _serve(self, actor: Actor) -> None:
        actor.turn.acquire()
        self._back.release()

    def _signal(self, actor: Actor, deed: str) -> None:
        if deed == "go":
            actor.released = True
            return
        self.times["signalled", actor.process.name] = self.now
        if actor.gone:
            return
        match deed:
            case "KILL":
                actor.dead = True
                self._end(actor, -9)
                self._run(actor)
            case "STOP":
                actor.frozen = True
            case "CONT":
                actor.frozen = False
            case "TERM":
                actor.signal = Stopped("SIGTERM")
            case "INT":
                actor.signal = KeyboardInterrupt()
            case _:
                pass

    def _end(self, actor: Actor, status: int) -> None:
        actor.trace.status, actor.trace.ended = status, self.now
        self.times["ended", actor.process.name] = self.now

    def say(self, seen: str, **facts: Any) -> None:
        """Write down an event of the process whose turn it is."""
        actor = self.me
        actor.trace.events.append({"seen": seen, "at": self.now, **facts})
        self.times.setdefault((seen, actor.process.name), self.now)

    def _live(self, actor: Actor, rank: Rank) -> None:
        self._mine.actor = actor
        actor.turn.acquire()
        status = 1
        try:
            status = 0 if self.live(self, rank) else 1
        except Killed:
            status = -9
        except Stopped:
            status = -15
        except KeyboardInterrupt:
            status = 130
        finally:
            if not actor.dead:
                self.say("leaving")
                actor.ended = True
                self._end(actor, status)
            self._back.release()

    def store_at(self, target: Target) -> MemoryStore | None:
        """Return the store at a port, while its process lives."""
        store = self.stores.get(target[1])
        return store if store is not None and not store.owner.gone else None

    def listens(self, port: int) -> Actor | None:
        """Return the process that listens at a port."""
        actor = self.listeners.get(port)
        if actor is not None and not actor.gone:
            return actor
        store = self.store_at(("", port))
        return store.owner if store is not None else None
