"""Where rank 0 is reached: as given, on loopback, or as the launcher tells when asked."""

import fcntl
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from .environ import Environ
from .errors import MalformedVariable, UnknownEndpoint, UnresolvableHost
from .registry import resolvers
from .resolution import derived_port, on_loopback, with_port
from .resolver import Located, Way
from .spec import DistSpec

LOCATE = "COLOSSALAI_ENV_LOCATE"
"""Names the ways, separated by commas, in which launchers may be asked for rank 0's host; ``none`` forbids all."""

GIVEN = frozenset({"MASTER_ADDR", "argument host", "args.host", "--host"})
"""Sources of a host that somebody chose; every other host was derived."""

SIOCGIFADDR = 0x8915
"""Linux's request for an interface's address (sockios.h)."""

BRIDGES = ("docker", "virbr", "veth", "br-")
"""Beginnings of the names of interfaces that lead to containers and virtual machines of this host."""

ATTEMPTS = 8
"""How many derived ports are tried when some are taken."""


def addresses(host: str) -> tuple[str, ...]:
    """Return the numeric addresses of `host`, in the system's order; raise `OSError` when there are none."""
    name = host.encode()  # a text would cost the import of IDNA's tables
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))


def own_address() -> str:
    """Return an address of this host at which other hosts can reach it: its name's, or that of its first interface.

    Debian gives a host's own name the address 127.0.1.1, which is no use to others. Loopback where there is no other
    interface.
    """
    try:
        return reachable(addresses(socket.gethostname()))
    except OSError:
        return reachable(())


def reachable(named: Sequence[str]) -> str:
    """Return the first of this host's addresses that is not loopback, those of its name before its interfaces'."""
    own = (address for name, address in interfaces() if not name.startswith(("lo", *BRIDGES)))
    return next((address for address in (*named, *own) if not is_loopback(address)), "127.0.0.1")


def is_loopback(address: str) -> bool:
    """Tell whether a numeric address is this host's own and nobody else's."""
    return address.startswith("127.") or address == "::1"


def interfaces() -> Iterator[tuple[str, str]]:
    """Return the interfaces that have an IPv4 address, and it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            yield name, socket.inet_ntoa(found[20:24])


@attrs.frozen
class Endpoint:
    """Where rank 0 listens: one host, its addresses, and the ports that are tried in turn."""

    host: str
    addresses: tuple[str, ...]
    ports: tuple[int, ...]
    source: str

    def __str__(self) -> str:
        """Print as ``host:port``, an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.ports[0]}" + (
            f" (or the {len(self.ports) - 1} ports derived next)" if self.ports[1:] else ""
        )


def locate(spec: DistSpec, environ: Environ, ways: Sequence[Way], seconds: float) -> tuple[DistSpec, Endpoint]:
    """Return the spec with host and port filled in, and the endpoint of a world of several processes.

    Host: as given; loopback where all ranks are on one node; as the launcher says when asked by one
    of `ways`. Port: as given, or derived from the job id. Raises `UnknownEndpoint`,
    `UnresolvableHost` or `CannotLocate`.
    """
    asked: list[str] = []
    if spec.one_node and not spec.agent_store and spec.sources.get("host") not in GIVEN:
        spec = on_loopback(spec)
    unknown = spec.host is None or (spec.port is None and spec.job_id is None)
    if unknown or (spec.sources.get("host") not in GIVEN and not _resolves(spec.host)):
        located = _ask(spec, environ, ways, seconds, asked)
        if located is not None:
            spec = _with(spec, located)
    spec = with_port(spec)
    missing = tuple(name for name in ("host", "port") if getattr(spec, name) is None)
    if spec.host is None or spec.port is None:
        raise UnknownEndpoint(spec.resolver, missing, tuple(asked), spec.rank)
    return spec, _endpoint(spec)


def _resolves(host: str | None) -> bool:
    if host is None:
        return False
    try:
        addresses(host)
    except OSError:
        return False
    return True


def _ask(spec: DistSpec, environ: Environ, ways: Sequence[Way], seconds: float, asked: list[str]) -> Located | None:
    """Ask in turn; a way answers None where it does not apply, which is alike on all ranks."""
    allowed = _allowed(spec, environ, ways)
    for way in ways:
        if way.name not in allowed:
            asked.append(f"{way.name} is not allowed by {LOCATE}")
            continue
        located = way.ask(spec, environ, seconds)
        if located is not None:
            return located
        asked.append(f"{way.name} does not apply here")
    return None


def _allowed(spec: DistSpec, environ: Environ, ways: Sequence[Way]) -> frozenset[str]:
    """Return the names of the ways that the user allows; a name that no resolver's way bears is an error."""
    listed = environ.get(LOCATE)
    if listed is None:
        return frozenset(way.name for way in ways)
    allowed = frozenset(name.strip() for name in listed.split(","))
    every = [*ways, *(way for item in resolvers(environ) for way in getattr(item.resolver, "locate", ()))]
    known = sorted({way.name for way in every})
    if not allowed <= {"none", *known}:
        expected = f"none, or some of {', '.join(map(repr, known))}, separated by commas"
        raise MalformedVariable(spec.resolver, LOCATE, listed, expected, spec.rank)
    return allowed


def _with(spec: DistSpec, located: Located) -> DistSpec:
    sources = dict(spec.sources)
    changes: dict[str, Any] = {}
    if spec.sources.get("host") not in GIVEN:
        changes["host"], sources["host"] = located.host, located.source
    if spec.job_id is None and located.job_id is not None:
        changes["job_id"], sources["job_id"] = located.job_id, located.source
    return attrs.evolve(spec, **changes, sources=sources)


def _endpoint(spec: DistSpec) -> Endpoint:
    host, port = str(spec.host), int(spec.port or 0)
    sources = [spec.sources.get(name, name) for name in ("host", "port")]
    try:
        found = addresses(host)
    except OSError as error:
        raise UnresolvableHost(host, sources[0], error.strerror or str(error), spec.rank) from None
    if {"0.0.0.0", "::"} & set(found):  # noqa: S104 - refused, not used
        raise UnresolvableHost(host, sources[0], "it stands for every interface, where nobody can be met", spec.rank)
    if spec.rank == 0 and (spec.num_nodes or 1) > 1 and host != "localhost" and host not in found:
        found = tuple(address for address in found if not is_loopback(address)) or (own_address(),)
    derived = sources[1].startswith("rule:") and spec.job_id is not None
    ports = tuple(derived_port(str(spec.job_id), attempt) for attempt in range(ATTEMPTS)) if derived else (port,)
    return Endpoint(host, found, ports, " and ".join(sources))
