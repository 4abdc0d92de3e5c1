"""Every key of the protocol: who writes it, who reads it, and when.

A key lies under the prefix of its launch's attempt, so nothing is read that another launch or an earlier attempt has
left in a store. One that begins with a slash is common to all attempts of a job, or to all jobs of a store.
"""

from typing import NamedTuple


class Key(NamedTuple):
    """One row of the table. `name` may hold the rank or the process of its writer, as ``{}``."""

    name: str
    writer: str
    reader: str
    when: str

    def of(self, writer: object) -> str:
        """Return the key of one writer."""
        return self.name.format(writer)


RECORD = Key("/leader", "the process that serves the store", "all ranks", "when they look whose store this is")
CLAIM = Key("/{}/leader", "rank 0, in a launcher's agent's store or an adopted group's", "all ranks", "as the record")
FAREWELLS = Key("/{}/farewells", "a rank that leaves before it has entered", "rank 0", "while it waits for all ranks")

REPORTS = Key("reports", "each rank, one line", "rank 0; all ranks for the topology", "while it waits for all ranks")
COUNT = Key("count", "each rank adds 1", "the rank itself: is it one too many?", "when it has reported")
WAKE = Key("wake", "the last rank, or one that reports an error", "rank 0", "instead of waiting for the next beat")
BEAT = Key("beat", "rank 0 adds 1, twice a second", "waiting ranks", "to tell a slow rank 0 from a lost one")
IMPORTING = Key("importing", "a rank whose import of torch takes long", "rank 0", "when it names missing ranks")

CALL = Key("call", "rank 0", "waiting ranks", "when all have reported, or cannot: who is still there?")
ACKNOWLEDGED = Key("ack/{}", "each rank, by rank and pid", "rank 0", "when it has been called")
VERDICT = Key("verdict", "rank 0", "all ranks", "after that: the end of the roll call")
PLACEMENT = Key("place/{}", "rank 0", "a rank whose launcher does not say all", "before a good verdict")
INTERFACE = Key("interface", "rank 0", "ranks that reached it by loopback", "before gloo's group is made")
READ = Key("read/{}", "each rank that has read a bad verdict", "rank 0", "before it ends the store")

CONNECTED = Key("in/{}", "a rank whose group is made", "the others", "while the group is made")
FAILED = Key("out/{}", "a rank whose own connect failed", "the others", "while the group is made")
PULSE = Key(
    "pulse/{}", "a rank that still connects adds 1 a second", "ranks that watch or look", "to tell slow from lost"
)
WATCHES = Key(
    "watches",
    "a rank that watches adds 1",
    "ranks that connect or wait at their end",
    "when rank 0, which watches first, is connected",
)
LOOKS = Key(
    "looks",
    "each rank whose connect failed or lasts too long adds 1",
    "the rank itself: does it look?",
    "before the silent are named",
)
SILENT = Key("silent", "the first of those that look", "these ranks", "before the silent are named")
BROKEN = Key("broken", "whoever finds that the group cannot be made", "all ranks", "while the group is made")
PARTED = Key("parted", "each rank that leaves a group that failed adds 1", "rank 0", "before it ends the store")
MADE = Key("made", "each rank whose group is made adds 1", "a rank that closes its job", "before it leaves the others")
CLOSED = Key("closed", "each rank that closes its job adds 1", "rank 0", "before it ends the store")

TABLE = tuple(value for value in globals().values() if isinstance(value, Key))
"""All of them, in the order of a launch."""


PARENT = "colossalai_env"
"""What all our keys in a store begin with."""


def full(name: str, prefix: str) -> str:
    """Return the whole name of a key: under an attempt's prefix, unless it begins with a slash."""
    return f"{PARENT}{name}" if name.startswith("/") else f"{PARENT}/{prefix}{name}"
