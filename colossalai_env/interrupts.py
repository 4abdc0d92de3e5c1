"""SIGTERM and Ctrl-C during init: they interrupt it, so that the other ranks can be told."""

import _thread
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TypeAlias

import attrs

AGAIN = 0.1
"""Seconds after which an interrupt that was swallowed is sent again."""

Handler: TypeAlias = Callable[[int, FrameType | None], object] | signal.Handlers

DEFAULTS: Mapping[int, Handler] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
"""Python's own handlers; where another stands, the program serves the signal itself."""


class Stopped(BaseException):
    """SIGTERM came during init."""


@attrs.define
class _Interrupt:
    """One interruption, sent again until it is felt: code that an import runs may drop any exception."""

    came: BaseException | None = None
    felt: bool = False
    _sending: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        del frame
        if self.felt:
            return
        if self.came is None:
            self.came = KeyboardInterrupt() if number == signal.SIGINT else Stopped()
            # a threading.Thread takes locks of its module, which the interrupted code may hold
            _thread.start_new_thread(self._repeat, (number,))
        raise self.came

    def _repeat(self, number: int) -> None:
        while True:
            time.sleep(AGAIN)
            with self._sending:
                if self.felt:
                    return
                signal.pthread_kill(threading.main_thread().ident or 0, number)

    def feel(self) -> None:
        """Send it no more."""
        self.felt = True
        with self._sending:
            pass


@contextmanager
def interruptible() -> Generator[None]:
    """Raise `Stopped` for SIGTERM and KeyboardInterrupt for Ctrl-C, where the program has no handlers of its own."""
    ours = [number for number, handler in DEFAULTS.items() if signal.getsignal(number) is handler]
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield
        return
    interrupt = _Interrupt()
    for number in ours:
        signal.signal(number, interrupt.arrive)
    try:
        yield
    finally:
        interrupt.feel()
        for number in ours:
            signal.signal(number, DEFAULTS[number])
        if interrupt.came is not None:
            raise interrupt.came


def die_of_sigterm() -> None:
    """End this process as SIGTERM does."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
