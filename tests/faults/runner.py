"""Plays one fault with real processes, and writes down what each said and when."""

import contextlib
import json
import os
import selectors
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeAlias

import attrs

from .dialects import Place, environment, keywords, place_for
from .fork_server import Child, ForkServer
from .model import Act, At, Fault, Look, Process, Rank
from .ports import ESTABLISHED, LISTEN, connections, sockets_of

POLL = 0.01
"""Seconds between two looks at the kernel's sockets, while a moment depends on them."""


@attrs.define
class Trace:
    """What was seen of one process."""

    process: Process
    pid: int
    started: float
    events: list[dict[str, Any]] = attrs.field(factory=list[dict[str, Any]])
    status: int | None = None
    """Its exit status, negative for a signal; None while it runs, and when it was ended by the harness."""
    ended: float | None = None
    log: str = ""

    def seen(self, *names: str) -> list[dict[str, Any]]:
        """Return its own words of these kinds."""
        return [event for event in self.events if event["seen"] in names]


@attrs.frozen
class Record:
    """What was seen of a fault from its beginning to its end."""

    fault: Fault
    library: str
    place: Place
    times: dict[tuple[str, str], float]
    traces: dict[str, Trace]
    looks: list[tuple[Look, set[str], set[int]]]
    """Per look, the addresses that listened, and the sockets by which they did."""
    left: list[str]
    """Sockets at the fault's ports after the last process had ended."""
    cap: float
    stalled: float
    """Seconds in which processes of this machine waited for a core."""
    pace: float = 1.0
    """How many times longer than they are written down all its seconds were."""

    def moment(self, at: At) -> float | None:
        """Return when a moment was, or None when it never came."""
        time_of = self.times.get((at.seen, at.of))
        return None if time_of is None else time_of + at.plus * self.pace


def pressure() -> float:
    """Return the seconds since the machine's start in which processes waited for a core; 0 where none counts them."""
    try:
        with open("/proc/pressure/cpu", encoding="ascii") as file:
            return int(file.readline().rpartition("total=")[2]) / 1e6
    except OSError:
        return 0.0


@attrs.define
class Runner:
    """One fault while it is played."""

    fault: Fault
    library: str
    fork_server: ForkServer
    cap: float
    pace: float
    place: Place = attrs.field(init=False)
    times: dict[tuple[str, str], float] = attrs.field(init=False, factory=dict[tuple[str, str], float])
    traces: dict[str, Trace] = attrs.field(init=False, factory=dict[str, Trace])
    children: dict[str, Child] = attrs.field(init=False, factory=dict[str, Child])
    looks: list[tuple[Look, set[str], set[int]]] = attrs.field(
        init=False, factory=list[tuple[Look, set[str], set[int]]]
    )
    _waiting: list[Process | Act | Look] = attrs.field(init=False)
    _texts: dict[str, bytes] = attrs.field(init=False, factory=dict[str, bytes])
    _selector: selectors.BaseSelector = attrs.field(init=False, factory=selectors.DefaultSelector)

    def __attrs_post_init__(self) -> None:
        """Choose the ports; everything is still to come."""
        self.place = place_for(self.fault)
        self._waiting = [*self.fault.looks, *self.fault.processes, *self.fault.acts]  # who is late looks, and then acts

    def play(self) -> Record:
        """Start, disturb and watch, until all ranks have ended or the time is over; leave nothing behind."""
        stalled = pressure()
        self.times["begin", ""] = time.monotonic()
        until = time.monotonic() + self.cap
        try:
            while time.monotonic() < until and not self._over():
                due = self._due(until)
                self._listen_until(due)
        finally:
            self._end()
        left = [
            f"port {item.port} at {item.address}"
            for item in connections()
            if item.state in {LISTEN, ESTABLISHED} and item.port in self.place.ports
        ]
        stalled = pressure() - stalled
        return Record(
            self.fault,
            self.library,
            self.place,
            self.times,
            self.traces,
            self.looks,
            left,
            self.cap,
            stalled,
            self.pace,
        )

    def _over(self) -> bool:
        """Tell whether nothing more can happen: all ranks have ended, and what waits waits for what will not come."""
        return not self._ranks() and all(
            (self._at(item).seen, self._at(item).of) not in self.times
            and (self._at(item).of not in self.traces or self.traces[self._at(item).of].ended is not None)
            for item in self._waiting
        )

    def _ranks(self) -> list[str]:
        """Name the ranks that still run."""
        return [name for name, trace in self.traces.items() if trace.ended is None and isinstance(trace.process, Rank)]

    def _at(self, item: Process | Act | Look) -> At:
        return item.at if isinstance(item, (Act, Look)) else item.after

    def _due(self, until: float) -> float:
        """Do what is due; return when to look again."""
        if any(self._at(item).seen in {"listening", "connected"} for item in self._waiting):
            self._poll()
            until = min(until, time.monotonic() + POLL)
        for item in list(self._waiting):
            at = self._at(item)
            seen = self.times.get((at.seen, at.of))
            if seen is None:
                continue
            due = seen + at.plus * self.pace
            if due > time.monotonic():
                until = min(until, due)
                continue
            self._waiting.remove(item)
            self._do(item)
            until = time.monotonic()
        return until

    def _do(self, item: Process | Act | Look) -> None:
        match item:
            case Act(_, "go", to):
                with contextlib.suppress(BrokenPipeError):
                    os.write(self.children[to].stdin, b"go\n")
            case Act(_, deed, to):
                self.times["signalled", to] = time.monotonic()
                self.children[to].signal(getattr(signal, f"SIG{deed}"))
            case Look():
                self._look(item)
            case _:
                self._start(item)

    def _start(self, process: Process) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        if isinstance(process, Rank):
            task: dict[str, Any] = {
                "library": self.library,
                "environment": environment(process, self.place, self.library),
                "keywords": keywords(process, self.place),
                **{name: getattr(process, name) for name in ("steps", "job", "torch_version", "release")},
                **{name: getattr(process, name) for name in ("handler", "files", "cold")},
                **{name: self.pace * getattr(process, name) for name in ("timeout", "import_delay")},
            }
            child = self.fork_server.start("rank", task, log)
        else:
            target = {"host": "127.0.0.1", "port": self.place.ports[process.port_offset]}
            child = self.fork_server.start("bystander", {"name": process.name, **target}, log)
        now = time.monotonic()
        self.children[process.name] = child
        self.traces[process.name] = Trace(process, child.pid, now)
        self.times["started", process.name] = now
        self._selector.register(child.events, selectors.EVENT_READ, ("events", process.name))
        self._selector.register(child.status, selectors.EVENT_READ, ("status", process.name))

    def _listen_until(self, until: float) -> None:
        """Hear what the processes say."""
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            kind, name = key.data
            said = os.read(key.fd, 1 << 16)
            if kind == "status":
                self._selector.unregister(key.fd)
                trace = self.traces[name]
                trace.status = int(said) if said else None
                trace.ended = self.times["ended", name] = time.monotonic()
            elif not said:
                self._selector.unregister(key.fd)
            else:
                self._hear(name, said)

    def _hear(self, name: str, said: bytes) -> None:
        *lines, self._texts[name] = (self._texts.get(name, b"") + said).split(b"\n")
        for line in lines:
            event = json.loads(line)
            self.traces[name].events.append(event)
            self.times.setdefault((event["seen"], name), event["at"])

    def _poll(self) -> None:
        """See who listens at the fault's ports and who has a connection to them."""
        found = list(connections())
        for name, child in self.children.items():
            if {("listening", name), ("connected", name)} <= self.times.keys() or self.traces[name].ended:
                continue
            mine = sockets_of(child.pid)
            for item in found:
                if item.inode not in mine:
                    continue
                if item.state == LISTEN and item.port in self.place.ports:
                    self.times.setdefault(("listening", name), time.monotonic())
                if item.state == ESTABLISHED and item.remote_port in self.place.ports:
                    self.times.setdefault(("connected", name), time.monotonic())

    def _look(self, look: Look) -> None:
        child = self.children[look.owner]
        mine = sockets_of(child.pid)
        found = [item for item in connections() if item.state == LISTEN and item.port in self.place.ports]
        addresses = {item.address if item.inode in mine else f"{item.address} of another" for item in found}
        self.looks.append((look, addresses, {item.inode for item in found}))

    def _end(self) -> None:
        """End what still runs, by its own descriptor, and read the last words."""
        hanging = [name for name in self._ranks() if self.traces[name].seen("entered")]
        for name in hanging:
            self.children[name].signal(signal.SIGUSR2)  # its stacks go to its log
        time.sleep(0.2 if hanging else 0)  # nothing else tells that they are written
        for child in self.children.values():
            child.signal(signal.SIGKILL)
        waiting = {name for name, trace in self.traces.items() if trace.ended is None}
        patience = time.monotonic() + 10
        while waiting and time.monotonic() < patience:
            self._listen_until(time.monotonic() + 1)
            for name in [name for name in waiting if self.traces[name].ended is not None]:
                waiting.remove(name)
                self.traces[name].status = self.traces[name].ended = None  # not of its own accord
                del self.times["ended", name]
        for name, child in self.children.items():
            child.log.seek(0)
            self.traces[name].log = child.log.read().decode(errors="replace")
            child.close()
        self._selector.close()


def play(fault: Fault, library: str, warm: ForkServer, cap: float, pace: Callable[[], float]) -> Record:
    """Play a fault with a library, for at most `cap` seconds, which are longer on a slow machine, as all others are."""
    if fault.plain is not None and library == "torch":
        raise ValueError(fault.plain)
    now = pace()
    return Runner(fault, library, warm, cap * now, now).play()


Player: TypeAlias = Callable[[Fault, str, float], "Future[Record]"]


@contextlib.contextmanager
def players(at_once: int, pace: Callable[[], float] = lambda: 1.0) -> Generator[Player]:
    """Play faults, some at once, with one warm fork server; when this is left early, what is still played is ended."""
    pool = ThreadPoolExecutor(at_once)
    with contextlib.closing(ForkServer()) as warm:
        try:
            yield lambda fault, library, cap: pool.submit(play, fault, library, warm, cap, pace)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
