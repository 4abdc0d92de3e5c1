"""Whose store is this: the record of the process that leads in it, how it is written, claimed and read."""

import json
from collections.abc import Callable

import attrs

from colossalai_env._version import VERSION as LIBRARY

from .keys import CLAIM, RECORD
from .requests import VERSION, Deadline, Protocol, pause, post, read, swap

POLL = 0.02
"""Seconds between two looks for the record."""

UNNAMED = "without an id"
"""What a launch is called that has no token of its own; COLOSSALAI_ENV_JOB_ID gives it one."""


@attrs.frozen
class LeaderRecord:
    """One launch's attempt to meet: the job, the process that leads it, and which attempt of that process it is."""

    job: str
    generation: int
    host: str
    pid: int
    protocol: int = VERSION
    library: str = LIBRARY

    @property
    def process(self) -> str:
        """Name pid and host."""
        return f"pid {self.pid} on {self.host}"

    @property
    def prefix(self) -> str:
        """What all keys of the attempt begin with; no other attempt's do, in whatever store."""
        return f"{self.job}/{self.host}-{self.pid}-{self.generation}/"

    def text(self) -> str:
        """Write the record as JSON."""
        return json.dumps(attrs.asdict(self))

    @classmethod
    def of(cls, text: str) -> "LeaderRecord":
        """Read a record, of whatever version: these fields are in all of them."""
        found = json.loads(text)
        return cls(**{field.name: found[field.name] for field in attrs.fields(cls) if field.name in found})


def key_of(job: str, *, agent_store: bool) -> str:
    """Return the key of the record: an agent's store may hold several launches, so there it holds the job's id."""
    return CLAIM.of(job) if agent_store else RECORD.name


def publish(record: LeaderRecord) -> Protocol[None]:
    """Publish whose store this is, in one's own."""
    yield from post({key_of(record.job, agent_store=False): record.text()})


Left = Callable[[LeaderRecord], bool]
"""Returns whether this process has left an attempt: a store that outlives it still holds its record."""


def claim(record: LeaderRecord, left: Left) -> Protocol[bool]:
    """Lead in an agent's store unless another process does; return whether this one leads."""
    key, mine = key_of(record.job, agent_store=True), record.text()
    found = yield from swap(key, "", mine)
    if left(LeaderRecord.of(found)):
        found = yield from swap(key, found, mine)
    return LeaderRecord.of(found) == record


def find(key: str, left: Left, deadline: Deadline) -> Protocol[LeaderRecord | None]:
    """Return the record in a store; None where none comes in time, but for those that this process has left."""
    while (remaining := deadline.remaining) > 0:
        text = yield from read(key, remaining)
        record = LeaderRecord.of(text) if text else None  # an empty one was taken back
        if record is not None and not left(record):
            return record
        yield from pause(POLL)
    return None
