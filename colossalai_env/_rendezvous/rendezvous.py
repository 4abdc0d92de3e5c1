"""One rank's way to the others, as values each of which gives way to the next: Host or Guest, Entered, Gathered.

Rank 0 is the host, unless a launcher's agent serves the store; all others are guests. Each value holds only what is
there in its phase, can tell the others why this rank goes (`fail`), and lets go of what it holds (`close`).
"""

import logging
import socket
from contextlib import suppress

import attrs

from colossalai_env._addresses import (
    EVERY,
    EVERY4,
    LOOPBACK,
    LOOPBACK6,
    Endpoint,
    Target,
    is_own,
    shown,
)
from colossalai_env.errors import (
    AgentStoreUnreachable,
    ColossalaiEnvError,
    ForeignStore,
    OtherVersion,
    PortTaken,
    RankFailed,
    RankZeroUnreachable,
)

from .directory import Announcement, Directory
from .entered import Entered, Frame, Torch, imported, shortened
from .finder import StoreFinder, is_answered, leave_word, stranger_at
from .identity import has_left, leave, new_record
from .listener import listen, turn_away
from .protocol import keys
from .protocol.leader_record import LeaderRecord, claim, find, key_of, publish
from .protocol.report import RankReport, versions
from .protocol.requests import VERSION, append
from .protocol.timing import FAREWELL, HOLDER, LATER, PATIENCE, REPORT_FAILURE, START, UNRECORDED
from .store_client import StoreClient, StoreLost
from .torch_store import serve

log = logging.getLogger("colossalai_env")

SLOWEST = 0.5
"""Seconds between two tries of a rank to find the store, and half as many more at most: it is in within a second."""
CROWD = 256
"""Ranks from which on one of a node looks for rank 0."""

ON_ALL = "set both on all ranks or on none"


def reserve(frame: Frame) -> "Host | Contender | Guest":
    """Bind rank 0's socket, or the directory's, before torch is imported, so that others can already connect and wait.

    Raises `NotMyAddress` or `PortTaken`.
    """
    identity, endpoint = frame.identity, frame.endpoint
    record = new_record(identity, frame.here)
    if identity.hosts:
        listener = listen(endpoint, endpoint.ports[0])
        return _hosting(frame, record, listener) if isinstance(listener, socket.socket) else Contender(frame, record)
    targets = [*_targets(endpoint), *_otherwise(endpoint)]
    size = identity.world_size or 1
    slowest = min(SLOWEST, 0.02 * (1 + size / 128))
    finder = StoreFinder(targets, slowest, record.job, directory=endpoint.directory, crowd=size >= CROWD)
    return Guest(
        frame, record, finder, [Directory(_free_listener(endpoint), record.job)] if endpoint.serves_directory else []
    )


def _hosting(frame: Frame, record: LeaderRecord, listener: socket.socket) -> "Host":
    known = _targets(frame.endpoint) if frame.endpoint.directory else []
    announcement = Announcement(known, record.job, listener.getsockname()[1])
    return Host(frame, record, listener, announcement, _show_the_way(frame, record, listener))


def _contend(frame: Frame, record: LeaderRecord) -> "Host | Entered":
    """Listen at the first port that is free; enter where this job's own rank 0 holds one."""
    endpoint = frame.endpoint
    for attempt, port in enumerate(endpoint.ports):
        found = listen(endpoint, port)
        if isinstance(found, socket.socket):
            return _hosting(frame, record, found)
        holder = _holder(frame, record, found)
        if isinstance(holder, Entered):
            return holder
        if attempt == len(endpoint.ports) - 1:
            raise PortTaken(endpoint.host, port, endpoint.source, holder)
        log.warning("port %d is taken by %s: trying port %d", port, holder, endpoint.ports[attempt + 1])
    raise AssertionError("an endpoint has a port")


def _targets(endpoint: Endpoint) -> list[Target]:
    return [(address, port) for port in endpoint.ports for address in endpoint.addresses]


def _otherwise(endpoint: Endpoint) -> list[Target]:
    """Return where rank 0 listens if this endpoint is not given to it."""
    found = dict.fromkeys((*endpoint.addresses, *((LOOPBACK,) if endpoint.one_node else ())))
    targets = [(address, port) for address in found for port in endpoint.otherwise[:1]]
    return [target for target in targets if target not in _targets(endpoint)]


def _show_the_way(frame: Frame, record: LeaderRecord, listener: socket.socket) -> list[Directory]:
    """Report where rank 0 listens to ranks to which that is not given: the roll call then refuses them all at once."""
    place = Endpoint(LOOPBACK, (LOOPBACK,), (), "", frame.endpoint.one_node)
    for port in frame.endpoint.otherwise:
        with suppress(PortTaken):
            found = listen(place, port)
            if isinstance(found, socket.socket):
                return [Directory(found, record.job, listener.getsockname()[:2])]
    return []


def _free_listener(endpoint: Endpoint) -> socket.socket:
    """Listen at the first port of the endpoint that is free."""
    holder = ""
    for port in endpoint.ports:
        found = listen(endpoint, port)
        if isinstance(found, socket.socket):
            return found
        holder = stranger_at(found)
    raise PortTaken(endpoint.host, endpoint.ports[-1], endpoint.source, holder)


def _holder(frame: Frame, record: LeaderRecord, target: Target) -> "Entered | str":
    """Return who holds a port: this job's own rank 0 by entering there, anybody else in words."""
    if not is_answered(target, HOLDER):
        return stranger_at(target)
    client = StoreClient(target)
    try:
        brief = attrs.evolve(frame.deadline, began=frame.deadline.clock(), timeout=HOLDER)
        found = client.drive(find(key_of(record.job, agent_store=False), has_left, brief))
    except StoreLost as broken:
        return f"a torch store that broke off ({broken})"
    if found is not None and found.job == record.job:
        return _entered(frame, found, client)
    client.close()
    if found is None:
        return "a torch store that is not of this library"
    return f"job {found.job!r}, whose rank 0 is {found.process} (this is job {record.job!r})"


def _entered(frame: Frame, record: LeaderRecord, client: StoreClient, *, leads: bool = False) -> "Entered":
    """Belong to the attempt that a store holds; raise `OtherVersion`, and report it, where that has another version."""
    if record.protocol != VERSION:
        theirs = versions(record.library, record.protocol)
        failure = OtherVersion(frame.identity.rank, frame.here.host, versions(), record.process, theirs)
        farewell = RankReport.of_error(frame.identity.rank, frame.here.host, frame.here.pid, str(failure))
        with suppress(StoreLost):
            client.drive(append(keys.FAREWELLS.of(record.job), farewell.line()))
        client.close()
        raise failure
    client.prefix = record.prefix
    return Entered(frame, record, client, leads)


@attrs.frozen
class Host:
    """Rank 0, whose socket listens and is not served yet."""

    frame: Frame
    record: LeaderRecord
    listener: socket.socket
    announcement: Announcement
    directories: list[Directory]
    """For ranks to which the endpoint is not given."""

    def enter(self, torch: Torch) -> "Entered":
        """Serve the store as soon as torch is imported; raise `SlowImport`."""
        torch.wait(self.frame.deadline.remaining)
        imported(torch, self.frame)
        address, port = self.listener.getsockname()[:2]
        own = LOOPBACK if is_own(LOOPBACK) else LOOPBACK6
        target = (own if address in {EVERY, EVERY4} else address, port)
        store = serve(self.listener, target, self.frame.deadline.timeout + PATIENCE)
        if store.wait(START):
            store.result()
        else:  # torch asks a name server, which may be silent
            is_answered(target, self.frame.deadline.remaining)
        client = StoreClient(target)
        client.drive(publish(self.record))
        client.prefix = self.record.prefix
        return Entered(
            self.frame,
            self.record,
            client,
            leads=True,
            hosts=True,
            announcement=self.announcement,
            directories=self.directories,
            calls=[store],
        )

    def fail(self, mine: RankReport, seconds: float = REPORT_FAILURE) -> None:
        """Report to those who wait at the socket, and those who come, why there will be no store."""
        sentence = str(RankFailed(str(mine.error), str(mine)))
        seconds = shortened(self.frame.deadline, seconds).timeout
        turn_away(self.listener, self.record.job, sentence, self.frame.identity.others, seconds)

    def interrupt(self, mine: RankReport) -> None:
        """Do so for a moment."""
        self.fail(mine, FAREWELL)

    def close(self) -> None:
        """Let go of the socket."""
        leave(self.record)
        self.listener.close()
        self.announcement.close()
        for directory in self.directories:
            directory.close()


@attrs.frozen
class Contender:
    """Rank 0 whose port is held, maybe by another rank 0 of its job, which answers when it has imported torch."""

    frame: Frame
    record: LeaderRecord

    def enter(self, torch: Torch) -> Entered:
        """Find out who holds the port, after as long as that one may take; raise `PortTaken` or `SlowImport`."""
        torch.wait(self.frame.deadline.remaining)
        imported(torch, self.frame)
        return _contend(self.frame, self.record).enter(torch)

    def fail(self, mine: RankReport) -> None:
        """Report where this process belongs why it ends."""
        with suppress(PortTaken, OtherVersion):
            found = _contend(self.frame, self.record)
            found.fail(mine)
            found.close()

    def interrupt(self, mine: RankReport) -> None:
        """Have no one to report to: no other rank has found this one."""

    def close(self) -> None:
        """Hold nothing."""
        leave(self.record)


@attrs.frozen
class Guest:
    """A rank that looks for the store, by itself or in the directory."""

    frame: Frame
    record: LeaderRecord
    """Its own, for an agent's store in which no process leads yet."""
    finder: StoreFinder
    directories: list[Directory]
    """The directory, while this process serves it."""

    def enter(self, torch: Torch) -> "Entered":
        """Find the store while torch is imported; raise a `RendezvousError`."""
        del torch  # is waited for when the store is found
        return self.find()

    def find(self) -> "Entered":
        """Look for this job's store at all addresses and ports where it may be."""
        deadline, identity = self.frame.deadline, self.frame.identity
        remaining = min(UNRECORDED, deadline.remaining) if identity.agent_store else deadline.remaining
        until = deadline.clock() + remaining
        try:
            while (found := self.finder.find(until)) is not None:
                entered = self._try(found)
                if isinstance(entered, Entered):
                    return attrs.evolve(entered, directories=self.directories)
                self.finder.reject(found, entered, 0.05)
        except RankFailed as failure:
            while self.directories:
                self.directories.pop().pass_on(str(failure), identity.others, LATER)
            raise
        finally:
            self.finder.close()
        raise self._unreachable()

    def _unreachable(self) -> ColossalaiEnvError:
        frame, endpoint = self.frame, self.frame.endpoint
        attempts = self.finder.attempts()
        if frame.identity.agent_store:
            source = endpoint.agent_source
            here = frame.here.host
            return AgentStoreUnreachable(frame.identity.rank, here, str(endpoint), source, attempts, self.finder.silent)
        if self.finder.silent:
            attempts += "; a rank 0 that imports torch says nothing either"
        if endpoint.otherwise:
            attempts += "; without MASTER_ADDR and MASTER_PORT rank 0 listens where its launcher leads: " + ON_ALL
        if frame.leads_to_itself:
            attempts += f"; {endpoint.host!r} leads each host to itself, here {frame.here.host}"
        return RankZeroUnreachable(
            frame.identity.rank, frame.here.host, str(endpoint), endpoint.source, attempts, frame.deadline.timeout
        )

    def _try(self, target: Target) -> "Entered | str":
        """Enter the store at `target` if it is this job's; say why not otherwise."""
        frame, identity, mine = self.frame, self.frame.identity, self.record
        client = StoreClient(target, self.finder.taken())
        try:
            if identity.agent_store and identity.rank == 0 and client.drive(claim(mine, has_left)):
                return _entered(frame, mine, client, leads=True)
            brief = frame.deadline
            if not identity.agent_store:
                seconds = min(UNRECORDED, max(frame.deadline.remaining, 0.5))
                brief = attrs.evolve(brief, began=brief.clock(), timeout=seconds)
            found = client.drive(find(key_of(mine.job, agent_store=identity.agent_store), has_left, brief))
        except StoreLost as broken:
            client.close()
            return f"broke off ({broken})"
        if found is not None and found.job == mine.job:
            return _entered(frame, found, client)
        client.close()
        if found is None:
            return self._unrecorded(target)
        if frame.endpoint.one_place and target in _targets(frame.endpoint):
            raise ForeignStore(
                identity.rank, frame.here.host, shown(target), mine.job, found.job, found.host, found.pid
            )
        return f"is the store of job {found.job!r} ({found.process})"

    def _unrecorded(self, target: Target) -> str:
        met = "answers as a torch store, but no rank 0 of this library has entered it"
        frame = self.frame
        if frame.identity.agent_store or (frame.endpoint.one_place and target in _targets(frame.endpoint)):
            at, source = shown(target), frame.endpoint.source
            raise RankZeroUnreachable(
                frame.identity.rank, frame.here.host, at, source, f"{at} {met}", frame.deadline.timeout
            )
        return met

    def fail(self, mine: RankReport) -> None:
        """Enter, in little time, and report there why this rank goes, or leave word for when a store is served."""
        brief = attrs.evolve(self.frame, deadline=shortened(self.frame.deadline, REPORT_FAILURE))
        try:
            entered = attrs.evolve(self, frame=brief).find()
        except ColossalaiEnvError as failure:
            log.debug("no store was found to report to: %s", failure)
            self.interrupt(mine)
            return
        entered.fail(mine)
        entered.close()

    def interrupt(self, mine: RankReport) -> None:
        """Report to rank 0, where it is found in a moment, why this rank ends."""
        leave_word(self.finder, keys.full(keys.FAREWELLS.of(self.record.job), ""), mine.line(), FAREWELL)

    def close(self) -> None:
        """Let go of what is open."""
        leave(self.record)
        self.finder.close()
        for directory in self.directories:
            directory.close()
