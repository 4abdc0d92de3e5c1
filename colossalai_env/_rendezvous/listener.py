"""Rank 0's socket: bound before torch is imported, so that the others can already connect and wait in its queue."""

import errno
import json
import os
import secrets
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

from colossalai_env._addresses import (
    EVERY,
    EVERY4,
    LOOPBACK,
    LOOPBACK6,
    Endpoint,
    Target,
    family,
    interfaces,
    interfaces6,
    is_loopback,
    is_numeric,
    is_own,
    own_address,
)
from colossalai_env.errors import NotMyAddress, PortTaken, TooFewFileDescriptors

from .protocol.timing import RETURN
from .tcp_store import VALIDATE

BACKLOG = 4096
"""Clients that may wait in the kernel's queue while rank 0 imports torch."""

EARLY = b"colossalai_env: "
"""What our processes say first at a port where no store answers: then come the job's id and a line of JSON."""

SPARE = 32
"""File descriptors that torch and the program may need besides."""


def bind(target: Target) -> socket.socket:
    """Listen at one address, on no other interface, or at all that `EVERY4` or `EVERY` stand for; raise `OSError`."""
    address, port = target
    listener = socket.socket(family(address))
    try:
        if address == EVERY:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def listening_address(endpoint: Endpoint) -> str:
    """Return the one address at which rank 0 listens, or `EVERY4` or `EVERY`.

    One address suffices where the launcher says that all ranks are on this node, and where an address of this host was
    given. A name may lead other ranks to any of this host's addresses, and loopback leads them to their own. IPv6 is
    added where the name leads to it or the host has nothing else: torch's server looks up the name of each client, and
    the C library finds no client of IPv4 in /etc/hosts that came by a socket of both families (torch 2.13, glibc 2.36).
    """
    own = [address for address in endpoint.addresses if is_own(address)]
    if own and (endpoint.one_node or (is_numeric(endpoint.host) and not is_loopback(own[0]))):
        return own[0]
    named = any(":" in address and not is_loopback(address) for address in own)
    return EVERY if named or all(is_loopback(address) for _, address in interfaces()) else EVERY4


def listen(endpoint: Endpoint, port: int) -> socket.socket | Target:
    """Bind rank 0's socket at `port`; return the address and port of who has it otherwise.

    Raises `NotMyAddress` where the endpoint's host is another machine's, and no forwarder to this process.
    """
    try:
        listener = bind((listening_address(endpoint), port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            roots = ": ports below 1024 are for root" if error.errno == errno.EACCES else ""
            why = f"the system says {error.strerror}{roots}"
            raise PortTaken(endpoint.host, port, endpoint.source, "", why) from None
        return _holder_address(endpoint, port), port
    if not endpoint.directory and not any(map(is_own, endpoint.addresses)):
        targets = [(address, port) for address in endpoint.addresses]
        if not comes_back(listener, targets, RETURN):
            listener.close()
            here, found = socket.gethostname(), " and ".join(endpoint.addresses)
            raise NotMyAddress(endpoint.host, endpoint.source, found, here, own_address())
    return listener


def _holder_address(endpoint: Endpoint, port: int) -> str:
    """Find the address of this host at which the holder of a port lets one connect."""
    candidates = [address for address in endpoint.addresses if is_own(address)]
    candidates += [LOOPBACK, LOOPBACK6, *(address for _, address in (*interfaces(), *interfaces6()))]
    for address in dict.fromkeys(candidates):
        with suppress(OSError), socket.socket(family(address)) as asking:
            asking.settimeout(0.2)
            if asking.connect_ex((address, port)) != errno.ECONNREFUSED:
                return address
    return candidates[0]


def comes_back(listener: socket.socket, targets: Sequence[Target], seconds: float) -> bool:
    """Return whether a connection to one of `targets` reaches this very process, as through a forwarder.

    Whoever else has connected meanwhile is turned away, and tries again.
    """
    token = secrets.token_bytes(16)
    until = time.monotonic() + seconds
    with ExitStack() as stack:
        asking = [stack.enter_context(socket.socket(family(address))) for address, _ in targets]
        for one, target in zip(asking, targets, strict=True):
            one.setblocking(False)  # noqa: FBT003 - the socket's own spelling
            one.connect_ex(target)
        sent = 0
        while (asking or sent) and (left := until - time.monotonic()) > 0:
            heard, connected, _ = select.select([listener], asking, [], left)
            for one in connected:
                asking.remove(one)
                with suppress(OSError):  # no process listens there
                    sent += one.send(token)
            if heard and _hears(listener, token):
                return True
    return False


def _hears(listener: socket.socket, token: bytes) -> bool:
    try:
        with listener.accept()[0] as connection:
            connection.settimeout(0.2)
            return connection.recv(len(token)) == token
    except OSError:
        return False


def largest_world(limit: int) -> int:
    """Return for how many ranks rank 0's limit of open files suffices: each has two connections at times."""
    return max(0, (limit - len(os.listdir("/proc/self/fd")) - SPARE) // 2)


def check_file_descriptors(world_size: int) -> None:
    """Raise `TooFewFileDescriptors` where rank 0 could not hold the connections of all ranks."""
    limit = os.sysconf("SC_OPEN_MAX")  # the soft limit; the module resource takes a third of a millisecond to import
    if world_size > largest_world(limit):
        raise TooFewFileDescriptors(limit, len(os.listdir("/proc/self/fd")) + 2 * world_size + SPARE)


def early(job: str, **told: object) -> bytes:
    """Write what is said in a store's place."""
    return EARLY + f"{job}\n{json.dumps(told)}\n".encode()


def read_early(heard: bytes) -> tuple[str, dict[str, Any]]:
    """Read it: the job's id, and what is told; nothing where it is no such thing."""
    job, _, told = heard.removeprefix(EARLY).decode(errors="replace").partition("\n")
    try:
        found = json.loads(told)
    except ValueError:
        return job, {}
    return job, cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def turn_away(listener: socket.socket, job: str, sentence: str, others: int, seconds: float) -> None:
    """Report to the others, as they come, why there will be no store, until all have read it or the time is over."""
    until = time.monotonic() + seconds
    while others and (left := until - time.monotonic()) > 0:
        listener.settimeout(left)
        with suppress(OSError), listener.accept()[0] as connection:
            connection.settimeout(0.2)
            asked = connection.recv(64)  # what is unread would cost the other side our words
            connection.sendall(early(job, gone=sentence))
            others -= asked.startswith(VALIDATE)
