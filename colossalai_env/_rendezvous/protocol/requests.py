"""What a protocol may ask of a store, and of time: values that whoever drives it performs.

A protocol is a generator: it yields requests and is sent their answers. It opens no socket, starts no thread and has no
clock of its own, so a test runs whole launches in memory, in any order of events.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import attrs

VERSION = 3
"""The version of what is written to the store. Ranks of two versions do not understand each other and say so."""


@attrs.frozen
class Append:
    """Add text to the end of a key."""

    key: str
    text: str


@attrs.frozen
class Add:
    """Add to a counter; the answer is its new value."""

    key: str
    amount: int


@attrs.frozen
class Post:
    """Set keys, all at once."""

    entries: Mapping[str, str]


@attrs.frozen
class Swap:
    """Set a key if it is as expected, the empty text standing for none; the answer is what it is then."""

    key: str
    expected: str
    desired: str


@attrs.frozen
class Read:
    """Wait for a key and read it; the answer is None when it does not come within the seconds."""

    key: str
    within: float


@attrs.frozen
class Await:
    """Wait for keys; the answer is whether all came within the seconds."""

    keys: tuple[str, ...]
    within: float


@attrs.frozen
class Together:
    """Make some requests in one message, none of which waits; the answers are theirs, None of one that has none."""

    requests: "tuple[Append | Add | Post | Await, ...]"
    then: str | None = None
    """The key that is waited for next: that wait begins in the same message, and a later request goes on with it."""


@attrs.frozen
class Alive:
    """Ask whether the store's process still answers, within the seconds."""

    within: float


@attrs.frozen
class CallEnd:
    """Wait for the end of the blocking call that goes on beside the protocol; the answer is whether it has ended."""

    within: float


@attrs.frozen
class Pause:
    """Let some seconds pass."""

    seconds: float


Request: TypeAlias = Append | Add | Post | Swap | Read | Await | Together | Alive | CallEnd | Pause
Result = TypeVar("Result")
Protocol: TypeAlias = Generator[Request, Any, Result]


def append(key: str, text: str) -> Protocol[None]:
    """Add text to the end of a key."""
    yield Append(key, text)


def add(key: str, amount: int) -> Protocol[int]:
    """Add to a counter, and return what it is then."""
    count: int = yield Add(key, amount)
    return count


def post(entries: Mapping[str, str]) -> Protocol[None]:
    """Set keys, all at once."""
    yield Post(entries)


def swap(key: str, expected: str, desired: str) -> Protocol[str]:
    """Set a key if it is as expected, the empty text standing for none; return what it is then."""
    found: str = yield Swap(key, expected, desired)
    return found


def read(key: str, within: float = 0.0) -> Protocol[str | None]:
    """Return the text of a key; None when it does not come within the seconds."""
    text: str | None = yield Read(key, within)
    return text


def wait_for(keys: tuple[str, ...], within: float = 0.0) -> Protocol[bool]:
    """Wait for keys; return whether all came within the seconds."""
    came: bool = yield Await(keys, within)
    return came


def each_is_there(keys: Iterable[str]) -> Protocol[list[bool]]:
    """Return of each key whether it is there, by one message for all."""
    found: list[bool] = yield Together(tuple(Await((key,), 0.0) for key in keys))
    return found


def each_count(keys: Iterable[str]) -> Protocol[list[int]]:
    """Return what each counter is, by one message for all."""
    counts: list[int] = yield Together(tuple(Add(key, 0) for key in keys))
    return counts


def is_alive(within: float) -> Protocol[bool]:
    """Return whether the store's process answers within the seconds."""
    alive: bool = yield Alive(within)
    return alive


def call_ended(within: float) -> Protocol[bool]:
    """Wait for the end of the blocking call beside the protocol; return whether it has ended within the seconds."""
    ended: bool = yield CallEnd(within)
    return ended


def pause(seconds: float) -> Protocol[None]:
    """Let some seconds pass."""
    yield Pause(seconds)


@attrs.frozen
class Deadline:
    """When one rank's time is over: the moment at which it began, on a clock of its own, and its timeout."""

    clock: Callable[[], float]
    began: float
    timeout: float
    """Seconds."""

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, negative after it."""
        return self.began + self.timeout - self.clock()
