"""Torch's own TCPStore, which the process group needs: served by rank 0, connected to by all."""

import logging
import os
import socket
import sys
import time
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Protocol

from colossalai_env._addresses import Target, shown
from colossalai_env._calls import Call, start
from colossalai_env.errors import UnsupportedTorch

log = logging.getLogger("colossalai_env")

SLOW = 2.0
"""Seconds after which a connection counts as held up by the name server."""


class Store(Protocol):
    """One of torch's stores."""

    def set(self, key: str, value: str, /) -> None: ...


OLDEST = (2, 6)
"""The first release of torch that is served: it brings torch.accelerator."""


def import_torch() -> Call[ModuleType]:
    """Begin to import torch, on a thread, which can be waited for with a bound, unless it is imported already."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "accelerator"):
        done: Call[ModuleType] = Call(value=torch)
        done.done.set()
        return done
    return start(load_torch)


def load_torch() -> ModuleType:
    """Import torch here and now; raise `UnsupportedTorch` where it is not installed, too old or broken."""
    _refuse_absence()
    try:
        found = import_module("torch.distributed")
    except (ImportError, OSError) as error:
        raise _unsupported(f"torch cannot be imported ({type(error).__name__}: {error})") from error
    if torch_release() < OLDEST:
        raise _unsupported(f"torch {sys.modules['torch'].__version__} is too old")
    return found


def _refuse_absence() -> None:
    try:
        absent = sys.modules.get("torch") is None and find_spec("torch") is None
    except ImportError:  # a finder of somebody else forbids it
        absent = True
    if absent:
        raise _unsupported("torch is not installed")


def _unsupported(problem: str) -> UnsupportedTorch:
    return UnsupportedTorch(problem, sys.executable, socket.gethostname())


def torch_release() -> tuple[int, ...]:
    """Return the numbers of torch's version, such as (2, 13, 0)."""
    import torch

    return tuple(int(part) for part in torch.__version__.split("+", maxsplit=1)[0].split(".")[:3] if part.isdigit())


def _tcp_store(target: Target, seconds: float, **options: Any) -> Store:  # noqa: ANN401 - torch's own options
    """Make torch's store; torch takes seconds to import, so it comes after the socket is bound."""
    from torch import distributed

    c10d: Any = distributed  # it does not export its stores to type checkers
    began = time.monotonic()
    store: Store = c10d.TCPStore(*target, wait_for_workers=False, timeout=timedelta(seconds=seconds), **options)
    took = time.monotonic() - began
    if took >= SLOW:
        log.warning(
            "torch's store took %.1f s to connect to %s; before it does, torch asks the name server for that address's "
            "name: see colossalai-env doctor",
            took,
            shown(target),
        )
    return store


def serve(listener: socket.socket, target: Target, seconds: float) -> Call[Store]:
    """Serve a TCPStore on a socket that already listens; clients that came early wait in its queue.

    `target` is where this process itself reaches it. Torch looks up a name while it makes one, which can take long,
    though the store already serves.
    """
    taken = {"is_master": True, "master_listen_fd": listener.detach()}

    def make() -> Store:
        older = {"use_libuv": False} if torch_release() < (2, 8) else {}  # takes a socket: pytorch/pytorch#150215
        return _tcp_store(target, seconds, **taken, **older)

    return start(make)


def connect(target: Target, seconds: float) -> Store:
    """Connect torch's own client; it waits for ever on a silent server, so call it on a thread."""
    return _tcp_store(target, seconds, is_master=False)


def cut(target: Target) -> None:
    """Shut this process's connections to a store down: torch's stores have no way to be closed."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as connection:
            if connection.family == socket.AF_UNIX:
                continue
            address, port = connection.getpeername()[:2]
            if (address.removeprefix("::ffff:"), port) == target:
                connection.shutdown(socket.SHUT_RDWR)
