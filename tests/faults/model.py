"""What a fault is: who is started when, what is done to them, and what must be said by whom."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import attrs

T = 4.0
"""The timeout of a fault's ranks, where the fault does not say. On a slow machine all seconds of a fault are longer."""


AGENT: Mapping[str, str | None] = {"TORCHELASTIC_USE_AGENT_STORE": "True"}
"""What torchrun says when its agent serves the store."""

HOLD = ("init", "sum", "hold", "sum", "close")
"""What a rank does that waits in its group until it is told to go on."""


@attrs.frozen
class At:
    """A moment: some seconds after something was seen of a process.

    Seen is "entered", "returned", "raised", "summed", "closed", "ready", "done" (its own words), "started", "ended",
    "signalled" (from outside), "listening" (it listens on the fault's port) or "connected" (it has a connection to it).
    """

    seen: str = "begin"
    of: str = ""
    plus: float = 0.0


BEGIN = At()


@attrs.frozen(kw_only=True)
class Rank:
    """One rank of a job, as its launcher starts it."""

    name: str
    rank: int
    size: int
    after: At = BEGIN
    timeout: float = T
    dialect: str = "env"
    """Who tells it its rank: "env" (set by hand), "torchrun", "slurm", or "arguments" of the call."""
    job: str = ""
    """Which job it belongs to; the launch's own id where its dialect has one."""
    host: str = "127.0.0.1"
    settings: Mapping[str, str | None] = attrs.field(factory=dict[str, "str | None"])
    """Variables on top of the dialect's; None unsets."""
    keywords: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """Further arguments of the call."""
    steps: tuple[str, ...] = ("init", "sum", "close")
    """What it does: init, try (init, going on after an error), sum, close, hold (until told to go), nap."""
    torch_version: str | None = None
    release: tuple[str, int] | None = None
    """The versions of its library and of that one's protocol, where they are others; it is a fresh interpreter."""
    handler: bool = False
    """Whether the program has handlers of its own: for SIGTERM, by which it exits, and for SIGUSR1, which it notes."""
    files: int | None = None
    """How many files it may open, where that is limited."""
    cold: bool = False
    """Whether it is a fresh interpreter, which imports torch inside init."""
    import_delay: float = 0.0
    """Seconds that a fresh interpreter's import of torch takes longer."""


@attrs.frozen(kw_only=True)
class Bystander:
    """A process that is of no job: a server at the fault's port, or a client of it; see bystanders.py."""

    name: str
    after: At = BEGIN
    port_offset: int = 0
    """Which of the derived ports it takes: the first, or the one tried next."""


Process: TypeAlias = Rank | Bystander


@attrs.frozen
class Act:
    """Something done to a process at a moment: a signal by name ("KILL"), or "go"."""

    at: At
    deed: str
    to: str


@attrs.frozen(kw_only=True)
class Say:
    """What some ranks must say: words of an error, or that the sum was right; and by when."""

    who: str
    """Names of processes, with blanks between."""
    words: tuple[str, ...] = ()
    """Each must stand in the error as a word of its own; "a|b" is either.

    <port>, <here>, <timeout> and <pid NAME> are filled in.
    """
    never: tuple[str, ...] = ()
    """Words that must not stand there."""
    fine: bool = False
    """It must not fail: the sum is right, and of its own job alone."""
    maybe: bool = False
    """It may also be fine."""
    by_signal: str | None = None
    """The signal that it must die of, or the KeyboardInterrupt of INT."""
    within: float | None = None
    """Seconds that it may take, from `since`; its timeout and 2 s more where it is None."""
    since: At | None = None
    """When the seconds begin; with its own call of init where it is None."""
    turn: int = -1
    """Which of its calls of init, where it makes several."""


@attrs.frozen(kw_only=True)
class Look:
    """At a moment, only these addresses listen at the fault's port, and by one socket, the same at each look."""

    at: At
    addresses: tuple[str, ...]
    owner: str
    maybe: bool = False
    """Whether it may also be that nobody ever listens."""


@attrs.frozen(kw_only=True)
class Fault:
    """One way in which a launch goes wrong, and what is promised then."""

    name: str
    promises: tuple[int, ...]
    story: str
    processes: tuple[Process, ...]
    says: tuple[Say, ...]
    acts: tuple[Act, ...] = ()
    looks: tuple[Look, ...] = ()
    plain: str | None = None
    """Why the fault cannot be put to plain torch, where it cannot."""

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """The processes that call init."""
        return tuple(process for process in self.processes if isinstance(process, Rank))

    @property
    def derived(self) -> bool:
        """Whether the port is derived from the launcher's own variables, not given."""
        return any(rank.dialect == "slurm" and "MASTER_PORT" not in rank.settings for rank in self.ranks)


def world(size: int, *, only: str | None = None, **alike: Any) -> tuple[Rank, ...]:
    """Return the ranks of a world, named by their numbers, or `only` some of them ("0 2")."""
    numbers = range(size) if only is None else map(int, only.split())
    return tuple(Rank(name=str(number), rank=number, size=size, **alike) for number in numbers)


def entered(of: str, plus: float = 0.0) -> At:
    """Name the moment of a process's call of init."""
    return At("entered", of, plus)


def connected(of: str, plus: float = 0.0) -> At:
    """Name the moment of a process's first connection to the fault's port."""
    return At("connected", of, plus)


def listening(of: str, plus: float = 0.0) -> At:
    """Name the moment from which a process listens at the fault's port."""
    return At("listening", of, plus)


def ready(of: str, plus: float = 0.0) -> At:
    """Name the moment from which a bystander does what it is there for."""
    return At("ready", of, plus)


def done(of: str, plus: float = 0.0) -> At:
    """Name the moment at which a client has done what it is there for."""
    return At("done", of, plus)


def signalled(of: str) -> At:
    """Name the moment of the last signal to a process."""
    return At("signalled", of)


def fine(who: str, **options: Any) -> Say:
    """Say that these ranks start and sum as if nothing had been."""
    return Say(who=who, fine=True, **options)


def told(who: str, *words: str, **options: Any) -> Say:
    """Say that these ranks raise an error with these words."""
    return Say(who=who, words=words, **options)
