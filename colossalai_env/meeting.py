"""One rank's way from the endpoint to the verdict: bind or find the store, then the roll call."""

import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Any, cast

import attrs

from .addresses import (
    EVERY,
    EVERY4,
    LOOPBACK,
    Target,
    address_towards,
    interface_of,
    is_loopback,
    own_address,
    reachable,
    shown,
)
from .directory import Announcement, Directory
from .endpoint import Endpoint
from .errors import (
    ColossalaiEnvError,
    LostRanks,
    NoAgent,
    PortTaken,
    RankFailed,
    RankZeroUnreachable,
    SlowImport,
    Stranger,
)
from .formation import failing, forming, parting
from .listener import listen, turn_away
from .progress import Waiting
from .reply import Place, Reply, named, replies_in, sharing
from .rollcall import (
    Pause,
    Post,
    Protocol,
    Read,
    Result,
    Swap,
    Watch,
    answer,
    leader,
    loading,
    member,
    reading,
    written,
)
from .scout import Scout, answers, leave_word, stranger_at
from .spec import DistSpec
from .store import Ledger, Store, StoreLost, Task, client, cut, serve, start

log = logging.getLogger("colossalai_env")

PARENT = "colossalai_env/"
"""What all our keys in a store begin with."""

FAREWELL = 0.5
"""Seconds that a rank takes to tell the others that it was stopped."""

RECORD = f"{PARENT}leader"
"""The key under which rank 0 says whose store this is."""

UNNAMED = "without an id"
"""What a launch is called that has no token of its own; COLOSSALAI_ENV_JOB_ID gives it one."""

STARTING = 0.5
"""Seconds that rank 0 waits for torch to say that its store is made; it serves before."""

ANNOUNCING = 1.0
"""Seconds in which the directory has told rank 0 its own address, when all ranks have learned it there."""

ITSELF = "; {!r} leads each host to itself, here {}"
"""What is added where rank 0 was looked for on loopback."""

PASSING_ON = 5.0
"""Seconds in which who keeps the directory tells those who come that rank 0 has gone."""

UNRECORDED = 5.0
"""Seconds after which a store without our record counts as somebody else's, and an agent that is not there as gone."""


def boot_id() -> str:
    """Return what tells this machine's uptime from all others, for telling nodes of one name apart."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read(8)
    except OSError:
        return ""


@attrs.frozen
class Record:
    """One meeting: the job, the process that leads it, and its how manieth meeting it is."""

    job: str
    generation: int
    host: str
    pid: int

    @property
    def process(self) -> str:
        """Name pid and host."""
        return f"pid {self.pid} on {self.host}"

    @property
    def prefix(self) -> str:
        """What all keys of the meeting begin with; no other meeting's do, in whatever store."""
        return f"{PARENT}{self.job}/{self.host}-{self.pid}-{self.generation}/"

    def line(self) -> str:
        """Return the record as JSON."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def of(cls, text: str) -> "Record":
        """Read a record."""
        return cls(**json.loads(text))


_left: set[Record] = set()
"""The meetings that this process has left: a store that outlives them still shows their records."""

_led = [0]
"""How many meetings this process has begun."""


@attrs.define(kw_only=True)
class Meeting:
    """The meeting of all ranks of one launch, seen from one of them."""

    spec: DistSpec
    endpoint: Endpoint
    watch: Watch
    ends: float | None = None
    """When the launcher ends the job, by the watch's clock, where that is before the wait is over."""
    here: str = attrs.field(factory=socket.gethostname)
    listener: socket.socket | None = None
    """Rank 0's socket, from `bind` until the store serves it."""
    store: Task[Store] | None = None
    """Torch's own store, for the process group: it is connected while the ranks are called."""
    forming: Task[Any] | None = None
    """The making of the process group."""
    aborted: bool = False
    """Whether the others have been told that this rank goes."""
    leading: bool = False
    """Whether this process gives the verdict in the store that it has entered."""
    directory: Directory | None = None
    """Where the others ask for rank 0, while this process serves it."""
    announcement: Announcement | None = None
    ledger: Ledger | None = None
    record: Record = attrs.field(init=False)
    scout: Scout = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Name this process as the leader until another is met, and all addresses and ports where one may be."""
        _led[0] += 1
        self.record = Record(self.spec.job_id or UNNAMED, _led[0], self.here, os.getpid())
        targets = [(address, port) for port in self.endpoint.ports for address in self.endpoint.addresses]
        slowest = min(1.0, 0.02 * (1 + self.spec.world_size / 256))
        self.scout = Scout(targets, slowest, self.record.job, directory=self.endpoint.directory is not None)

    @property
    def leads(self) -> bool:
        """Whether this process gives the verdict."""
        return self.spec.rank == 0

    @property
    def serves(self) -> bool:
        """Whether this process serves the store."""
        return self.leads and not self.spec.agent_store

    @property
    def prefix(self) -> str:
        """What all keys of this meeting begin with."""
        return self.record.prefix

    @property
    def record_key(self) -> str:
        """The key of the record: an agent's store may hold several launches, so there it bears the job's id."""
        return f"{PARENT}{self.record.job}/leader" if self.spec.agent_store else RECORD

    @property
    def patience(self) -> float:
        """Seconds that torch's own calls may take: longer than ours, which are the ones that speak."""
        return self.watch.timeout + 60

    @property
    def _farewells(self) -> str:
        return f"{PARENT}{self.record.job}/farewells"

    def reserve(self) -> None:
        """Bind rank 0's socket, before torch is imported, so that the others can already connect and wait."""
        place = self.endpoint.directory
        if self.serves:
            found = listen(self.endpoint, self.endpoint.ports[0])
            if isinstance(found, socket.socket):
                self.listener = found
                self._announce(found)
        elif place is not None and place.serves:
            self.directory = Directory(self._free_listener(), self.record.job)

    def _free_listener(self) -> socket.socket:
        """Listen at the first port of the endpoint that is free."""
        holder = ""
        for port in self.endpoint.ports:
            found = listen(self.endpoint, port)
            if isinstance(found, socket.socket):
                return found
            holder = stranger_at(found)
        raise PortTaken(self.endpoint.host, self.endpoint.ports[-1], self.endpoint.source, holder)

    def _announce(self, listener: socket.socket) -> None:
        """Leave rank 0's port at the directory, where the launch has one."""
        if self.endpoint.directory is not None:
            port = listener.getsockname()[1]
            self.announcement = Announcement(self.scout.targets, self.record.job, port)

    def enter(self, torch: Task[ModuleType] | None = None) -> None:
        """Enter the store, and wait for the import of torch, which a member's search for the store does not wait for.

        Raises `SlowImport` where that is not over in time.
        """
        if not self.serves:
            self.leading = self._find()
        if torch is not None:
            self._await(torch)
        if self.serves:
            self.leading = self._open()

    def _await(self, torch: Task[ModuleType]) -> None:
        if self.serves:
            torch.wait(self.watch.left)
        else:
            self._guarded(loading(self.spec.rank, self.here, os.getpid(), self.watch, torch.wait))
        if not torch.done.is_set():
            raise SlowImport(self.watch.timeout, self.spec.rank, self.here)
        torch.result()

    def hold(self, reply: Reply, *, roll_call: bool = True) -> Place | None:
        """Meet the others; return the numbers that the launcher left unsaid, which only a roll call finds out.

        Raises a `RollCallFailed`, the same on all ranks, or what kept this rank from the meeting.
        """
        if self.ledger is None:
            self.enter()
        target = self._ledger.target
        if self.store is None and reply.error is None:
            self.store = start(lambda: client(target, self.patience))
        if not roll_call:
            return None
        try:
            return self._guarded(self._lead(reply) if self.leading else member(reply, self.record.process, self.watch))
        finally:
            self._close_directory()

    def own_address(self) -> str | None:
        """Return the address of this host by which the store was reached; None where that was loopback."""
        try:
            address = self._ledger.own_address()
        except StoreLost as broken:
            raise self._lost(self.leading, str(broken)) from None
        return None if is_loopback(address) else address

    def interface(self, own: str | None) -> str | None:
        """Return the interface through which rank 0 and this rank reach each other, where they are on two hosts.

        A rank that reached rank 0 by loopback takes rank 0's, which rank 0 learns from the others' addresses.
        """
        if self.leading:
            own = own or next(filter(None, map(address_towards, self._other_addresses())), None)
        found = interface_of(own) if own is not None else None
        if self.leading:
            self.post("interface", found or "")
        elif own is None:
            found = self._guarded(reading("interface", self.watch))
        return found or None

    def _other_addresses(self) -> Iterator[str]:
        return (reply.address for reply in self.replies() if reply.host != self.here and reply.address is not None)

    def rank0(self) -> Target:
        """Return where the store was found: the host where it was looked for, or an address that was told."""
        address, port = self._ledger.target
        if self.announcement is not None:
            address = self.announcement.address(ANNOUNCING) or own_address()
        return self.endpoint.host if address in self.endpoint.addresses else address, port

    def _guarded(self, protocol: Protocol[Result]) -> Result:
        try:
            return self._drive(protocol)
        except StoreLost as broken:
            raise self._lost(self.leading, str(broken)) from None

    def _lost(self, leading: bool, problem: str) -> LostRanks:
        agent = leading or self.spec.agent_store
        who = f"the launcher's agent at {self.endpoint}" if agent else f"rank 0 ({self.record.process})"
        return LostRanks(
            f"{who} broke off during the roll call ({problem}): it died or was stopped; look at what it said"
        )

    def _lead(self, reply: Reply) -> Protocol[Place | None]:
        waiting = Waiting(self.spec.world_size, self.ends)
        heard: list[Reply] = []

        def show(replies: Sequence[Reply]) -> None:
            heard[:] = replies
            waiting.show(replies)

        try:
            placed = yield from leader(reply, self._farewells, self.watch, show, self._hint())
        finally:
            waiting.close()
        shared = sharing(heard)
        if shared is not None:
            log.warning("%s", shared)
        return placed

    def _hint(self) -> str:
        """Say what is wrong with an endpoint that leads each host to itself, unless all ranks are on one."""
        if self.endpoint.one_node or not all(map(is_loopback, self.endpoint.addresses)):
            return ""
        return (
            f"{self.endpoint.host!r}, from {self.endpoint.source}, leads each host to itself: "
            f"for ranks on other hosts export MASTER_ADDR={reachable(())} on every rank"
        )

    def _drive(self, protocol: Protocol[Result]) -> Result:
        """Perform a protocol's requests on the store."""
        value: Any = None
        while True:
            try:
                request = protocol.send(value)
            except StopIteration as end:
                return cast("Result", end.value)
            self._ledger.until = self.watch.began + self.watch.timeout + 1.0
            value = self._ledger.perform(request)

    @property
    def _ledger(self) -> Ledger:
        if self.ledger is None:
            msg = "no store yet"
            raise StoreLost(msg)
        return self.ledger

    def abort(self, reply: Reply) -> None:
        """Tell the others once why this rank goes, as far as they can be reached within a moment."""
        if self.aborted:
            return
        self.aborted = True
        failure = RankFailed(f"{reply} failed: {reply.error}")
        if self.listener is not None:
            self._turn_away(failure, FAREWELL)
        elif self.ledger is None:
            leave_word(self.scout.stores(), self._farewells, reply.line(), FAREWELL)
        else:
            try:
                verdict = {"verdict": written(failure), "go": written(failure)} if self.serves else {}
                self._ledger.perform(Post({"broken": failure.sentence, **verdict}))
                if self.serves:
                    time.sleep(FAREWELL)
                else:
                    self._drive(answer(reply))
            except StoreLost:
                log.warning("%s could not tell the other ranks: %s", reply, reply.error)

    def fail(self, reply: Reply, seconds: float) -> None:
        """Report this rank's own error to all ranks, in little time; what they say of it is not news here."""
        if self.listener is not None:
            self._turn_away(RankFailed(f"{reply} failed: {reply.error}"), seconds)
            return
        self.watch = Watch(self.watch.clock, self.watch.clock(), min(seconds, self.watch.timeout))
        try:
            self.hold(reply)
        except ColossalaiEnvError as verdict:
            log.debug("told the other ranks: %s", verdict)

    def _turn_away(self, failure: RankFailed, seconds: float) -> None:
        if self.listener is not None:
            turn_away(self.listener, self.record.job, failure.sentence, self.spec.world_size - 1, seconds)

    def _open(self) -> bool:
        """Serve the store at the first port that is free; a port held by this very job makes this process a member."""
        for attempt, port in enumerate(self.endpoint.ports):
            found = self.listener if attempt == 0 and self.listener else listen(self.endpoint, port)
            if isinstance(found, socket.socket):
                self._serve(found)
                return True
            holder = self._holder(found)
            if isinstance(holder, Record):
                self.record = holder
                return False
            if attempt == len(self.endpoint.ports) - 1:
                raise PortTaken(self.endpoint.host, port, self.endpoint.source, holder)
            log.warning("port %d is taken by %s: trying port %d", port, holder, self.endpoint.ports[attempt + 1])
        raise AssertionError("an endpoint has a port")

    def _serve(self, listener: socket.socket) -> None:
        self.listener = None
        if self.announcement is None:
            self._announce(listener)
        address, port = listener.getsockname()[:2]
        target = (LOOPBACK if address in {EVERY, EVERY4} else address, port)
        self.store = serve(listener, target, self.patience)
        if self.store.wait(STARTING):
            self.store.result()
        else:  # torch asks a name server, which may be silent
            answers(target, self.watch.left)
        ledger = Ledger(target, "")
        ledger.perform(Post({self.record_key: self.record.line()}))
        self._enter(self.record, ledger)

    def _enter(self, record: Record, ledger: Ledger) -> None:
        """Belong to the meeting that the ledger's store holds."""
        ledger.prefix = record.prefix
        self.record, self.ledger = record, ledger

    def _holder(self, target: Target) -> Record | str:
        """Say who holds a port: this job's own rank 0 as its record, anybody else in words."""
        scout = Scout([target])
        found = scout.find(time.monotonic() + 1.5)
        scout.close()
        if found is None:
            return stranger_at(target)
        ledger = Ledger(target, "")
        try:
            record = self._met(ledger, 1.0)
        except StoreLost as broken:
            return f"a torch store that broke off ({broken})"
        if record is not None and record.job == self.record.job:
            self._enter(record, ledger)
            return record
        ledger.close()
        if record is None:
            return "a torch store that is not of this library"
        return f"job {record.job!r}, whose rank 0 is {record.process} (this is job {self.record.job!r})"

    def _met(self, ledger: Ledger, within: float) -> Record | None:
        """Read whose store this is; a meeting that this process has left does not count."""
        until = self.watch.clock() + within
        while (left := until - self.watch.clock()) > 0:
            text: str | None = ledger.perform(Read(self.record_key, left))
            record = Record.of(text) if text is not None else None
            if record is not None and record not in _left:
                return record
            ledger.perform(Pause(0.02))
        return None

    def _find(self) -> bool:
        """Look for this job's store at all addresses and ports where it may be; tell whether to lead there."""
        scout = self.scout
        deadline = self.watch.clock() + self.watch.left
        agent_deadline = self.watch.clock() + min(UNRECORDED, self.watch.left)
        try:
            while True:
                found = scout.find(agent_deadline if self.spec.agent_store else deadline)
                if found is None:
                    raise self._unreachable(scout)
                entered = self._try(found, alone=self.endpoint.one_place)
                if isinstance(entered, bool):
                    return entered
                scout.reject(found, entered, 0.05)
        except RankFailed as failure:
            if self.directory is not None:
                directory, self.directory = self.directory, None
                directory.pass_on(failure.sentence, self.spec.world_size, PASSING_ON)
            raise
        finally:
            scout.close()

    def _unreachable(self, scout: Scout) -> ColossalaiEnvError:
        if self.spec.agent_store:
            source = self.spec.sources.get("agent_store", "the launcher").partition(" ")[0]
            return NoAgent(self.spec.rank, self.here, str(self.endpoint), source, scout.story())
        itself = "" if self.endpoint.one_node or not all(map(is_loopback, self.endpoint.addresses)) else ITSELF
        story = scout.story() + itself.format(self.endpoint.host, self.here)
        return RankZeroUnreachable(
            self.spec.rank, self.here, str(self.endpoint), self.endpoint.source, story, self.watch.timeout
        )

    def _try(self, target: Target, *, alone: bool) -> bool | str:
        """Enter the store at `target` if it is this job's, and tell whether to lead there; say why not otherwise."""
        ledger = Ledger(target, "")
        try:
            if self.spec.agent_store and self.leads and self._claim(ledger):
                self._enter(self.record, ledger)
                return True
            patience = self.watch.left if self.spec.agent_store else min(UNRECORDED, max(self.watch.left, 0.5))
            record = self._met(ledger, patience)
        except StoreLost as broken:
            ledger.close()
            return f"broke off ({broken})"
        if record is not None and record.job == self.record.job:
            self._enter(record, ledger)
            return False
        ledger.close()
        if record is None:
            return self._no_record(target, alone=alone)
        if alone:
            raise Stranger(
                self.spec.rank, self.here, shown(target), self.record.job, record.job, record.host, record.pid
            )
        return f"is the store of job {record.job!r} ({record.process})"

    def _claim(self, ledger: Ledger) -> bool:
        """Lead in an agent's store, unless another process already does."""
        mine = self.record.line()
        found: str = ledger.perform(Swap(self.record_key, "", mine))
        if Record.of(found) in _left:
            found = ledger.perform(Swap(self.record_key, found, mine))
        return Record.of(found) == self.record

    def _no_record(self, target: Target, *, alone: bool) -> str:
        met = "answers as a torch store, but no rank 0 of this library has entered it"
        if self.spec.agent_store or alone:
            raise RankZeroUnreachable(
                self.spec.rank, self.here, shown(target), self.endpoint.source, met, self.watch.timeout
            )
        return met

    def lend(self, call: Callable[[Store], Result]) -> Task[Result]:
        """Make a blocking call with torch's own store."""
        self._ledger.rest()
        store = self.store
        if store is None:
            raise AssertionError("a meeting without an error has a store")
        task = start(lambda: call(store.result()))
        self.forming = task
        return task

    def watch_over(self, task: "Task[None]") -> None:
        """Wait for this rank's own connect; raise what it raises, or what is learned of the others meanwhile."""
        try:
            self._drive(forming(self.spec.rank, self.watch, task.wait))
        except StoreLost as broken:
            raise self._lost(leading=False, problem=str(broken)) from None

    def formed(self) -> None:
        """Say that this rank's own connect is done."""
        self.post(f"in/{self.spec.rank}", "1")
        self._ledger.until = float("inf")

    def culprits(self, sentence: str) -> LostRanks | None:
        """Say that this rank's own connect failed, and name the ranks that neither connected nor failed."""
        try:
            lost = self._drive(failing(self.spec.rank, self.watch, sentence))
        except StoreLost as broken:
            return self._lost(leading=False, problem=str(broken))
        if not lost:
            return None
        return LostRanks(f"{named(lost)} died or froze while the process group was made: {sentence}")

    def part(self) -> None:
        """Leave a group that failed; who serves the store waits a moment for the others to have read why."""
        with suppress(StoreLost):
            self._drive(parting(self.spec.world_size - 1 if self.serves else 0, self.watch))

    def post(self, key: str, text: str) -> None:
        """Set a key, as far as the store still answers."""
        try:
            self._ledger.perform(Post({key: text}))
        except StoreLost:
            log.debug("could not post %s", key)

    def replies(self) -> list[Reply]:
        """Read what all ranks said of themselves."""
        return replies_in(self._ledger.perform(Read("replies", 0)))

    def close(self) -> None:
        """Let go of socket, connections and store."""
        _left.add(self.record)
        self.scout.close()
        self._close_directory()
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        if self.ledger is not None:
            self.ledger.close()
            under_way = [task for task in (self.store, self.forming) if task is not None and not task.done.is_set()]
            if under_way:
                cut(self.ledger.target)
            for task in under_way:
                task.wait(max(0.3, min(1.0, self.watch.left + 1.0)) / len(under_way))
        self.ledger = self.store = self.forming = None

    def _close_directory(self) -> None:
        if self.directory is not None:
            self.directory.close()
        if self.announcement is not None:
            self.announcement.close()
        self.directory = None
