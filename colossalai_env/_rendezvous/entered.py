"""Entered: a rank in the store of its launch, until the roll call has ended; and what is the same in all phases."""

import logging
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, TypeVar

import attrs

from colossalai_env._addresses import (
    Endpoint,
    Target,
    is_loopback,
    own_address,
    reachable,
)
from colossalai_env._calls import Call, start
from colossalai_env.errors import (
    ColossalaiEnvError,
    LostRanks,
    SlowImport,
)

from .directory import Announcement, Directory
from .identity import Here, Identity, leave
from .progress import Waiting
from .protocol import keys
from .protocol.leader_record import LeaderRecord
from .protocol.placement import Placement
from .protocol.report import RankReport, read_reports
from .protocol.requests import Deadline, Protocol, read
from .protocol.roll_call import abort, importing, leader, member
from .protocol.timing import ANNOUNCE, CUT, CUT_LEAST, FAREWELL, PATIENCE, REPORT_FAILURE
from .store_client import StoreClient, StoreLost
from .torch_store import Store, connect, cut

log = logging.getLogger("colossalai_env")

T = TypeVar("T")

Torch = Call[ModuleType]
"""The import of torch, which is waited for with a bound."""


@attrs.frozen
class Frame:
    """What is the same in all phases."""

    identity: Identity
    endpoint: Endpoint
    deadline: Deadline
    here: Here
    ends: float = float("inf")
    """When the launcher ends the job, on the deadline's clock."""
    server: str = ""
    """Who serves the store, where that is neither rank 0 nor the launcher's agent."""

    def lost(self, record: LeaderRecord, problem: str) -> LostRanks:
        """Return the error of a store that broke off."""
        agent = self.identity.agent_store
        who = f"the launcher's agent at {self.endpoint}" if agent else f"rank 0 ({record.process})"
        return LostRanks((self.server or who,), "broke off", problem)

    @property
    def given(self) -> str:
        """What gives the endpoint, where a person or script did and the launcher by itself would lead elsewhere."""
        return f"{self.endpoint}, from {self.endpoint.source}" if self.endpoint.otherwise else ""

    @property
    def leads_to_itself(self) -> bool:
        """Whether the endpoint leads each host to itself, though ranks may be on several."""
        return not self.endpoint.one_node and all(map(is_loopback, self.endpoint.addresses))


def shortened(deadline: Deadline, seconds: float) -> Deadline:
    """Return a deadline from now on, of so many seconds, and no later than `deadline` unless that is over."""
    timeout = max(FAREWELL, min(seconds, deadline.remaining))
    return attrs.evolve(deadline, began=deadline.clock(), timeout=timeout)


def imported(torch: Torch, frame: Frame) -> None:
    """Raise `SlowImport` where torch is not imported in time, or what its import raised."""
    if not torch.is_done:
        raise SlowImport(frame.deadline.timeout, frame.identity.rank, frame.here.host)
    torch.result()


@attrs.frozen
class Entered:
    """A rank in the store of its launch, before the roll call."""

    frame: Frame
    record: LeaderRecord
    client: StoreClient
    leads: bool
    """Whether this process gives the verdict."""
    hosts: bool = False
    """Whether this process serves the store."""
    announcement: Announcement = attrs.field(factory=Announcement)
    directories: list[Directory] = attrs.field(factory=list[Directory])
    calls: list[Call[Any]] = attrs.field(factory=list[Call[Any]])
    """Torch's calls: the one that makes its own store, which is the first, and the one that makes the group."""

    def enter(self, torch: Torch) -> "Entered":
        """Be here already."""
        del torch
        return self

    def wait_for(self, torch: Torch) -> None:
        """Wait for the import of torch; raise `SlowImport`, or what rank 0 says meanwhile."""
        frame = self.frame
        self.drive(importing(self.rank, frame.here.host, frame.here.pid, frame.deadline), torch)
        imported(torch, frame)

    def drive(self, protocol: Protocol[T], beside: Call[Any] | None = None) -> T:
        """Perform a protocol's requests, with a call beside it; raise `LostRanks` where the store breaks off."""
        return self._asked(lambda: self.client.drive(protocol, self.frame.deadline, beside))

    @property
    def rank(self) -> int:
        """This process's rank, which is known to whoever goes on."""
        return self.frame.identity.rank or 0

    @property
    def served(self) -> int:
        """How many other ranks read the store that this process serves."""
        return self.frame.identity.others if self.hosts else 0

    @property
    def group_prefix(self) -> str:
        """What the keys of the process group begin with."""
        return f"{self.record.prefix}group"

    def own_address(self) -> str | None:
        """Return the address of this host by which the store was reached; None where that was loopback."""
        address = self._asked(self.client.own_address)
        return None if is_loopback(address) else address

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except StoreLost as broken:
            raise self.frame.lost(self.record, str(broken)) from None

    def rank0(self) -> Target:
        """Return where the store was found: the host where it was looked for, or an address that was told."""
        address, port = self.client.target
        if self.frame.endpoint.directory and self.hosts:
            address = self.announcement.address(ANNOUNCE) or own_address()
        return self.frame.endpoint.host if address in self.frame.endpoint.addresses else address, port

    def torch_store(self) -> Call[Store]:
        """Return torch's own store, or the call that connects it, which goes on while the roll call is held."""
        target, patience = self.client.target, self.frame.deadline.timeout + PATIENCE
        if not self.calls:
            self.calls.append(start(lambda: connect(target, patience)))
        return self.calls[0]

    def gather(self, mine: RankReport) -> Placement | None:
        """Hold the roll call; return what the launcher left unknown of this rank's place.

        Raises a verdict, the same on all ranks, or what keeps this rank from it.
        """
        self.torch_store()
        try:
            return self.drive(self.lead(mine) if self.leads else member(mine, self.record.process, self.frame.deadline))
        finally:
            self._close_directory()

    def lead(self, mine: RankReport) -> Protocol[Placement | None]:
        """Hold the roll call as the one who gives the verdict."""
        waiting = Waiting(mine.world_size, self.frame.ends)
        farewells = keys.FAREWELLS.of(self.record.job)
        try:
            placed, shared = yield from leader(mine, farewells, self.frame.deadline, waiting.show, self._hint())
        finally:
            waiting.close()
        if shared is not None:
            log.warning("%s", shared)
        return placed

    def _hint(self) -> str:
        """Describe what is wrong with an endpoint that leads each host to itself, unless all ranks are on one."""
        if not self.frame.leads_to_itself:
            return ""
        return (
            f"{self.frame.endpoint.host!r}, from {self.frame.endpoint.source}, leads each host to itself: "
            f"for ranks on other hosts export MASTER_ADDR={reachable(())} on every rank"
        )

    def reports(self) -> list[RankReport]:
        """Read what all ranks reported, also when the deadline is long over."""
        return read_reports(self.client.drive(read(keys.REPORTS.name)))

    def fail(self, mine: RankReport) -> None:
        """Hold the roll call with an error to report, in little time; what the others say of it is not news here."""
        brief = attrs.evolve(self.frame, deadline=shortened(self.frame.deadline, REPORT_FAILURE))
        entered = attrs.evolve(self, frame=brief)
        with suppress(ColossalaiEnvError):
            entered.drive(entered.lead(mine) if self.leads else member(mine, self.record.process, brief.deadline))

    def interrupt(self, mine: RankReport) -> None:
        """Report to the others, for a moment, why this rank ends."""
        try:
            self.client.drive(abort(mine, hosts=self.hosts), self.frame.deadline)
        except StoreLost:
            log.warning("%s could not tell the other ranks: %s", mine, mine.error)

    def _close_directory(self) -> None:
        for directory in self.directories:
            directory.close()
        self.directories.clear()
        self.announcement.close()

    def close(self) -> None:
        """Let go of the store, and of torch's calls to it that are under way."""
        leave(self.record)
        self._close_directory()
        self.client.close()
        under_way = [call for call in self.calls if not call.is_done]
        if under_way:
            cut(self.client.target)
        for call in under_way:
            call.wait(max(CUT_LEAST, min(CUT, self.frame.deadline.remaining + CUT)) / len(under_way))
        self.calls.clear()
