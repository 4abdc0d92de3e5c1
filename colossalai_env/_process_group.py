"""The torch process group: made on torch's store, and destroyed.

torch takes seconds to import, so it is imported by what needs it, when rank 0's socket is bound.
"""

import random
import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _gloo
from . import _hardware as hardware
from ._addresses import Target
from ._calls import start
from ._devices import binds_at_once
from ._rendezvous.torch_store import Store, torch_release
from .environ import Environ
from .errors import GroupFailed
from .spec import DistSpec

if TYPE_CHECKING:
    import torch


def _c10d() -> Any:  # noqa: ANN401 - it does not export its stores to type checkers
    from torch import distributed

    return distributed


def make_alone(environ: Environ, spec: DistSpec, backend: str, device: "torch.device") -> None:
    """Make the group of a single process, on a store in its own memory; raise `GroupFailed`."""
    try:
        _make(single_store(), spec, backend, device)
    except (RuntimeError, ValueError) as error:
        abandon()
        raise explained(spec, environ, backend, error)[0] from None


def single_store() -> Store:
    """Return a store in this process's own memory."""
    store: Store = _c10d().HashStore()
    return store


def prefixed(store: Store, prefix: str) -> Store:
    """Return a store all of whose keys are under a prefix."""
    found: Store = _c10d().PrefixStore(prefix, store)
    return found


def make(store: Store, prefix: str, spec: DistSpec, backend: str, device: "torch.device") -> None:
    """Make the group of all ranks on a store, under a prefix; raises what torch raises."""
    _make(prefixed(store, prefix), spec, backend, device)


def explained(spec: DistSpec, environ: Environ, backend: str, error: Exception) -> tuple[GroupFailed, bool]:
    """Put a backend's error into our words, and NCCL's with what they mean; return whether its cause is surely here."""
    from ._nccl import Words

    rank, here = spec.rank, socket.gethostname()
    words = Words.of(str(error), environ)
    if words is not None:
        return GroupFailed(rank, here, backend, words.problem, words.advice), words.own
    line = str(error).partition("\n")[0].rstrip(". ")
    absent = _gloo.absent_interface(line, environ)
    if absent:
        return GroupFailed(rank, here, backend, line, absent), True
    cause = _gloo.meaning(line, environ)
    problem = f"{line}; {cause}" if cause else line
    if spec.world_size > 1:
        return GroupFailed(rank, here, backend, problem), False
    return GroupFailed(rank, here, backend, problem, "Look at the network interfaces (GLOO_SOCKET_IFNAME)"), True


def _make(store: Any, spec: DistSpec, backend: str, device: "torch.device") -> None:  # noqa: ANN401 - see _c10d
    c10d = _c10d()
    at_once = device.type == "cuda" and binds_at_once(
        backend, torch_release(), detail=c10d.get_debug_level() == c10d.DebugLevel.DETAIL
    )
    hardware.select(device)  # the current device is each thread's own
    c10d.init_process_group(
        backend=backend,
        store=store,
        rank=spec.rank,
        world_size=spec.world_size,
        timeout=c10d.constants.default_pg_nccl_timeout if "nccl" in backend else None,
        device_id=device if at_once else None,
    )


ABANDONING = 1.0
"""Seconds that the end of an abandoned group may take: NCCL's waits for the other ranks."""

_kept: list[object] = []
"""Groups that are not to be freed."""

RESTING = 5.0
"""Seconds that gloo's threads may take to let go of what they have done, on a machine that is busy with other work."""


def destroy() -> None:
    """Destroy the process group, unless the program did.

    A thread of gloo that has done its work frees what belongs to it, and needs the GIL for what Python gave. Where the
    group is freed with the GIL held, and joins that thread, neither goes on: before torch 2.8 in any program
    (pytorch/pytorch#154976: of 60 plain processes 10 hung with torch 2.6), later where a model's C++ part is the last
    that holds the group (torch 2.13, seen on a busy machine). Where Python has ended before, the process aborts. So the
    threads rest before the group goes.
    """
    c10d = _c10d()
    if c10d.is_initialized():
        if torch_release() < (2, 8):
            _kept.append(c10d.group.WORLD)
        _gloo.let_threads_rest(RESTING)
        c10d.destroy_process_group()


def is_made() -> bool:
    """Return whether this process has a group; torch is not imported for that, and may be in its import."""
    return bool(getattr(sys.modules.get("torch.distributed"), "is_initialized", bool)())


class Group(NamedTuple):
    """The process group in which this process is already."""

    rank: int
    world_size: int
    backend: str
    """As it was asked for, or one for each kind of device."""
    device: "torch.device | int | None"
    """The accelerator that it is bound to, or that this process has chosen; None where neither is known."""
    store: Store
    place: Target | None
    """Where its store is served; None where that is no TCPStore."""


def current() -> Group:
    """Return the process group in which this process is."""
    c10d = _c10d()
    world = c10d.group.WORLD
    store = served = c10d.distributed_c10d._get_default_store()  # noqa: SLF001 - there is no other way to it
    while hasattr(served, "underlying_store"):
        served = served.underlying_store
    asked = str(c10d.get_backend())
    backend = str(c10d.get_backend_config()) if asked == "undefined" else asked
    device = world.bound_device_id
    return Group(
        c10d.get_rank(),
        c10d.get_world_size(),
        backend,
        hardware.chosen() if device is None else device,
        store,
        (served.host, served.port) if isinstance(served, c10d.TCPStore) else None,
    )


def abandon() -> None:
    """Destroy the group that was made all the same while init failed, as far as that takes a moment.

    A program that ends with such a group may be aborted by its threads, and a second call of init would refuse.
    """
    if is_made():
        start(destroy).wait(ABANDONING)


def seed_all(seed: int) -> None:
    """Seed random, numpy where it is installed, and torch on CPU and accelerators."""
    import torch

    torch_of_any_type: Any = torch
    random.seed(seed)
    torch_of_any_type.manual_seed(seed)
    try:
        import numpy as np
    except ImportError:
        return
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global state is what other libraries draw from
