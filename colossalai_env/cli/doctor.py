"""Examine this machine for what keeps ranks from meeting; no launcher is needed.

Each line says whether what was found is well, worth a note, or wrong, and what to do about it.

Example:
  colossalai-env doctor

"""

import argparse
import os
import platform
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import attrs

from colossalai_env import _hardware as hardware
from colossalai_env._addresses import addresses, interface_names, interfaces, is_loopback, is_own, reachable
from colossalai_env._calls import Call, start
from colossalai_env._derived import LOWEST_PORT, PORT_LIMIT
from colossalai_env._devices import Accelerators, unusable
from colossalai_env._registry import disabled, installed, resolvers
from colossalai_env._rendezvous.listener import largest_world
from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError

from .output import show_json, show_table

T = TypeVar("T")

OK, NOTE, WRONG = "ok", "note", "wrong"

SLOW = 0.2
"""Seconds that looking a name up may take; TCPStore does it once for each client, one after the other."""

STALLED = 2.0
"""Seconds after which that is more than slow."""

PATIENCE = 6.0
"""Seconds after which a look-up counts as one that never ends; a lost reply of DNS costs 5."""

SMALL_SHM = 1 << 30
"""Bytes of shared memory below which DataLoader workers and NCCL run out of it; Docker gives 64 MiB."""

MANY = 1024
"""Ranks that rank 0's limit of open files should suffice for without a word."""

COSTLY: Mapping[str, tuple[str, str]] = {
    "NCCL_P2P_DISABLE": ("1", "the GPUs of a node do not copy to each other directly, which is slow"),
    "NCCL_SHM_DISABLE": ("1", "the GPUs of a node talk over the network where they cannot directly, which is slow"),
    "NCCL_IB_DISABLE": ("1", "InfiniBand and RoCE are left unused, which is slow between nodes"),
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": ("0", "a collective that fails or times out is not ended: the others hang"),
    "NCCL_ASYNC_ERROR_HANDLING": ("0", "a collective that fails or times out is not ended: the others hang"),
    "TORCH_DISTRIBUTED_DEBUG": ("DETAIL", "each collective is compared on all ranks first, which is slow"),
}
"""Settings left over from a search for a fault, and what they cost (NCCL's and torch's pages on their variables)."""


@attrs.frozen
class Finding:
    """One line: how it is, what was looked at, what was found, and what to do."""

    state: str
    topic: str
    found: str
    advice: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options: none of its own."""
    del parser


def run(options: argparse.Namespace) -> int:
    """Examine; the code is 1 where something is wrong."""
    environ = Environ.snapshot()
    findings = [*_versions(), *_torch(environ), *_plugins(environ), *_names(), *_variables(environ), *_limits()]
    if options.json:
        show_json([attrs.asdict(finding) for finding in findings])
    else:
        show_table(["", "what", "found", "to do"], [attrs.astuple(finding) for finding in findings])
    return 1 if any(finding.state == WRONG for finding in findings) else 0


def _versions() -> Iterator[Finding]:
    names = ("colossalai-env", "attrs", "pluggy")
    found = ", ".join(f"{name} {_version(name)}" for name in names)
    yield Finding(OK, "versions", f"Python {platform.python_version()}, {found}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _torch(environ: Environ) -> Iterator[Finding]:
    try:
        import torch
        from torch import distributed
    except Exception as error:  # noqa: BLE001 - its import runs much, and each failure is told
        advice = "install torch 2.6 or newer; colossalai-env explain works without it"
        yield Finding(WRONG, "torch", f"cannot be imported: {type(error).__name__}: {error}", advice)
        return
    if not hasattr(torch, "accelerator"):
        yield Finding(WRONG, "torch", f"{torch.__version__} has no torch.accelerator", "install torch 2.6 or newer")
        return
    backends = [name for name in ("nccl", "gloo", "mpi", "xccl") if distributed.is_backend_available(name)]
    yield Finding(OK, "torch", f"{torch.__version__}, backends {', '.join(backends)}")
    here = Accelerators.here()
    yield devices(here, environ)
    if "nccl" in backends:
        cuda: Any = torch.cuda  # its nccl has no types
        yield Finding(OK, "NCCL", ".".join(map(str, cuda.nccl.version())))
    elif here.kind == "cuda":
        yield Finding(WRONG, "NCCL", "this torch was built without it", "install another build, or use gloo")


def devices(here: Accelerators, environ: Environ) -> Finding:
    """Return what init_from_env would find, by the same rule."""
    set_here = ", ".join(f"{name} is {value!r}" for name, value in environ.found(hardware.CHOOSING["AMD"]))
    trouble = unusable(hardware.built_for(), environ)
    if here.visible:
        try:
            ids = hardware.initialise(here.kind)
        except hardware.DriverFailed as failure:
            advice = "mend the driver; nvidia-smi or rocm-smi shows its state"
            return Finding(
                WRONG, "devices", f"{here.visible} of kind {here.kind}, and its driver says: {failure}", advice
            )
        told = f": {', '.join(ids)}" if all(ids) else ""
        return Finding(OK, "devices", f"{len(ids)} of kind {here.kind}{told}{f'; {set_here}' if set_here else ''}")
    if trouble is not None:
        state = WRONG if trouble.built else NOTE
        return Finding(state, "devices", f"{trouble.machine}, and torch sees none: {trouble.reason}", trouble.advice)
    if set_here:
        return Finding(NOTE, "devices", f"no accelerator is visible, and {set_here}", "unset it to see them all")
    return Finding(NOTE, "devices", "no accelerator: the CPU, with gloo", "on a login node this is as it should be")


def _plugins(environ: Environ) -> Iterator[Finding]:
    try:
        plugins = installed()
        without = disabled(environ, plugins)
        found = [item.resolver.name for item in resolvers(environ)]
    except ColossalaiEnvError as error:
        yield Finding(WRONG, "plugins", str(error), "colossalai-env plugins shows them all")
        return
    left_out = f"; disabled: {', '.join(sorted(without))}" if without else ""
    yield Finding(NOTE if without else OK, "plugins", f"{', '.join(found)}{left_out}")


def _names() -> Iterator[Finding]:
    name = socket.gethostname()
    task, took = _looked_up(lambda: addresses(name, 2 * PATIENCE))
    own = reachable([address for address in task.value or () if is_own(address)])
    yield _own_name(name, task, took, own)
    asked, took = _looked_up(lambda: socket.getfqdn(own))
    if not asked.done.is_set() or took >= SLOW:
        advice = "name the job's hosts in /etc/hosts, or mend resolv.conf: each rank's connection waits for this"
        state = NOTE if asked.done.is_set() and took < STALLED else WRONG
        yield Finding(state, "reverse DNS", f"{own} {_delay(asked, took)}", advice)
    else:
        named = f"is {asked.value}" if asked.value != own else "has no name"
        yield Finding(OK, "reverse DNS", f"{own} {named}, in {took * 1000:.0f} ms")


def _looked_up(call: Callable[[], T]) -> tuple[Call[T], float]:
    """Make a call that may ask DNS, which has no limit of its own; return it and the seconds that it took."""
    began = time.monotonic()
    task = start(call)
    task.wait(PATIENCE)
    return task, time.monotonic() - began


def _delay(task: Call[Any], took: float) -> str:
    return f"took {'' if task.done.is_set() else 'more than '}{took:.1f} s"


def _own_name(name: str, task: Call[tuple[str, ...]], took: float, own: str) -> Finding:
    topic, entry = "host name", f"add '{own} {name}' to /etc/hosts here and on the other hosts"
    if not task.done.is_set() or took >= STALLED:
        return Finding(WRONG, topic, f"{name} {_delay(task, took)} to look up", f"{entry}, or mend resolv.conf")
    if isinstance(task.error, OSError):
        absent = f"{name} has no address: {task.error.strerror}"
        return Finding(WRONG, topic, absent, f"{entry}, or export MASTER_ADDR={own}")
    found = task.result()
    listed = ", ".join(found)
    if not any(map(is_own, found)):
        return Finding(WRONG, topic, f"{name} is {listed}, which is another host's address", f"mend it: {entry}")
    if all(map(is_loopback, found)) and not is_loopback(own):
        device = next(device for device, address in interfaces() if address == own)
        advice = f"on several hosts, mend /etc/hosts, or export MASTER_ADDR={own} and, for gloo, GLOO_SOCKET_IFNAME"
        return Finding(NOTE, topic, f"{name} is {listed}, which no other host can reach", f"{advice}={device}")
    if took >= SLOW:
        return Finding(NOTE, topic, f"{name} is {listed}, and {_delay(task, took)} to look up", entry)
    return Finding(OK, topic, f"{name} is {listed}")


def _variables(environ: Environ) -> Iterator[Finding]:
    usable = interface_names()
    for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        value = environ.get(variable)
        if value:  # an empty one counts as unset
            yield interface(variable, value, usable)
    for name, value in environ.found([*COSTLY]):
        setting, cost = COSTLY[name]
        if value.upper() == setting:
            yield Finding(NOTE, name, f"is {value}: {cost}", "unset it, unless it is meant")
    proxies = [name for name in ("http_proxy", "https_proxy", "all_proxy") for name in (name, name.upper())]
    for name, _ in environ.found(proxies):
        advice = "ranks do not meet through it (TCPStore, gloo and NCCL connect directly); downloads do"
        yield Finding(NOTE, name, "is set", advice)


def interface(variable: str, value: str, usable: Sequence[str]) -> Finding:
    """Look whether what is named is there, by the rule of the library that reads it."""
    if variable.startswith("NCCL"):
        chosen = _nccl_chooses(value, usable)
        missing = [] if chosen else [value]
    else:  # gloo needs each of them, TensorPipe takes one
        chosen = value.removesuffix(",").split(",") if variable.startswith("GLOO") else [value]
        missing = [name for name in chosen if name not in usable]
    if missing:
        found = f"is {value!r}, and no interface with an address fits {', '.join(map(repr, missing))}"
        return Finding(WRONG, variable, found, f"use one of {', '.join(usable)}")
    if all(name.startswith("lo") for name in chosen):
        return Finding(NOTE, variable, f"is {value}, which no other host can reach", "unset it for several hosts")
    return Finding(OK, variable, value)


def _nccl_chooses(value: str, usable: Sequence[str]) -> list[str]:
    """Choose as NCCL does: beginnings of names, ``=`` for whole ones, ``^`` for all others (NCCL's user guide)."""
    names = value.removeprefix("^").removeprefix("=").split(",")
    exact = value.removeprefix("^").startswith("=")
    return [
        name
        for name in usable
        if any(name == item or (not exact and name.startswith(item)) for item in names if item) != value.startswith("^")
    ]


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ranks = largest_world(soft)
    advice = f"ulimit -n {hard} before the job" if ranks < MANY and soft < hard else ""
    yield Finding(NOTE if ranks < MANY else OK, "open files", f"{soft}, enough for {ranks} ranks on rank 0", advice)
    with suppress(OSError), open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low, high = map(int, file.read().split())
        overlap = low < PORT_LIMIT and high >= LOWEST_PORT
        advice = f"sysctl net.ipv4.ip_local_port_range='{PORT_LIMIT} {high}', or export MASTER_PORT" if overlap else ""
        found = f"clients get {low}-{high}; derived ports lie in {LOWEST_PORT}-{PORT_LIMIT - 1}"
        yield Finding(NOTE if overlap else OK, "ports", found, advice)
    with suppress(OSError):
        size = shutil.disk_usage("/dev/shm").total  # noqa: S108 - looked at, not written to
        small = size < SMALL_SHM
        advice = "in a container, --shm-size=8g or --ipc=host" if small else ""
        yield Finding(NOTE if small else OK, "shared memory", f"{size / 2**30:.1f} GiB", advice)
    if os.path.isdir("/dev/infiniband"):
        locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        unlimited = locked == resource.RLIM_INFINITY
        found = "unlimited" if unlimited else f"{locked / 2**20:.0f} MiB, and InfiniBand locks what it sends"
        advice = "" if unlimited else "ulimit -l unlimited, in a container --ulimit memlock=-1"
        yield Finding(OK if unlimited else WRONG, "locked memory", found, advice)
