"""DistSpec: who this process is in its job, and the invariants of that answer."""

from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import attr as attrs

from .errors import InvalidSpec

LARGEST = 2**31 - 1
"""The largest rank, size or index: they are C ints in MPI, in Slurm and in c10d."""

DIGITS = len(str(LARGEST))

JOB_ID = "COLOSSALAI_ENV_JOB_ID"
"""A token for launches that have none of their own, such as ranks that are started by hand."""


def whole_number(text: str, smallest: int = 0, largest: int = LARGEST) -> int:
    """Read a plain ASCII decimal; raise `ValueError` saying what was expected."""
    if text.isascii() and text.isdigit() and len(text) <= DIGITS and smallest <= (number := int(text)) <= largest:
        return number
    msg = f"a whole number from {smallest} to {largest} in plain digits"
    raise ValueError(msg)


def positive_number(text: str) -> int:
    """Read a number of processes or nodes, at least 1."""
    return whole_number(text, smallest=1)


def port_number(text: str) -> int:
    """Read a TCP port, 1 to 65535."""
    return whole_number(text, smallest=1, largest=65535)


@lru_cache(maxsize=8)
def host_name(text: str) -> str:
    """Read a host's name or IP address; raise `ValueError` for anything that carries more, such as a port."""
    if not (_is_name(text) or _is_ipv6(text)):
        msg = "a host name or an IP address alone, without port, brackets, scheme or spaces"
        raise ValueError(msg)
    return text


def _is_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    if not text.isascii() or len(text) > 253 or not all(_is_label(label) for label in labels):
        return False
    if all(label.isdigit() for label in labels):  # nothing but digits and dots is an IPv4 address or nothing
        return len(labels) == 4 and all(int(label) <= 255 for label in labels)
    return True


def _is_label(label: str) -> bool:
    return 0 < len(label) <= 63 and label.replace("-", "").replace("_", "").isalnum() and label[0] != "-"


def _is_ipv6(text: str) -> bool:
    if ":" not in text:
        return False
    from ipaddress import IPv6Address

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _number(smallest: int, *, optional: bool, largest: int = LARGEST) -> Any:  # noqa: ANN401 - an attrs validator
    def check(instance: object, field: "attrs.Attribute[int | None]", value: int | None) -> None:
        del instance
        if value is None and optional:
            return
        if type(value) is not int or not smallest <= value <= largest:
            msg = f"{field.name} is {value!r}, expected a whole number from {smallest} to {largest}"
            raise InvalidSpec(msg, (field.name,))

    return check


def _text(instance: object, field: "attrs.Attribute[Any]", value: str | None) -> None:
    del instance
    if value is not None and (type(value) is not str or not value):
        msg = f"{field.name} is {value!r}, expected a text that is not empty"
        raise InvalidSpec(msg, (field.name,))


def _as_text(token: str | None) -> str | None:
    """Make text of what the environment holds as bytes: UTF-8 where it is that, and else with escapes.

    Where a process's locale is C, `os.environ` has lone surrogates for bytes beyond ASCII, which nothing can encode;
    ranks of other locales have the text itself.
    """
    if type(token) is not str or token.isascii():
        return token
    try:
        held = token.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that no environment brings
        held = token.encode("utf-8", "backslashreplace")
    return held.decode("utf-8", "backslashreplace")


def _name(instance: object, field: "attrs.Attribute[str]", value: str) -> None:
    _text(instance, field, value)


def _host(instance: object, field: "attrs.Attribute[str | None]", value: str | None) -> None:
    _text(instance, field, value)
    if value is not None:
        try:
            host_name(value)
        except ValueError as expected:
            msg = f"{field.name} is {value!r}, expected {expected}"
            raise InvalidSpec(msg, (field.name,)) from None


class Origin(Enum):
    """By what way a value was found."""

    LAUNCHER = "a variable that a launcher sets"
    CHOSEN = "what a person or a script chose: an argument, an option, MASTER_ADDR or MASTER_PORT"
    RULE = "a rule, from other values"
    ASKED = "the launcher, when it was asked"
    RENDEZVOUS = "the ranks, when they met"


class Source(str):
    """Where a value came from: as text for people, and by what way."""

    __slots__ = ("origin",)

    origin: Origin

    def __new__(cls, text: str, origin: Origin = Origin.LAUNCHER) -> "Source":  # noqa: PYI034 - Self is of Python 3.11
        """Make one of a text."""
        source = super().__new__(cls, text)
        source.origin = origin
        return source

    def __getnewargs__(self) -> tuple[str, Origin]:  # type: ignore[override]
        """Pickle with both."""
        return str(self), self.origin


CHOSEN = frozenset({"MASTER_ADDR", "MASTER_PORT", "--host", "--port"})
"""Variables and options that people and scripts set on purpose."""


@lru_cache(maxsize=128)
def source_of(names: tuple[str, ...], rule: str = "") -> Source:
    """Return the source of a value: variables, and the function that made it of them, or a rule alone."""
    if not names:
        return Source(f"rule: {rule}", Origin.RULE)
    origin = Origin.CHOSEN if not rule and CHOSEN.issuperset(names) else Origin.LAUNCHER
    return Source(", ".join(names) + (f" ({rule})" if rule else ""), origin)


def _frozen_sources(sources: Mapping[str, str]) -> Mapping[str, Source]:
    return MappingProxyType(
        {name: text if isinstance(text, Source) else Source(text) for name, text in sources.items()}
    )


@attrs.frozen(kw_only=True)
class DistSpec:
    """One process's place in its job: immutable and validated; ``None`` is what nothing says truly.

    Raises `InvalidSpec` when a value is malformed or contradicts another.
    """

    rank: int = attrs.field(validator=_number(0, optional=False))
    """This process among all, from 0."""
    world_size: int = attrs.field(validator=_number(1, optional=False))
    """How many processes there are."""
    local_rank: int | None = attrs.field(default=None, validator=_number(0, optional=True))
    """This process among those of its node, from 0."""
    local_world_size: int | None = attrs.field(default=None, validator=_number(1, optional=True))
    """How many processes this node has."""
    node_rank: int | None = attrs.field(default=None, validator=_number(0, optional=True))
    """This node among all, from 0; under torchrun, this agent."""
    num_nodes: int | None = attrs.field(default=None, validator=_number(1, optional=True))
    """How many nodes there are; under torchrun, how many agents."""
    host: str | None = attrs.field(default=None, validator=_host)
    """Name or address at which rank 0 is reached."""
    port: int | None = attrs.field(default=None, validator=_number(1, optional=True, largest=65535))
    """TCP port of the store on `host`."""
    agent_store: bool = False
    """Whether the launcher already serves a store at host and port, so that rank 0 connects instead of binding."""
    backend: str | None = attrs.field(default=None, validator=_text)
    """The process group's backend, where one was asked for."""
    resolver: str = attrs.field(default="given", validator=_name)
    """Who says all this."""
    job_id: str | None = attrs.field(default=None, validator=_text, converter=_as_text)
    """A token that tells this launch from any other: job, step, restart."""
    sources: Mapping[str, Source] = attrs.field(
        factory=dict[str, Source], eq=False, repr=False, converter=_frozen_sources
    )
    """Field name to the variable, argument or rule it came from; no part of equality."""

    def __attrs_post_init__(self) -> None:
        """Compare the fields with each other."""
        self._below("rank", self.rank, "world_size", self.world_size)
        self._below("local_rank", self.local_rank, "local_world_size", self.local_world_size)
        self._below("node_rank", self.node_rank, "num_nodes", self.num_nodes)
        nodes, here = self.num_nodes or 1, self.local_world_size
        if nodes > self.world_size:
            self._contradiction("num_nodes", "world_size", "more nodes than processes")
        if here is not None and here + nodes - 1 > self.world_size:
            self._contradiction("local_world_size", "world_size", "more processes on the nodes than in the world")
        if here is not None and self.num_nodes == 1 and here != self.world_size:
            self._contradiction("local_world_size", "world_size", "on a single node they must be equal")

    def _below(self, index: str, number: int | None, count: str, bound: int | None) -> None:
        if number is not None and bound is not None and number >= bound:
            self._contradiction(index, count, f"{index} counts from 0 and must be below {count}")

    def _contradiction(self, one: str, other: str, rule: str) -> None:
        values = f"{one} is {getattr(self, one)} and {other} is {getattr(self, other)}"
        raise InvalidSpec(f"{values}: {rule}", (one, other))

    def origin(self, field: str) -> Origin | None:
        """Return by what way a field's value was found; None where it has no source."""
        source = self.sources.get(field)
        return source.origin if source is not None else None

    @property
    def one_node(self) -> bool:
        """Whether the whole world is known to be on one node."""
        return self.num_nodes == 1 or self.local_world_size == self.world_size

    def to_env(self) -> dict[str, str]:
        """Return the variables that other libraries read, as torchrun names them, and ``COLOSSALAI_ENV_JOB_ID``.

        What is unknown is left out. A single process without a port gets loopback and a port that is free now, since
        ``env://`` needs both.
        """
        alone = self.world_size == 1 and self.port is None
        values = {
            "RANK": self.rank,
            "WORLD_SIZE": self.world_size,
            "LOCAL_RANK": self.local_rank,
            "LOCAL_WORLD_SIZE": self.local_world_size,
            "GROUP_RANK": self.node_rank,
            "GROUP_WORLD_SIZE": self.num_nodes,
            "NODE_RANK": self.node_rank,
            "MASTER_ADDR": "127.0.0.1" if alone else self.host,
            "MASTER_PORT": _free_port() if alone else self.port,
            JOB_ID: self.job_id,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        """Print on one line: ``rank 3 of 6, local 1 of 2, node 1 of 3, gpu-a01:29500, by slurm, job 212.0``."""
        parts = [
            f"rank {self.rank} of {self.world_size}",
            _of("local", self.local_rank, self.local_world_size),
            _of("node", self.node_rank, self.num_nodes),
            f"{self.host or '?'}:{self.port or '?'}" if self.host or self.port else "",
            f"backend {self.backend}" if self.backend else "",
            f"by {self.resolver}",
            f"job {self.job_id}" if self.job_id else "",
        ]
        return ", ".join(part for part in parts if part)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as plain values: a mapping proxy does not pickle."""
        return {**{name: getattr(self, name) for name in FIELDS}, "sources": dict(self.sources)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, _frozen_sources(value) if name == "sources" else value)


def _of(word: str, index: int | None, count: int | None) -> str:
    if index is None and count is None:
        return ""
    return f"{word} {'?' if index is None else index} of {'?' if count is None else count}"


def _free_port() -> int:
    """Return a port of loopback on which no process listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


FIELDS = tuple(field.name for field in attrs.fields(DistSpec) if field.name != "sources")
"""The names of all fields that carry meaning."""
