"""The resolvers that are asked, each with its answer, and the choice of one of them by name."""

from collections.abc import Sequence
from typing import NamedTuple, cast

from ._registry import Plugin, called, resolvers
from .environ import Environ
from .errors import BrokenPlugin, ColossalaiEnvError, InvalidArgument, ResolverDoesNotMatch, UnknownResolver, quoted
from .resolver import Answer, Claim, Invalid, Layer, NoMatch, ResolverProtocol
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


def ask_all(
    environ: Environ, among: Sequence[ResolverProtocol] | None = None, *, explained: bool = False
) -> tuple[Candidate, ...]:
    """Ask the installed resolvers that may match, all of them where each has to say why not, or `among` others."""
    if among is not None:
        return (*(_ask(resolver, CALLER, environ) for resolver in among), ALONE)
    registered = resolvers(environ) if explained else called(environ)
    return (*(_ask(resolver, plugin, environ) for resolver, plugin in registered), ALONE)


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
        if not all(hasattr(resolver, member) for member in ("name", "layer", "resolve")):
            raise InvalidArgument(
                "argument resolver", quoted(resolver), "a resolver, or the name of one such as 'slurm'"
            )
        choice = _ask(resolver, CALLER, environ)
    else:
        name, origin = (resolver, "argument resolver") if resolver is not None else (environ.get(SELECT), SELECT)
        if name is None:
            return None
        choice = _named(name, candidates, environ, origin)
    if isinstance(choice.answer, NoMatch):
        others = tuple(
            other.name for other in candidates if isinstance(other.answer, Claim) and other.layer is not Layer.ALONE
        )
        raise ResolverDoesNotMatch(choice.name, choice.answer.reason, others)
    return choice


def _named(name: str, candidates: tuple[Candidate, ...], environ: Environ, origin: str) -> Candidate:
    """Return the candidate of a name, though it was not asked yet; raise `UnknownResolver`."""
    for candidate in candidates:
        if candidate.name == name:
            return candidate
    registered = resolvers(environ)
    for resolver, plugin in registered:
        if resolver.name == name:
            return _ask(resolver, plugin, environ)
    raise UnknownResolver(origin, name, (*(item.resolver.name for item in registered), ALONE.name))
