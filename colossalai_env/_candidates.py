"""The resolvers that are asked, each with its answer, and the choice of one of them by name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from ._registry import Plugin, Registered, resolvers
from .environ import Environ
from .errors import BrokenPlugin, ColossalaiEnvError, ResolverDoesNotMatch, UnknownResolver
from .resolver import Answer, Claim, Invalid, Layer, NoMatch, Resolver, ResolverProtocol
from .spec import DistSpec, Origin, Source

SELECT = "COLOSSALAI_ENV_RESOLVER"
"""Names the one resolver to ask."""


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
                Source("rule: a process alone", Origin.RULE),
            ),
        )
    )

    def resolve(self, environ: Environ) -> Answer:
        """Claim what no other resolver claims."""
        del environ
        return self.claim

    def emulate(self, spec: DistSpec) -> Environ:
        """Return the environment of a process that no launcher started."""
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


ALONE = Candidate(SingleProcess(), "built in", SingleProcess.claim)
"""What no other resolver claims is a single process."""

CALLER = "the caller"
"""Who brought a resolver that is no plugin's."""


class _Index(NamedTuple):
    """Which resolvers have to be asked in an environment: those of which a mark is set, and those without marks."""

    registered: tuple[Registered, ...]
    unasked: tuple[Candidate, ...]
    """What each answers where none of its marks is set."""
    always: tuple[int, ...]
    by_mark: Mapping[str, Sequence[int]]

    @classmethod
    def of(cls, registered: tuple[Registered, ...]) -> "_Index":
        """Look at all resolvers once."""
        unasked: list[Candidate] = []
        always: list[int] = []
        by_mark: dict[str, list[int]] = {}
        for position, (resolver, plugin) in enumerate(registered):
            marks = resolver.marks if isinstance(resolver, Resolver) else None
            if marks is None:
                always.append(position)
                unasked.append(Candidate(resolver, plugin, NoMatch("not asked")))
            else:
                unasked.append(_ask(resolver, plugin, Environ()))
            for mark in marks or ():
                by_mark.setdefault(mark, []).append(position)
        return cls(registered, tuple(unasked), tuple(always), by_mark)

    def called(self, environ: Environ) -> set[int]:
        """Return who has to be asked."""
        marked = self.by_mark.keys() & environ.variables.keys()
        return {*self.always, *(position for mark in marked for position in self.by_mark[mark])}


_last: list[_Index] = []
"""Of the resolvers that were asked last."""


def _index(registered: tuple[Registered, ...]) -> _Index:
    if not _last or _last[0].registered is not registered:
        _last[:] = [_Index.of(registered)]
    return _last[0]


def ask_all(environ: Environ, among: Sequence[ResolverProtocol] | None) -> tuple[Candidate, ...]:
    """Ask the resolvers of all plugins, or `among` others."""
    if among is not None:
        return (*(_ask(resolver, CALLER, environ) for resolver in among), ALONE)
    index = _index(resolvers(environ))
    candidates = [*index.unasked, ALONE]
    for position in index.called(environ):
        candidates[position] = _ask(*index.registered[position], environ)
    return tuple(candidates)


def _ask(resolver: ResolverProtocol, owner: Plugin | str, environ: Environ) -> Candidate:
    try:
        answer = cast("object", resolver.resolve(environ))  # whatever a plugin answers
    except ColossalaiEnvError as error:
        answer = Invalid(error)
    except Exception as error:
        raise _broken(resolver, owner, f"failed: {type(error).__name__}: {error}") from error
    if not isinstance(answer, (Claim, NoMatch, Invalid)):
        raise _broken(resolver, owner, f"answered {answer!r}, expected a Claim, NoMatch or Invalid")
    return Candidate(resolver, owner, answer)


def _broken(resolver: ResolverProtocol, owner: Plugin | str, what: str) -> BrokenPlugin:
    if isinstance(owner, str):
        return BrokenPlugin(resolver.name, owner, f"its resolver {resolver.name!r} {what}")
    return owner.broken(f"its resolver {resolver.name!r} {what}")


def chosen(
    candidates: tuple[Candidate, ...], environ: Environ, resolver: str | ResolverProtocol | None
) -> Candidate | None:
    """Return the candidate that the caller or the environment asks for alone; None where neither does."""
    if resolver is not None and not isinstance(resolver, str):
        choice = _ask(resolver, CALLER, environ)
    else:
        name, origin = (resolver, "argument resolver") if resolver is not None else (environ.get(SELECT), SELECT)
        if name is None:
            return None
        known = {candidate.name: candidate for candidate in candidates}
        if name not in known:
            raise UnknownResolver(origin, name, tuple(known))
        choice = known[name]
    if isinstance(choice.answer, NoMatch):
        others = tuple(
            other.name for other in candidates if isinstance(other.answer, Claim) and other.layer is not Layer.ALONE
        )
        raise ResolverDoesNotMatch(choice.name, choice.answer.reason, others)
    return choice
