"""resolve(): one candidate per resolver, then one DistSpec or one error; pure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import attr as attrs

from ._arguments import Given, arguments, misfit, read
from ._candidates import SELECT, Candidate, ask_all, chosen
from ._combination import IDENTITY, MASTER, MEETING, Winner, combine, without_defaults
from ._registry import resolvers
from ._rows import READERS, Var
from .environ import Environ
from .errors import (
    ColossalaiEnvError,
    ConflictingResolvers,
    IncompleteArguments,
    InvalidArgument,
    PartialEnvironment,
    ResolverDoesNotMatch,
    UnknownResolver,
    ends_at_caller,
)
from .resolver import Claim, Invalid, Layer, NoMatch, Resolver, ResolverProtocol
from .spec import JOB_ID, DistSpec

if TYPE_CHECKING:
    from ._nesting import Claimed


class Resolution(NamedTuple):
    """All that was asked and answered, and what came of it."""

    candidates: tuple[Candidate, ...]
    outcome: DistSpec | ColossalaiEnvError
    warnings: tuple[str, ...] = ()
    """What may be meant otherwise; rank 0 logs it."""
    refused: DistSpec | None = None
    """Who this process is by the launcher that contradicts its variables: as that one it tells the other ranks."""
    chosen: bool = False
    """Whether one resolver alone was asked for."""

    @property
    def deciding(self) -> Candidate | None:
        """The candidate whose claim or whose error is the outcome; None where the outcome is not one resolver's."""
        for candidate in self.candidates:
            answer = candidate.answer
            if isinstance(self.outcome, DistSpec) and candidate.name == self.outcome.resolver:
                return candidate
            if isinstance(answer, Invalid) and answer.error is self.outcome:
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
    """Return who this process is in its job.

    `env` and `argv` default to this process's; when either is given, nothing else is read. `args`
    is a parsed namespace whose fields, where they are given, override what is found; the other keywords
    override those too. None and -1 mean "not given". `resolver` asks one resolver alone, by name or as an object.

    Raises a `ColossalaiEnvError` that names the variable, the value, what was expected and what to do.
    """
    environ = Environ.snapshot(env, argv)
    given = arguments(
        args, rank=rank, world_size=world_size, local_rank=local_rank, host=host, port=port, backend=backend
    )
    return examine(environ, given, resolver).spec()


def examine(
    environ: Environ,
    given: Mapping[str, Given],
    resolver: str | ResolverProtocol | None = None,
    among: Sequence[ResolverProtocol] | None = None,
    *,
    explained: bool = False,
) -> Resolution:
    """Ask the resolvers, those installed or `among` others, and decide; errors are kept, not raised.

    Of those installed only the ones that may match are asked, unless each has to say why it does not.
    """
    wrong = {field: error for field, item in given.items() if (error := misfit(field, item)) is not None}
    if wrong:
        usable = {field: item for field, item in given.items() if field not in wrong}
        return failed(next(iter(wrong.values())), examine(environ, usable, resolver, among, explained=explained))
    candidates: tuple[Candidate, ...] = ()
    environ = _as_seen(environ, given)
    try:
        candidates = ask_all(environ, among, explained=explained)
        choice = chosen(candidates, environ, resolver)
        if choice is None:
            return _decide(candidates, environ, given, among)
        candidates = candidates if choice in candidates else (choice, *candidates)
        return Resolution(candidates, combine(_winner((choice,), given), environ, given), chosen=True)
    except (InvalidArgument, ResolverDoesNotMatch, UnknownResolver) as error:
        if not candidates:
            return Resolution(candidates, error)
        others = {name: value for name, value in environ.variables.items() if name != SELECT}
        return failed(error, examine(Environ(others, environ.argv), given, None, among, explained=explained))
    except ColossalaiEnvError as error:
        return Resolution(candidates, error)


def failed(error: ColossalaiEnvError, otherwise: Resolution) -> Resolution:
    """Return an error of the caller's; as whom this process would be without it, it tells the other ranks."""
    found = otherwise.outcome
    known = found if isinstance(found, DistSpec) and found.world_size > 1 else otherwise.refused
    return Resolution(otherwise.candidates, error, refused=known)


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


def _decide(
    candidates: tuple[Candidate, ...],
    environ: Environ,
    given: Mapping[str, Given],
    among: Sequence[ResolverProtocol] | None,
) -> Resolution:
    """Combine the innermost claim with what was given, and hold it against what stands beside it."""
    winner = _winner(candidates, given)
    if winner is not None and winner.layer is Layer.ALONE:
        return _unclaimed(candidates, winner, environ, given, among)
    claimed = [candidate for candidate in candidates if isinstance(candidate.answer, Claim)]
    if winner is not None:
        given = without_defaults(given, winner.spec, environ)
        winner = _with_an_id(winner, claimed, environ, given)
    spec = combine(winner, environ, given)
    if winner is not None and (winner.spec.rank, winner.spec.world_size) != (spec.rank, spec.world_size):
        winner = None
    layer = winner.layer if winner is not None else Layer.ARGUMENTS
    outer = _around(layer, claimed)
    traces = [
        candidate
        for candidate in candidates
        if isinstance(candidate.answer, NoMatch) and candidate.answer.found and candidate.layer < layer
    ]
    if outer is None and not traces:
        return Resolution(candidates, spec)
    return _beside(Resolution(candidates, spec), winner, outer, traces, environ)


def _beside(
    decided: Resolution, winner: Winner | None, outer: Winner | None, traces: Sequence[Candidate], environ: Environ
) -> Resolution:
    """Hold the answer against the nearest claim around it, and against what is set of a launcher inside of it."""
    from ._nesting import MEANT, Claimed, held_against, kind_of, verdict

    spec = decided.spec()
    by_hand = winner is not None and set_by_hand(winner.resolver, environ)
    layer = winner.layer if winner is not None else Layer.ARGUMENTS
    inner = Claimed(kind_of(layer, by_hand=by_hand), layer, spec)
    around = Claimed(kind_of(outer.layer), outer.layer, outer.spec) if outer is not None else None
    warnings: tuple[str, ...] = ()
    try:
        if around is not None and verdict(inner, around) is not MEANT and not _of_a_daemon(around.layer, environ):
            warnings = held_against(inner, around)
        for candidate in traces:
            warnings += _against_trace(inner, candidate, environ)
    except ColossalaiEnvError as error:
        return Resolution(decided.candidates, error, (), _as_around(spec, outer))
    return decided._replace(warnings=warnings)


def _as_around(spec: DistSpec, outer: Winner | None) -> DistSpec | None:
    """Take the rank and the id that the launcher around says, where it is the same world; there are others to tell."""
    if outer is None or outer.spec.world_size != spec.world_size:
        return None
    return attrs.evolve(spec, rank=outer.spec.rank, job_id=spec.job_id or outer.spec.job_id)


def _winner(candidates: Sequence[Candidate], given: Mapping[str, Given]) -> Winner | None:
    """Return the innermost claim; none where it is unusable and rank and world size are given."""
    try:
        return _innermost(candidates)
    except ColossalaiEnvError:
        if not given.keys() >= IDENTITY:
            raise
        return None


def _innermost(candidates: Sequence[Candidate]) -> Winner:
    """Return the claim of the innermost layer that has one; raise where that layer is unusable or of two minds."""
    decisive = _within([candidate for candidate in candidates if not isinstance(candidate.answer, NoMatch)])
    layer = min(candidate.layer for candidate in decisive)
    claims: list[Winner] = []
    for candidate in decisive:
        if candidate.layer is layer and isinstance(candidate.answer, Invalid):
            raise candidate.answer.error
        if candidate.layer is layer and isinstance(candidate.answer, Claim):
            claims.append(Winner(candidate.resolver, candidate.answer.spec))
    if len(claims) > 1 and len({(claim.spec.rank, claim.spec.world_size) for claim in claims}) > 1:
        from ._nesting import Claimed, kind_of

        choice = " or ".join(claim.spec.resolver for claim in claims)
        remedy = f"choose with COLOSSALAI_ENV_RESOLVER={choice}, or remove the variables of the other"
        raise ConflictingResolvers(tuple(str(Claimed(kind_of(layer), layer, claim.spec)) for claim in claims), remedy)
    return claims[0]


def _within(candidates: list[Candidate]) -> list[Candidate]:
    """Leave out the launchers that have started another of these: they stand outside, though they be of one layer."""
    if len(candidates) == 2:
        return candidates  # one launcher, and the process alone
    outside = {
        name
        for candidate in candidates
        if isinstance(candidate.answer, Claim)
        for name in getattr(candidate.resolver, "started_by", ())
    }
    return [candidate for candidate in candidates if candidate.name not in outside] if outside else candidates


def set_by_hand(resolver: ResolverProtocol, environ: Environ) -> bool:
    """Return whether the resolver says that no launcher set the variables that it reads."""
    by_hand = getattr(resolver, "by_hand", None)
    return by_hand is not None and bool(by_hand(environ))


def _around(layer: Layer, claimed: Sequence[Candidate]) -> Winner | None:
    """Return the nearest claim outside of a layer."""
    nearest: Winner | None = None
    for candidate in claimed:
        limit = nearest.layer if nearest is not None else Layer.ALONE
        if isinstance(candidate.answer, Claim) and layer < candidate.layer < limit:
            nearest = Winner(candidate.resolver, candidate.answer.spec)
    return nearest


def _of_a_daemon(layer: Layer, environ: Environ) -> bool:
    """Return whether a claim in this layer is that of a daemon which started this process."""
    from ._unknown_launchers import of_a_daemon

    return layer > Layer.WORKER and of_a_daemon(environ)


def _with_an_id(winner: Winner, claimed: Sequence[Candidate], environ: Environ, given: Mapping[str, Given]) -> Winner:
    """Give a launch by hand the id of the launcher around it where that counts the same ranks.

    Two steps of a job on one port are two launches. Where all is given, nothing around describes the launch, nor where
    an id is set by hand too.
    """
    spec = winner.spec
    named = spec.job_id is not None or environ.get(JOB_ID)
    if named or given.keys() >= MEETING or not set_by_hand(winner.resolver, environ):
        return winner
    outer = _around(winner.layer, claimed)
    if outer is None or (outer.spec.rank, outer.spec.world_size) != (spec.rank, spec.world_size):
        return winner
    if outer.spec.job_id is None or _of_a_daemon(outer.layer, environ):
        return winner
    sources = {**spec.sources, "job_id": outer.spec.sources.get("job_id", outer.spec.resolver)}
    return winner._replace(spec=attrs.evolve(spec, job_id=outer.spec.job_id, sources=sources))


def _against_trace(inner: "Claimed", candidate: Candidate, environ: Environ) -> tuple[str, ...]:
    """Hold a claim against variables of a launcher inside of it of which some are missing."""
    resolver, answer = candidate.resolver, candidate.answer
    read = resolver.readable(environ) if isinstance(resolver, Resolver) else {}
    if "world_size" not in read or not isinstance(answer, NoMatch):
        return ()
    if candidate.layer is Layer.ARGUMENTS and inner.spec.world_size > 1:
        return ()  # options may be another program's
    from ._nesting import held_against_trace
    from ._unknown_launchers import LIGHTNING

    if read.get("local_rank") not in {None, 0, inner.spec.local_rank} and LIGHTNING.applies(environ):
        raise LIGHTNING.refusal(environ)
    return held_against_trace(inner, dict(environ.found(answer.found)), read["world_size"])


def _unclaimed(
    candidates: tuple[Candidate, ...],
    winner: Winner,
    environ: Environ,
    given: Mapping[str, Given],
    among: Sequence[ResolverProtocol] | None,
) -> Resolution:
    """Take the process for one alone, unless anything says otherwise."""
    from ._unknown_launchers import find

    mark = find(environ, lambda: [item.resolver for item in resolvers(environ)] if among is None else among)
    if given.keys() >= IDENTITY:
        spec = combine(winner, environ, given)
        doubt = mark is not None and mark.refused and spec.world_size == 1
        return Resolution(candidates, spec, (mark.warning(environ),) if mark and doubt else ())
    traces = [(one, one.answer) for one in candidates if isinstance(one.answer, NoMatch) and one.answer.missing]
    for candidate, answer in traces:
        if candidate.layer is Layer.ARGUMENTS:
            return Resolution(candidates, _typed(candidate, answer, environ, given))
    if mark is not None and mark.refused and not (mark.shared and traces):  # a resolver's own traces say more
        raise mark.refusal(environ)
    if traces:
        raise PartialEnvironment(tuple((one.name, answer.found, answer.missing) for one, answer in traces))
    spec = combine(winner, environ, given)
    return Resolution(candidates, spec, (mark.warning(environ),) if mark else ())


def _typed(candidate: Candidate, answer: NoMatch, environ: Environ, given: Mapping[str, Given]) -> DistSpec:
    """Take a rank and a world size that were typed for a claim where no launcher claims the process."""
    rows = candidate.resolver.rows() if isinstance(candidate.resolver, Resolver) else ()
    options = {row.names[0]: field for field, row in rows if isinstance(row, Var)}
    typed = {options[name]: Given(read(options[name], said), name) for name, said in environ.found([*options])}
    for field, item in typed.items():
        wrong = misfit(field, item)
        if wrong is not None:
            raise wrong
    spec = combine(None, environ, {**typed, **given}, candidate.name)
    missing = [name for name in answer.missing if spec.world_size > 1 and getattr(spec, options[name]) is None]
    if missing:
        raise IncompleteArguments(answer.found, tuple(missing))
    return spec
