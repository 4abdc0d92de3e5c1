"""SIGTERM and Ctrl-C during init: the other ranks are told before the process ends as it would have."""

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
"""Seconds after which a KeyboardInterrupt that was swallowed is raised again."""

Handler: TypeAlias = Callable[[int, FrameType | None], object] | signal.Handlers

DEFAULTS: Mapping[int, Handler] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
"""Python's own handlers; where another stands, the program serves the signal itself."""


@attrs.define
class _Interrupt:
    """One interruption. SIGTERM raises nothing: in torch's import an exception aborts the process now and then.

    KeyboardInterrupt is the program's to catch; it is raised until it is felt, since code that an import runs may drop
    any exception.
    """

    tell: Callable[[str], None]
    came: KeyboardInterrupt | None = None
    telling: bool = False
    felt: bool = False
    _sending: threading.Lock = attrs.field(init=False, factory=threading.Lock)

    def arrive(self, number: int, frame: FrameType | None) -> None:
        """Handle the signal."""
        del frame
        if number == signal.SIGTERM:
            try:
                if not self.telling:
                    self.telling = True
                    self.tell("was stopped by SIGTERM")
            finally:
                _die_of_sigterm()
        if self.telling or self.felt:
            return
        if self.came is None:
            self.telling = True
            self.tell("was stopped by Ctrl-C")
            self.telling = False
            self.came = KeyboardInterrupt()
            # a threading.Thread takes locks of its module, which the interrupted code may hold
            _thread.start_new_thread(self._repeat, ())
        raise self.came

    def _repeat(self) -> None:
        while True:
            time.sleep(AGAIN)
            with self._sending:
                if self.felt:
                    return
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    def feel(self) -> None:
        """Raise it no more."""
        self.felt = True
        with self._sending:
            pass


@contextmanager
def interruptible(tell: Callable[[str], None]) -> Generator[None]:
    """Pass the reason to `tell` when SIGTERM or Ctrl-C comes, where the program has no handlers of its own.

    Then the process dies of SIGTERM, or KeyboardInterrupt is raised.
    """
    ours = [number for number, handler in DEFAULTS.items() if signal.getsignal(number) is handler]
    if threading.current_thread() is not threading.main_thread() or not ours:
        yield
        return
    interrupt = _Interrupt(tell)
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


def _die_of_sigterm() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
