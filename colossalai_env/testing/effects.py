"""What code does besides computing, heard by an audit hook: files, sockets, processes, variables, heavy imports."""

import inspect
import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import attrs

from colossalai_env.resolver import Environ

EFFECTS = (
    "ctypes.", "fcntl.", "glob.", "http.", "mmap.", "open", "os.", "pty.", "shutil.", "signal.", "socket.", "sqlite3.",
    "subprocess.", "syslog.", "tempfile.", "time.sleep", "urllib.",
)  # fmt: skip
"""Audit events (docs.python.org, "Audit events table") by which a process acts on the world or asks it."""

HEAVY = frozenset({"torch", "mpi4py"})
"""Modules whose import takes seconds, or calls MPI_Init."""


class Refused(RuntimeError):
    """Raised in place of an effect, so that it does not happen."""


@attrs.define(eq=False)
class _Watch:
    thread: int
    effects: list[str]
    deaf: bool = False

    def refuse(self, effect: str) -> NoReturn:
        """Note an effect, and let it not happen."""
        self.effects.append(effect)
        raise Refused(effect)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Stand before the finders of modules (`sys.meta_path`): importlib's own functions raise no audit event."""
        del path, target
        if name.partition(".")[0] in HEAVY and self.thread == threading.get_ident():
            self.refuse(f"import {name}")


_watches: list[_Watch] = []
"""The watch that is on: audit hooks cannot be taken away again, so one is added for good and looks here."""

_hooked: list[bool] = []


def _hear(event: str, args: tuple[object, ...]) -> None:
    if not _watches or _watches[0].deaf or _watches[0].thread != threading.get_ident():
        return
    if not event.startswith(EFFECTS):
        return
    watch = _watches[0]
    watch.deaf = True
    try:
        if not _importing():
            watch.refuse(f"{event}({', '.join(map(repr, args[:2]))})")
    finally:
        watch.deaf = False


def _importing() -> bool:
    """Return whether it is the import system itself that acts: a module may be imported when it is needed."""
    frame = inspect.currentframe()
    caller = frame and frame.f_back and frame.f_back.f_back
    return caller is not None and caller.f_code.co_filename.startswith("<frozen importlib")


@contextmanager
def effects() -> Generator[list[str]]:
    """Refuse and note the effects of this thread within the block; modules of `HEAVY` seem not to be imported yet."""
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)
    hidden = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in HEAVY}
    watch = _Watch(threading.get_ident(), [])
    sys.meta_path.insert(0, watch)
    _watches.append(watch)
    try:
        yield watch.effects
    finally:
        _watches.clear()
        sys.meta_path.remove(watch)
        sys.modules.update(hidden)


@contextmanager
def process_environment(environ: Environ) -> Generator[None]:
    """Give this very process other variables and arguments besides its own, until the block is left."""
    variables, argv = dict(os.environ), [*sys.argv]  # noqa: TID251 - put back below
    os.environ.update(environ.variables)  # noqa: TID251
    sys.argv[1:] = environ.argv  # noqa: TID251
    try:
        yield
    finally:
        for name in environ.variables:
            os.environ.pop(name, None)  # noqa: TID251
        os.environ.update(variables)  # noqa: TID251
        sys.argv[:] = argv  # noqa: TID251
