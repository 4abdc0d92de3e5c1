"""Where rank 0 is reached: as given, on loopback, or as the launcher tells when asked."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs

from ._addresses import EVERY, EVERY4, LOOPBACK, LOOPBACK6, Endpoint, addresses, is_loopback, platform_lacks
from ._derived import LOCATE, allowed, derived_ports, is_asked_for, on_loopback, with_port
from ._registry import resolvers
from .environ import Environ
from .errors import MalformedVariable, UnknownEndpoint, UnresolvableHost, UnsupportedPlatform
from .resolver import Directory, HostAnswer, HostQuery, Resolver
from .spec import DistSpec, Origin, Source

FindDirectory: TypeAlias = Callable[[DistSpec, Environ], Directory | None]
"""Returns where a launch keeps its directory; see `Resolver.directory`."""


def refuse_platform() -> None:
    """Raise `UnsupportedPlatform` where ranks cannot meet."""
    absent = platform_lacks()
    if absent:
        raise UnsupportedPlatform(sys.platform, absent)


def locate(
    spec: DistSpec, environ: Environ, ways: Sequence[HostQuery], seconds: float, directory: FindDirectory | None = None
) -> tuple[DistSpec, Endpoint]:
    """Return the spec with host and port filled in, and the endpoint of a world of several processes.

    Host: as given; loopback where all ranks are on one node; as the launcher says when asked by one of `ways`. Where
    nothing says it, and where it doubts what is said, the `directory` answers at the endpoint: then the host stays
    unknown. Port: as given, or derived from the job id. Raises `UnknownEndpoint`, `UnresolvableHost` or `CannotLocate`.
    """
    until = time.monotonic() + seconds
    asked: list[str] = []
    if spec.one_node and not spec.agent_store and spec.origin("host") is not Origin.CHOSEN:
        spec = on_loopback(spec)
    place = directory(spec, environ) if directory is not None and spec.origin("host") is not Origin.CHOSEN else None
    if place is not None:
        source = {**spec.sources, "host": DIRECTORY}
        spec = attrs.evolve(spec, host=place.host, sources=source)
    if is_asked_for(spec) or (spec.origin("host") is not Origin.CHOSEN and not _resolves(spec.host, until)):
        located = _ask(spec, environ, ways, until - time.monotonic(), asked)
        if located is not None:
            spec = _with(spec, located)
    spec = with_port(spec)
    missing = tuple(name for name in ("host", "port") if getattr(spec, name) is None)
    if spec.host is None or spec.port is None:
        raise UnknownEndpoint(spec.resolver, missing, tuple(asked), spec.rank)
    endpoint = _endpoint(spec, environ, until)
    if place is None or (place.serves and spec.rank == 0):
        return spec, endpoint
    return attrs.evolve(spec, host=None), attrs.evolve(endpoint, directory=True, serves_directory=place.serves)


DIRECTORY = Source("directory", Origin.RENDEZVOUS)
"""The source of a host that the directory tells."""


def _resolves(host: str | None, until: float) -> bool:
    if host is None:
        return False
    try:
        addresses(host, until - time.monotonic())
    except OSError:
        return False
    return True


def _ask(
    spec: DistSpec, environ: Environ, ways: Sequence[HostQuery], seconds: float, asked: list[str]
) -> HostAnswer | None:
    """Ask in turn; a way that does not apply says why, or answers None."""
    _refuse_unknown(spec, environ, ways)
    names = allowed([way.name for way in ways], environ)
    for way in ways:
        if way.name not in names:
            asked.append(f"{way.name} is not allowed by {LOCATE}")
            continue
        answer = way.ask(spec, environ, seconds)
        if isinstance(answer, HostAnswer):
            return answer
        asked.append(f"{way.name}: {answer or 'does not apply here'}")
    return None


def _refuse_unknown(spec: DistSpec, environ: Environ, ways: Sequence[HostQuery]) -> None:
    """Raise `MalformedVariable` where the user allows a way that no resolver has."""
    listed = environ.get(LOCATE)
    if listed is None:
        return
    every = [*ways, *(way for item in resolvers(environ) for way in getattr(item.resolver, "locate", ()))]
    known = sorted({way.name for way in every})
    if not {name.strip() for name in listed.split(",")} <= {"none", *known}:
        expected = f"none, or some of {', '.join(map(repr, known))}, separated by commas"
        raise MalformedVariable(spec.resolver, LOCATE, listed, expected, spec.rank)


def _with(spec: DistSpec, located: HostAnswer) -> DistSpec:
    sources = dict(spec.sources)
    changes: dict[str, Any] = {}
    if spec.origin("host") is not Origin.CHOSEN and not spec.one_node:
        changes["host"], sources["host"] = located.host, Source(located.source, Origin.ASKED)
    if spec.job_id is None and located.job_id is not None:
        changes["job_id"], sources["job_id"] = located.job_id, Source(located.source, Origin.ASKED)
    return attrs.evolve(spec, **changes, sources=sources)


def _endpoint(spec: DistSpec, environ: Environ, until: float) -> Endpoint:
    host, port = str(spec.host), int(spec.port or 0)
    sources = [spec.sources.get(name, name) for name in ("host", "port")]
    try:
        found = addresses(host, until - time.monotonic())
    except OSError as error:
        raise _unresolvable(spec, environ, error.strerror or str(error)) from None
    if {EVERY, EVERY4} & set(found):
        raise _unresolvable(spec, environ, "it stands for every interface and is no address to connect to")
    derived = spec.origin("port") is Origin.RULE and spec.job_id is not None
    ports = derived_ports(str(spec.job_id)) if derived else (port,)
    agent_source = spec.sources.get("agent_store", "the launcher").partition(" ")[0]
    if all(map(is_loopback, found)):  # of whichever family: it leads to this host
        found = tuple(dict.fromkeys((*found, LOOPBACK, LOOPBACK6)))
    return Endpoint(host, found, ports, " and ".join(sources), spec.one_node, agent_source=agent_source)


def _unresolvable(spec: DistSpec, environ: Environ, problem: str) -> UnresolvableHost:
    """Return the error, with what the launcher of this spec is told in place of MASTER_ADDR."""
    mine = (item.resolver for item in resolvers(environ) if item.resolver.name == spec.resolver)
    advice = next((resolver.host_advice(environ) for resolver in mine if isinstance(resolver, Resolver)), None)
    return UnresolvableHost(str(spec.host), spec.sources.get("host", "host"), problem, spec.rank, advice)
