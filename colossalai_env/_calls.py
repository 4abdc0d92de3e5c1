"""Blocking calls on threads of their own, so that signals and deadlines are served meanwhile."""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import attrs

T = TypeVar("T")


@attrs.define(eq=False)
class Call(Generic[T]):
    """A blocking call under way, and in the end what came of it."""

    done: threading.Event = attrs.field(factory=threading.Event)
    value: T | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether the call has ended."""
        return self.done.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the call; return whether it has ended."""
        return self.done.wait(max(0.0, seconds))

    def result(self) -> T:
        """Return what the call returned, or raise what it raised, when it has ended."""
        self.done.wait()
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


_under_way: "set[Call[Any]]" = set()


def calls_under_way() -> bool:
    """Return whether a thread is inside a call that is not waited for any more."""
    return bool(_under_way)


def start(make: Callable[[], T]) -> Call[T]:
    """Make a blocking call on a thread of its own."""
    call: Call[T] = Call()
    _under_way.add(call)

    def run() -> None:
        try:
            call.value = make()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, whatever it is
            call.error = error
        _under_way.discard(call)
        call.done.set()

    threading.Thread(target=run, daemon=True, name="colossalai_env call").start()
    return call
