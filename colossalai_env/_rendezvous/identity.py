"""Whom a rendezvous is for: all that it has to know of a process."""

import os
import socket
from typing import NamedTuple

import attrs

from .protocol.leader_record import UNNAMED, LeaderRecord

MANY = 2**31
"""More ranks than there can be."""


@attrs.frozen(kw_only=True)
class Identity:
    """One process of a launch. A process that cannot say its rank may still report why."""

    rank: int | None
    world_size: int | None
    job: str | None
    agent_store: bool = False
    """Whether the launcher's agent serves a store, so that rank 0 connects instead of listening."""

    @property
    def hosts(self) -> bool:
        """Whether this process serves the store."""
        return self.rank == 0 and not self.agent_store

    @property
    def job_name(self) -> str:
        """The launch's id, or words where it has none."""
        return self.job or UNNAMED

    @property
    def others(self) -> int:
        """How many other ranks there are; more than there can be where it is unknown."""
        return MANY if self.world_size is None else self.world_size - 1


class Here(NamedTuple):
    """Where this process runs."""

    host: str
    pid: int

    @classmethod
    def now(cls) -> "Here":
        """Look."""
        return cls(socket.gethostname(), os.getpid())


_attempts = [0]
"""How many rendezvous this process has begun."""

_left: set[LeaderRecord] = set()
"""The attempts that this process has left: a store that outlives them still holds their records."""


def new_record(identity: Identity, here: Here) -> LeaderRecord:
    """Return the record of a new attempt that this process would lead."""
    _attempts[0] += 1
    return LeaderRecord(identity.job_name, _attempts[0], here.host, here.pid)


def has_left(record: LeaderRecord) -> bool:
    """Return whether this process has left that attempt."""
    return record in _left


def leave(record: LeaderRecord) -> None:
    """Remember that this process has left that attempt."""
    _left.add(record)


def boot_id() -> str:
    """Return what tells this machine's uptime from all others, for telling nodes of one name apart."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(8).decode()
    except OSError:
        return ""
