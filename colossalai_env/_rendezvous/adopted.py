"""The ranks of a process group that exists already meet in its own store: Adopting, Entered, and in the end Adopted."""

import logging
from contextlib import suppress

import attrs

from colossalai_env._calls import Call
from colossalai_env.errors import LostRanks, MissingRanks

from .entered import Entered, Frame, Torch, shortened
from .group_store import GroupStore
from .identity import has_left, leave, new_record
from .protocol.leader_record import LeaderRecord, claim, find, key_of
from .protocol.report import RankReport
from .protocol.requests import post
from .protocol.timing import FAREWELL, REPORT_FAILURE
from .store_client import StoreLost
from .torch_store import Store

log = logging.getLogger("colossalai_env")

CALL_ON_ALL = "all ranks of the process group have to call init_from_env(attach=True)"


@attrs.frozen
class Adopting:
    """A rank of a process group that looks for the others' call."""

    frame: Frame
    store: Store
    record: LeaderRecord
    client: GroupStore

    @classmethod
    def of(cls, frame: Frame, store: Store) -> "Adopting":
        """Begin."""
        return cls(frame, store, new_record(frame.identity, frame.here), GroupStore(store))

    @property
    def _key(self) -> str:
        return key_of(self.record.job, agent_store=True)

    def enter(self, torch: Torch | None = None) -> Entered:
        """Lead as rank 0, or wait for it; raise `MissingRanks` where it does not come in time."""
        del torch
        frame, leads = self.frame, self.frame.identity.rank == 0
        try:
            found: LeaderRecord | None = self.record
            if leads:
                self.client.drive(claim(self.record, has_left), frame.deadline)
            else:
                found = self.client.drive(find(self._key, has_left, frame.deadline), frame.deadline)
        except StoreLost as broken:
            raise frame.lost(self.record, str(broken)) from None
        if found is None:
            size = frame.identity.world_size or 1
            raise MissingRanks(((0, 0),), size, frame.deadline.timeout, hint=CALL_ON_ALL)
        self.client.prefix = found.prefix
        made: Call[Store] = Call(value=self.store)
        made.done.set()
        return Entered(frame, found, self.client, leads=leads, hosts=leads, calls=[made])

    def fail(self, mine: RankReport) -> None:
        """Enter, in little time, and report there why this rank ends."""
        self._report(mine, REPORT_FAILURE)

    def interrupt(self, mine: RankReport) -> None:
        """Do so for a moment."""
        self._report(mine, FAREWELL)

    def _report(self, mine: RankReport, seconds: float) -> None:
        brief = attrs.evolve(self.frame, deadline=shortened(self.frame.deadline, seconds))
        try:
            entered = attrs.evolve(self, frame=brief).enter()
        except (MissingRanks, LostRanks) as failure:
            log.debug("could not report: %s", failure)
            return
        entered.fail(mine)
        entered.close()

    def close(self) -> None:
        """Let go of the store, in which ranks that come later do not find this attempt."""
        leave(self.record)
        if self.frame.identity.rank == 0:
            with suppress(StoreLost):
                self.client.drive(post({self._key: ""}))


@attrs.frozen
class Adopted:
    """A rank whose process group was made by others, and stays when the job is closed."""

    entered: Entered

    def close(self) -> None:
        """Let go of the store."""
        self.entered.close()
