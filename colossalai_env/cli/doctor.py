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
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import attrs

from colossalai_env.endpoint import addresses, is_loopback, own_address
from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError
from colossalai_env.registry import disabled, installed, resolvers
from colossalai_env.resolution import LOWEST_PORT, PORT_LIMIT
from colossalai_env.scout import largest_world
from colossalai_env.store import Worker

from .output import show_json, show_table

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
    findings = [*_versions(), *_torch(), *_plugins(environ), *_names(), *_variables(environ), *_limits()]
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


def _torch() -> Iterator[Finding]:
    try:
        import torch
        from torch import distributed
    except (ImportError, OSError) as error:
        advice = "install torch 2.6 or newer; colossalai-env explain works without it"
        yield Finding(WRONG, "torch", f"cannot be imported: {type(error).__name__}: {error}", advice)
        return
    backends = [name for name in ("nccl", "gloo", "mpi", "xccl") if distributed.is_backend_available(name)]
    yield Finding(OK, "torch", f"{torch.__version__}, backends {', '.join(backends)}")
    kind = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count() if kind else 0
    if count:
        yield Finding(OK, "devices", f"{count} of kind {kind}")
    elif os.path.exists("/dev/nvidia0"):
        advice = f"install a build of torch with CUDA (this one has {torch.version.cuda or 'none'}); look at nvidia-smi"
        yield Finding(WRONG, "devices", "/dev/nvidia0 is there, and torch sees no device", advice)
    else:
        yield Finding(NOTE, "devices", "no accelerator: the CPU, with gloo", "on a login node this is as it should be")
    if count and kind and kind.type == "cuda":
        cuda: Any = torch.cuda  # its nccl has no types
        if "nccl" in backends:
            yield Finding(OK, "NCCL", ".".join(map(str, cuda.nccl.version())))
        else:
            yield Finding(WRONG, "NCCL", "this torch was built without it", "install another build, or use gloo")


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
    yield _own_name(name, own_address())
    began = time.monotonic()
    task = Worker().start(lambda: socket.getfqdn(own_address()))
    ended = task.wait(PATIENCE)
    took = time.monotonic() - began
    if ended and took < SLOW:
        yield Finding(OK, "reverse DNS", f"{own_address()} is {task.value}, in {took * 1000:.0f} ms")
    else:
        advice = "name the job's hosts in /etc/hosts, or mend resolv.conf: each rank's connection waits for this"
        found = f"{own_address()} took {'' if ended else 'more than '}{took:.1f} s"
        yield Finding(NOTE if took < STALLED else WRONG, "reverse DNS", found, advice)


def _own_name(name: str, reachable: str) -> Finding:
    try:
        found = addresses(name)
    except OSError as error:
        advice = (
            f"add '{reachable} {name}' to /etc/hosts here and on the other hosts, or export MASTER_ADDR={reachable}"
        )
        return Finding(WRONG, "host name", f"{name} has no address: {error.strerror}", advice)
    listed = ", ".join(found)
    if all(map(is_loopback, found)) and not is_loopback(reachable):
        advice = f"where the others find it so too, export MASTER_ADDR={reachable}, or mend /etc/hosts"
        return Finding(NOTE, "host name", f"{name} is {listed}, which no other host can reach", advice)
    return Finding(OK, "host name", f"{name} is {listed}")


def _variables(environ: Environ) -> Iterator[Finding]:
    interfaces = [name for _, name in socket.if_nameindex()]
    for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        value = environ.get(variable)
        if value is not None:
            yield _interface(variable, value, interfaces)
    proxies = [name for name in ("http_proxy", "https_proxy", "all_proxy") for name in (name, name.upper())]
    for name, _ in environ.found(proxies):
        advice = "ranks do not meet through it (TCPStore, gloo and NCCL connect directly); downloads do"
        yield Finding(NOTE, name, "is set", advice)


def _interface(variable: str, value: str, interfaces: list[str]) -> Finding:
    """Look whether the interfaces are there; NCCL takes beginnings of names, ``=`` for whole ones, ``^`` to exclude."""
    exact = not variable.startswith("NCCL") or value.startswith(("=", "^="))
    wanted = value.lstrip("^=").split(",")
    found = [
        name for name in interfaces for item in wanted if name == item or (not exact and item and name.startswith(item))
    ]
    if found or (value.startswith("^") and not variable.startswith("GLOO")):
        return Finding(OK, variable, value)
    return Finding(
        WRONG, variable, f"is {value!r}, and no interface is named so", f"use one of {', '.join(interfaces)}"
    )


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
