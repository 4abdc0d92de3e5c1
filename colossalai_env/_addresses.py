"""Addresses: of a name, of this host, and of its interfaces; each look-up ends in time."""

import array
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import TypeAlias

import attrs

from ._calls import start

Target: TypeAlias = tuple[str, int]
"""A numeric address and a port."""

SIOCGIFCONF = 0x8912
"""Linux's request for the IPv4 addresses of all interfaces (netdevice(7)): entries of name, family, port, address."""

ENTRY, MOST = 40, 1024
"""Bytes of an entry on a 64-bit machine, and how many entries are read at most."""

BRIDGES = ("docker", "virbr", "veth", "br-")
"""Beginnings of the names of interfaces that lead to containers and virtual machines of this host."""

OWN_NAME = 2.0
"""Seconds that looking up this host's own name may take; then its interfaces say its address."""

LOOPBACK, LOOPBACK6 = "127.0.0.1", "::1"

EVERY4, EVERY = "0.0.0.0", "::"  # noqa: S104 - named, not bound
"""Stand for all interfaces of IPv4, and of both families."""


def family(address: str) -> socket.AddressFamily:
    """Return the address family: IPv6 or IPv4."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def shown(target: Target) -> str:
    """Write an address and a port as people do, IPv6 in brackets."""
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def is_numeric(host: str) -> bool:
    """Return whether a host is given by its address, and not by name."""
    try:
        socket.inet_pton(family(host), host.partition("%")[0])
    except OSError:
        return False
    return True


def addresses(host: str, seconds: float) -> tuple[str, ...]:
    """Return the numeric addresses of `host`, in the system's order; raise `OSError` when none come in time.

    Where a name server is silent, the C library would wait for 10 to 30 seconds.
    """
    if is_numeric(host):
        return (host,)
    name = host.encode(errors="surrogateescape")  # a text would cost the import of IDNA's tables
    looked_up = start(lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    if not looked_up.wait(seconds):
        raise TimeoutError(f"no name server answered within {seconds:.1f} s")
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in looked_up.result()))


def own_address() -> str:
    """Return an address of this host at which other hosts can reach it: its name's, or that of its first interface.

    Debian gives a host's own name the address 127.0.1.1, which is no use to others. Loopback where there is no other
    interface.
    """
    try:
        return reachable([address for address in addresses(socket.gethostname(), OWN_NAME) if is_own(address)])
    except OSError:
        return reachable(())


def reachable(named: Sequence[str]) -> str:
    """Return the first of this host's addresses that is not loopback, those of its name before its interfaces'."""
    own = (address for name, address in interfaces() if not name.startswith(("lo", *BRIDGES)))
    return next((address for address in (*named, *own) if not is_loopback(address)), LOOPBACK)


def is_loopback(address: str) -> bool:
    """Return whether a numeric address is this host's own and no other's."""
    return address.startswith("127.") or address == LOOPBACK6


def is_own(address: str) -> bool:
    """Return whether a numeric address belongs to this host."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as asking:
        try:
            asking.bind((address, 0))
        except OSError:
            return False
    return True


def interfaces() -> Iterator[tuple[str, str]]:
    """Return the interfaces that have IPv4 addresses, with each of them."""
    import fcntl  # no module of Windows

    found = array.array("B", bytes(ENTRY * MOST))
    where, room = found.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        filled, _ = struct.unpack("iL", fcntl.ioctl(asking, SIOCGIFCONF, struct.pack("iL", room, where)))
    for offset in range(0, filled, ENTRY):
        entry = found[offset : offset + ENTRY].tobytes()
        yield entry[:16].partition(b"\0")[0].decode(), socket.inet_ntoa(entry[20:24])


def interfaces6() -> Iterator[tuple[str, str]]:
    """Return the interfaces that have IPv6 addresses, with each of them."""
    with suppress(OSError), open("/proc/net/if_inet6", encoding="ascii") as file:  # absent where IPv6 is
        for line in file:
            raw, _, _, _, _, name = line.split()
            yield name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))


def interface_names() -> tuple[str, ...]:
    """Return the names of the interfaces that have an address, of IPv4 or IPv6."""
    return tuple(dict.fromkeys(name for name, _ in (*interfaces(), *interfaces6())))


def platform_lacks() -> str:
    """Name what this platform lacks to list its interfaces and to meet other ranks; empty on Linux."""
    if find_spec("fcntl") is None:
        return "module fcntl"
    return "" if os.path.isdir("/proc/self/fd") else "/proc/self/fd"


def interface_of(address: str) -> str | None:
    """Return the name of the interface that has this address; None where it is not one of this host's."""
    every = interfaces6() if ":" in address else interfaces()
    return next((name for name, found in every if found == address), None)


def address_towards(address: str) -> str | None:
    """Return the address of this host from which packets to another one leave; nothing is sent."""
    with socket.socket(family(address), socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((address, 9))
        except OSError:
            return None
        return str(asking.getsockname()[0])


@attrs.frozen
class Endpoint:
    """Where rank 0 is looked for: one host, its addresses, and the ports that are tried in turn."""

    host: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    source: str
    """What host and port come from."""
    one_node: bool = False
    """Whether the launcher says that all ranks are on one node."""
    directory: bool = False
    """Whether the directory answers here, since nothing says rank 0's host."""
    serves_directory: bool = False
    """Whether this process serves it."""
    agent_source: str = "the launcher"
    """What says that the launcher's agent serves a store here, where it does."""
    otherwise: tuple[int, ...] = ()
    """Ports of a rank 0 to which this endpoint is not given, where a person or script gave it to this process."""

    @property
    def one_place(self) -> bool:
        """Whether rank 0 listens at one place or nowhere, so that another job's store there is the end of a search."""
        one_host = len(self.addresses) == 1 or all(map(is_loopback, self.addresses))
        return one_host and len(self.ports) == 1 and not self.directory

    def __str__(self) -> str:
        """Print as ``host:port``, an IPv6 address in brackets."""
        more = f" (or the {len(self.ports) - 1} ports derived next)" if self.ports[1:] else ""
        return f"{shown((self.host, self.ports[0]))}{more}"
