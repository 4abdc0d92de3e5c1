"""resolve(): one candidate per resolver, then one DistSpec or one error; pure."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import attrs

from .environ import Environ
from .errors import (
    BrokenPlugin,
    ColossalaiEnvError,
    ConflictingResolvers,
    ContradictoryVariables,
    IncompleteArguments,
    InvalidSpec,
    MalformedVariable,
    PartialEnvironment,
    ResolverDoesNotMatch,
    UnknownResolver,
    ends_at_caller,
)
from .registry import Plugin, resolvers
from .resolver import READERS, Answer, Claim, Layer, NotMine, ResolverProtocol, Unusable, text
from .spec import FIELDS, DistSpec

SELECT = "COLOSSALAI_ENV_RESOLVER"
"""Names the one resolver to ask."""

JOB_ID = "COLOSSALAI_ENV_JOB_ID"
"""A token for launches that have none of their own, such as ranks that are started by hand."""

ARGUMENTS = ("rank", "world_size", "local_rank", "host", "port", "backend")
"""The fields that callers can give, by keyword or in a parsed namespace."""

MASTER = {"host": "MASTER_ADDR", "port": "MASTER_PORT"}
"""The variables that scripts set on purpose: they override what a launcher's own variables lead to."""

LOWEST_PORT, PORT_LIMIT = 10000, 32768
"""Derived ports lie above the well-known ones and below the kernel's ephemeral range, where any client may sit."""


def derived_port(job_id: str, attempt: int = 0) -> int:
    """Return a port that every rank of a launch derives alike, and two launches rarely share."""
    return LOWEST_PORT + (zlib.crc32(job_id.encode()) + 7919 * attempt) % (PORT_LIMIT - LOWEST_PORT)


def with_port(spec: DistSpec) -> DistSpec:
    """Derive the port from the job id, where there is an id and no port."""
    if spec.port is not None or spec.job_id is None:
        return spec
    sources = {**spec.sources, "port": f"rule: from job id ({spec.sources.get('job_id', 'given')})"}
    return attrs.evolve(spec, port=derived_port(spec.job_id), sources=sources)


def on_loopback(spec: DistSpec) -> DistSpec:
    """Let the ranks of one node meet on loopback, where nobody else can reach them."""
    return attrs.evolve(spec, host="127.0.0.1", sources={**spec.sources, "host": "rule: all ranks are on one node"})


class SingleProcess:
    """The resolver of last resort: rank 0 of 1."""

    name = "single-process"
    layer = Layer.ALONE
    claim = Claim(
        DistSpec(
            rank=0,
            world_size=1,
            local_rank=0,
            local_world_size=1,
            node_rank=0,
            num_nodes=1,
            resolver=name,
            sources=dict.fromkeys(
                ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes"),
                "rule: a process alone",
            ),
        )
    )

    def resolve(self, environ: Environ) -> Answer:
        """Claim whatever nobody else claims."""
        del environ
        return self.claim

    def emulate(self, spec: DistSpec) -> Environ:
        """Return the environment of a process that nobody launched."""
        del spec
        return Environ()


class Candidate(NamedTuple):
    """One resolver that was asked, and its answer."""

    resolver: ResolverProtocol
    owner: Plugin | str
    """The plugin that brought it, or words where none did."""
    answer: Answer

    @property
    def origin(self) -> str:
        """The distribution that it came with."""
        return self.owner if isinstance(self.owner, str) else self.owner.distribution

    @property
    def name(self) -> str:
        """The resolver's name."""
        return self.resolver.name

    @property
    def layer(self) -> Layer:
        """The resolver's layer."""
        return self.resolver.layer


class Given(NamedTuple):
    """A value that the caller gave, and where."""

    value: Any
    source: str


class Resolution(NamedTuple):
    """All that was asked and answered, and what came of it."""

    candidates: tuple[Candidate, ...]
    outcome: DistSpec | ColossalaiEnvError

    @property
    def deciding(self) -> Candidate | None:
        """The candidate whose claim or whose error is the outcome; None where the outcome is not one resolver's."""
        for candidate in self.candidates:
            answer = candidate.answer
            if isinstance(self.outcome, DistSpec) and candidate.name == self.outcome.resolver:
                return candidate
            if isinstance(answer, Unusable) and answer.error is self.outcome:
                return candidate
        return None

    def spec(self) -> DistSpec:
        """Return the answer, or raise the error."""
        if isinstance(self.outcome, ColossalaiEnvError):
            raise self.outcome
        return self.outcome


@ends_at_caller
def resolve(
    *,
    env: Mapping[str, str] | None = None,
    argv: Sequence[str] | None = None,
    args: object = None,
    resolver: str | ResolverProtocol | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    local_rank: int | None = None,
    host: str | None = None,
    port: int | None = None,
    backend: str | None = None,
) -> DistSpec:
    """Say who this process is in its job.

    `env` and `argv` default to this process's; when either is given, nothing else is read. `args`
    is a parsed namespace whose fields, where not None, override what is found; the other keywords
    override those too. `resolver` asks one resolver alone, by name or as an object.

    Raises a `ColossalaiEnvError` that names the variable, the value, what was expected and what to do.
    """
    environ = Environ.snapshot(env, argv)
    given = arguments(
        args, rank=rank, world_size=world_size, local_rank=local_rank, host=host, port=port, backend=backend
    )
    return examine(environ, given, resolver).spec()


def arguments(args: object = None, **keywords: Any) -> dict[str, Given]:  # noqa: ANN401 - fields of several types
    """Collect what the caller gave: keywords first, then the namespace `args`."""
    given = {name: Given(value, f"argument {name}") for name, value in keywords.items() if value is not None}
    for name in ARGUMENTS:
        value = getattr(args, name, None)
        if name not in given and value is not None:
            given[name] = Given(_parsed(name, value), f"args.{name}")
    return given


def _parsed(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return READERS.get(name, text)(value)
    except ValueError as expected:
        raise MalformedVariable("arguments", f"--{name}", value, str(expected)) from None


def examine(
    environ: Environ,
    given: Mapping[str, Given],
    resolver: str | ResolverProtocol | None = None,
    among: Sequence[ResolverProtocol] | None = None,
) -> Resolution:
    """Ask the resolvers, those installed or `among` others, and decide; errors are kept, not raised."""
    candidates: tuple[Candidate, ...] = ()
    environ = _as_seen(environ, given)
    try:
        candidates = _ask_all(environ, among)
        chosen = _choose(candidates, environ, resolver)
        candidates = candidates if chosen[0] in candidates else (*chosen, *candidates)
        return Resolution(candidates, _decide(chosen, environ, given))
    except ColossalaiEnvError as error:
        return Resolution(candidates, error)


def _as_seen(environ: Environ, given: Mapping[str, Given]) -> Environ:
    """Put a given host and port where scripts put them, if nothing usable is there, so that no resolver misses them."""
    settings = {
        variable: str(given[field].value)
        for field, variable in MASTER.items()
        if field in given and not _reads(field, environ.get(variable)) and _reads(field, str(given[field].value))
    }
    return Environ({**environ.variables, **settings}, environ.argv) if settings else environ


def _reads(field: str, value: str | None) -> bool:
    try:
        READERS[field](value or "")
    except ValueError:
        return False
    return True


def _ask_all(environ: Environ, among: Sequence[ResolverProtocol] | None) -> tuple[Candidate, ...]:
    if among is not None:
        asked = [_ask(resolver, CALLER, environ) for resolver in among]
    else:
        asked = [_ask(resolver, plugin, environ) for resolver, plugin in resolvers(environ)]
    return (*asked, ALONE)


ALONE = Candidate(SingleProcess(), "built in", SingleProcess.claim)
"""Whatever nobody else claims is a process alone."""

CALLER = "the caller"
"""Who brought a resolver that is no plugin's."""


def _ask(resolver: ResolverProtocol, owner: Plugin | str, environ: Environ) -> Candidate:
    try:
        answer = cast("object", resolver.resolve(environ))  # whatever a plugin answers
    except ColossalaiEnvError as error:
        answer = Unusable(error)
    except Exception as error:
        raise _broken(resolver, owner, f"failed: {type(error).__name__}: {error}") from error
    if not isinstance(answer, (Claim, NotMine, Unusable)):
        raise _broken(resolver, owner, f"answered {answer!r}, expected a Claim, NotMine or Unusable")
    return Candidate(resolver, owner, answer)


def _broken(resolver: ResolverProtocol, owner: Plugin | str, what: str) -> BrokenPlugin:
    if isinstance(owner, str):
        return BrokenPlugin(resolver.name, owner, f"its resolver {resolver.name!r} {what}")
    return owner.broken(f"its resolver {resolver.name!r} {what}")


def _choose(
    candidates: tuple[Candidate, ...], environ: Environ, resolver: str | ResolverProtocol | None
) -> tuple[Candidate, ...]:
    """Narrow the candidates to the one that the caller or the environment names."""
    if resolver is not None and not isinstance(resolver, str):
        chosen = _ask(resolver, CALLER, environ)
    else:
        name, origin = (resolver, "argument resolver") if resolver is not None else (environ.get(SELECT), SELECT)
        if name is None:
            return candidates
        known = {candidate.name: candidate for candidate in candidates}
        if name not in known:
            raise UnknownResolver(origin, name, tuple(known))
        chosen = known[name]
    if isinstance(chosen.answer, NotMine):
        others = tuple(
            other.name for other in candidates if isinstance(other.answer, Claim) and other.layer is not Layer.ALONE
        )
        raise ResolverDoesNotMatch(chosen.name, chosen.answer.reason, others)
    return (chosen,)


def _decide(candidates: Sequence[Candidate], environ: Environ, given: Mapping[str, Given]) -> DistSpec:
    """Combine the innermost launcher's claim with what was given and with MASTER_ADDR and MASTER_PORT."""
    identity = {"rank", "world_size"} & given.keys()
    try:
        winner = _innermost(candidates)
    except ColossalaiEnvError:
        if len(identity) < 2:
            raise
        winner = None
    if winner and any(getattr(winner.spec, field) != given[field].value for field in identity):
        winner = _other_rank(winner, identity)
    found = winner.spec if winner else None
    settings = _settings(environ, given, found, from_arguments=winner is None or winner.layer is Layer.ARGUMENTS)
    if found is not None:
        settings = {name: item for name, item in settings.items() if not _says(found, name, item)}
        if not settings:
            return _completed(found)
    base: dict[str, Any] = {name: getattr(found, name) for name in FIELDS} if found else {"resolver": "arguments"}
    sources = dict(found.sources) if found else {}
    for name, item in settings.items():
        if base.get(name) != item.value and name in {"host", "port"}:
            base["agent_store"] = False
        base[name], sources[name] = item.value, item.source
    return _completed(_built(base, sources))


def _says(spec: DistSpec, field: str, item: Given) -> bool:
    return (getattr(spec, field), spec.sources.get(field)) == (item.value, item.source)


class _Winner(NamedTuple):
    spec: DistSpec
    layer: Layer


def _innermost(candidates: Sequence[Candidate]) -> _Winner:
    """Return the claim of the innermost layer that has one; raise where that layer is unusable or of two minds."""
    decisive = [candidate for candidate in candidates if not isinstance(candidate.answer, NotMine)]
    layer = min(candidate.layer for candidate in decisive)
    claims: list[tuple[str, DistSpec]] = []
    for candidate in decisive:
        if candidate.layer is layer and isinstance(candidate.answer, Unusable):
            raise candidate.answer.error
        if candidate.layer is layer and isinstance(candidate.answer, Claim):
            claims.append((candidate.name, candidate.answer.spec))
    if len(claims) > 1 and len({(spec.rank, spec.world_size) for _, spec in claims}) > 1:
        raise ConflictingResolvers(tuple((name, spec.rank, spec.world_size) for name, spec in claims))
    if layer is Layer.ALONE:
        _refuse_traces(candidates)
    return _Winner(claims[0][1], layer)


def _refuse_traces(candidates: Sequence[Candidate]) -> None:
    traces = tuple(
        (candidate.name, candidate.answer.found, candidate.answer.missing)
        for candidate in candidates
        if isinstance(candidate.answer, NotMine) and candidate.answer.missing
    )
    if traces:
        raise PartialEnvironment(traces)


def _other_rank(winner: _Winner, identity: set[str]) -> _Winner | None:
    """Keep what a launcher says of another rank of the same world; nothing when the world itself is given."""
    if len(identity) == 2:
        return None
    if winner.layer is Layer.ALONE:
        raise IncompleteArguments(tuple(identity), tuple({"rank", "world_size"} - identity))
    unsaid: dict[str, Any] = dict.fromkeys(("local_rank", "local_world_size", "node_rank", "num_nodes"))
    spoken = {name: source for name, source in winner.spec.sources.items() if name not in unsaid}
    whole = attrs.evolve(winner.spec, **unsaid, sources=spoken)
    return _Winner(whole, winner.layer)


def _settings(
    environ: Environ, given: Mapping[str, Given], found: DistSpec | None, *, from_arguments: bool
) -> dict[str, Given]:
    """Return what overrides what is found: the given, and MASTER_ADDR and MASTER_PORT, which scripts set on purpose."""
    settings = dict(given)
    named = environ.get(JOB_ID)
    if named:
        settings["job_id"] = Given(named, JOB_ID)
    size = given["world_size"].value if "world_size" in given else getattr(found, "world_size", None)
    if size == 1:
        return settings
    for field, variable in MASTER.items():
        said = environ.get(variable)
        if said is None or field in settings or (from_arguments and getattr(found, field, None) is not None):
            continue
        try:
            settings[field] = Given(READERS[field](said), variable)
        except ValueError as expected:
            resolver, rank = (found.resolver, found.rank) if found else ("arguments", None)
            raise MalformedVariable(resolver, variable, said, str(expected), rank) from None
    return settings


def _built(base: dict[str, Any], sources: dict[str, str]) -> DistSpec:
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
