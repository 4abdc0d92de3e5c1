"""One answer of a claim, of what was given, and of MASTER_ADDR and MASTER_PORT, field by field."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import attr as attrs

from ._arguments import Given
from ._derived import on_loopback, with_port
from ._rows import READERS
from .environ import Environ
from .errors import (
    ConflictingResolvers,
    ContradictoryVariables,
    IncompleteArguments,
    InvalidSpec,
    MalformedVariable,
)
from .resolver import Layer, ResolverProtocol
from .spec import FIELDS, JOB_ID, DistSpec, Origin, Source

MASTER = {"host": "MASTER_ADDR", "port": "MASTER_PORT"}
"""The variables that scripts set on purpose: they override what a launcher's own variables lead to."""

SERVICE = ("tcp://", "udp://", "sctp://")
"""Beginnings of what Kubernetes puts into MASTER_PORT for a Service named master, which no script set."""

IDENTITY = frozenset({"rank", "world_size"})

MEETING = frozenset({*IDENTITY, *MASTER})
"""All that a launch has to say."""

DEFAULTS = (("rank", 0, "world_size"), ("world_size", 1, "rank"), ("local_rank", 0, ""))
"""What parsers hold where nothing was typed, and the field without which it says nothing."""


class Winner(NamedTuple):
    """The claim that decides."""

    resolver: ResolverProtocol
    spec: DistSpec

    @property
    def layer(self) -> Layer:
        """How near its launcher stands."""
        return self.resolver.layer


def without_defaults(given: Mapping[str, Given], found: DistSpec, environ: Environ) -> Mapping[str, Given]:
    """Leave out a namespace's values that are a parser's defaults, where none was typed and a launcher says more."""
    left_out = [
        field
        for field, default, other in DEFAULTS
        if field in given
        and given[field] == (default, f"args.{field}")
        and other not in given
        and getattr(found, field) is not None
        and f"--{field}" not in environ
    ]
    return {field: item for field, item in given.items() if field not in left_out} if left_out else given


def combine(winner: Winner | None, environ: Environ, given: Mapping[str, Given], named: str = "arguments") -> DistSpec:
    """Combine the innermost launcher's claim with what was given and with MASTER_ADDR and MASTER_PORT.

    Without a winner, or beside one of another world, the answer is the arguments' alone, under the name `named`.
    """
    found = _kept(winner, given)
    from_arguments = found is None or (winner is not None and winner.layer is Layer.ARGUMENTS)
    settings = _settings(environ, given, found, from_arguments=from_arguments)
    if found is not None:
        settings = {name: item for name, item in settings.items() if not _says(found, name, item)}
        if not settings:
            return _completed(found)
    base: dict[str, Any] = {name: getattr(found, name) for name in FIELDS} if found else {"resolver": named}
    sources = dict(found.sources) if found else {}
    for name, item in settings.items():
        if base.get(name) != item.value and name in {"host", "port"}:
            base["agent_store"] = False
        base[name], sources[name] = item.value, Source(item.source, Origin.CHOSEN)
    return _completed(_built(base, sources))


def _kept(winner: Winner | None, given: Mapping[str, Given]) -> DistSpec | None:
    """Return what a launcher says of this process in the given world; of another world it says nothing."""
    if winner is None or not given:
        return winner.spec if winner else None
    spec = winner.spec
    differing = {field for field in MEETING & given.keys() if getattr(spec, field) != given[field].value}
    if given.keys() >= MEETING and differing:
        return None
    if not differing & IDENTITY:
        return spec
    if given.keys() >= IDENTITY:
        return None
    if winner.layer is Layer.ALONE:
        identity = IDENTITY & given.keys()
        raise IncompleteArguments(tuple(identity), tuple(IDENTITY - identity))
    return _of_another_rank(spec, given)


def _of_another_rank(spec: DistSpec, given: Mapping[str, Given]) -> DistSpec:
    """Keep what a launcher says of another rank of the same world."""
    size = given.get("world_size")
    if size is not None and 1 in {size.value, spec.world_size}:
        claims = (
            f"{size.source} is {size.value}",
            f"{spec.resolver} says rank {spec.rank} of {spec.world_size} ({spec.sources.get('world_size')})",
        )
        raise ConflictingResolvers(claims, f"leave out {size.source}, or give the rank too")
    unsaid: dict[str, Any] = dict.fromkeys(("local_rank", "local_world_size", "node_rank", "num_nodes"))
    spoken = {name: source for name, source in spec.sources.items() if name not in unsaid}
    return attrs.evolve(spec, **unsaid, sources=spoken)


def _says(spec: DistSpec, field: str, item: Given) -> bool:
    return (getattr(spec, field), spec.sources.get(field)) == (item.value, item.source)


def _settings(
    environ: Environ, given: Mapping[str, Given], found: DistSpec | None, *, from_arguments: bool
) -> dict[str, Given]:
    """Return what overrides what is found: the given, and MASTER_ADDR and MASTER_PORT, which scripts set on purpose."""
    settings = dict(given)
    named = environ.get(JOB_ID)
    if named and (found is None or found.job_id is None):
        settings["job_id"] = Given(named, JOB_ID)
    size = given["world_size"].value if "world_size" in given else getattr(found, "world_size", None)
    if size == 1:
        return settings
    for field, variable in MASTER.items():
        said = environ.get(variable)
        if said is None or field in settings or (from_arguments and getattr(found, field, None) is not None):
            continue
        if field == "port" and said.startswith(SERVICE):
            continue
        try:
            settings[field] = Given(READERS[field](said), variable)
        except ValueError as expected:
            resolver, rank = (found.resolver, found.rank) if found else ("arguments", None)
            raise MalformedVariable(resolver, variable, said, str(expected), rank) from None
    return settings


def _built(base: dict[str, Any], sources: dict[str, Source]) -> DistSpec:
    try:
        return DistSpec(**base, sources=sources)
    except InvalidSpec as error:
        found = tuple((sources.get(field, field), str(base.get(field))) for field in error.fields)
        raise ContradictoryVariables(base["resolver"], error.problem, found, base.get("rank")) from None


def _completed(spec: DistSpec) -> DistSpec:
    """Add the port that the job id gives, and loopback for a world on one node."""
    if spec.world_size == 1:
        return spec
    return with_port(on_loopback(spec) if spec.host is None and spec.one_node else spec)
