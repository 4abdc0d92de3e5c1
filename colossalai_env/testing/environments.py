"""Hypothesis strategies for what a launcher's processes find: whole, garbled, lost, amid leftovers."""

from collections.abc import Iterator, Sequence
from functools import cache

import attrs
from hypothesis import assume
from hypothesis import strategies as st

from colossalai_env import DistSpec
from colossalai_env._registry import resolvers
from colossalai_env._rows import Var
from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import Environ, NoMatch, Resolver, ResolverProtocol

from .captures import captures
from .layouts import Layout
from .strategies import TOKENS, layouts

GARBLED = (
    "", " ", "\n", " 0", "0 ", "0.0", "\uff10", "+0", "3.0", "\uff11", "-1", "4294967296", "2(x", "n[1-",
    " a", "a ", "a b", "a:29500", "[::1]", "http://a", "a/b", "1.2.3", "256.1.1.1", "::g", "-a",
)  # fmt: skip
"""Texts that are neither a number, nor a host, nor a list of either."""

NO_NUMBERS = ("0_0", "1_0", "0x1", "1e3", "one")
"""Texts that may be hosts, but no numbers."""

NUMBERS = frozenset(
    {"rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "port", "main_node"}
)


@attrs.frozen
class Started:
    """One process of a launch, with the environment that the launcher would give it."""

    layout: Layout
    rank: int
    environ: Environ

    @property
    def spec(self) -> DistSpec:
        """Who it is meant to be, with every field filled."""
        return self.layout.spec(self.rank)


@attrs.frozen
class Damaged:
    """A process of which one variable or option was changed, or lost where `text` is None."""

    started: Started
    name: str
    text: str | None

    @property
    def environ(self) -> Environ:
        """What the process finds."""
        whole = self.started.environ
        if self.text is None:
            return without(whole, [self.name])
        if not self.name.startswith("--"):
            return Environ({**whole.variables, self.name: self.text}, whole.argv)
        return Environ(whole.variables, [*without(whole, [self.name]).argv, f"{self.name}={self.text}"])


def names(environ: Environ) -> list[str]:
    """Return the names of all variables and options."""
    return [*environ.variables, *(argument.partition("=")[0] for argument in environ.argv)]


def without(environ: Environ, lost: Sequence[str]) -> Environ:
    """Leave some variables and options out."""
    variables = {name: text for name, text in environ.variables.items() if name not in lost}
    return Environ(variables, [argument for argument in environ.argv if argument.partition("=")[0] not in lost])


def environ_of(resolver: ResolverProtocol, layout: Layout, rank: int) -> Environ:
    """Return what the launcher would set for one process, and which node is the main one for all alike.

    Raises `InvalidSpec` for a launch that it cannot do.
    """
    environ = resolver.emulate(layout.spec(rank))
    row = resolver.main_node if isinstance(resolver, Resolver) else None
    if not isinstance(row, Var):
        return environ
    main, *others = layout.nodes
    if others != sorted(others):
        msg = f"only {resolver.name}'s main node leaves the order"
        raise InvalidSpec(msg)
    return Environ({**environ.variables, row.names[0]: row.write(main)}, environ.argv)


def started(resolver: ResolverProtocol, layout: Layout, rank: int) -> Started:
    """Start one process of a launch; a launch that the launcher cannot do is no example."""
    try:
        environ = environ_of(resolver, layout, rank)
    except InvalidSpec:
        assume(condition=False)
        raise
    return Started(layout, rank, environ)


def launches(
    resolver: ResolverProtocol, max_ranks: int = 64, job_ids: st.SearchStrategy[str | None] | None = None
) -> st.SearchStrategy[Layout]:
    """Draw launches of which the launcher can say all: with a job id where a variable holds one."""
    if not isinstance(resolver, Resolver):
        return layouts(max_ranks, job_ids)
    if job_ids is None and isinstance(resolver.job_id, Var):
        job_ids = TOKENS if resolver.job_id.required is True else st.none() | TOKENS
    served = st.booleans() if resolver.agent_store else None
    return layouts(max_ranks, job_ids, served, one_a_node=resolver.counts_nodes)


@st.composite
def processes(draw: st.DrawFn, resolver: ResolverProtocol, launched: st.SearchStrategy[Layout]) -> Started:
    """Draw one process of a launch."""
    layout = draw(launched)
    return started(resolver, layout, draw(st.integers(0, layout.world_size - 1)))


@st.composite
def garbled(draw: st.DrawFn, resolver: ResolverProtocol, launched: st.SearchStrategy[Layout]) -> Damaged:
    """Draw a process one variable of which holds what its launcher never puts there."""
    process = draw(processes(resolver, launched))
    name = draw(st.sampled_from(names(process.environ)))
    return Damaged(process, name, draw(st.sampled_from(texts(resolver, name, process.environ))))


def texts(resolver: ResolverProtocol, name: str, environ: Environ) -> tuple[str, ...]:
    """Return the texts that no launcher puts into this variable; more of them where a table makes a number of it.

    Where it holds a host with a port, such a text is none of them.
    """
    rows = resolver.every_row() if isinstance(resolver, Resolver) else ()
    counts = any(field in NUMBERS and name in item.names for field, row in rows for item in row.inputs())
    garbled = (*GARBLED, *NO_NUMBERS) if counts else GARBLED
    endpoint = (environ.get(name) or "").rpartition(":")[::2]
    return tuple(text for text in garbled if text != "a:29500") if endpoint[0] and endpoint[1].isdecimal() else garbled


@st.composite
def lost(draw: st.DrawFn, resolver: ResolverProtocol, launched: st.SearchStrategy[Layout]) -> Damaged:
    """Draw a process one variable of which did not reach it."""
    process = draw(processes(resolver, launched))
    return Damaged(process, draw(st.sampled_from(names(process.environ))), None)


@cache
def recorded() -> tuple[Environ, ...]:
    """Return the environment of the first and last task of each recorded launch."""
    tasks = ((capture.tasks[0], capture.tasks[-1]) for capture in captures())
    return tuple(Environ(task.variables, task.argv) for pair in tasks for task in pair if task.variables)


def others(resolver: ResolverProtocol) -> list[ResolverProtocol]:
    """Return the installed resolvers of other names."""
    return [item.resolver for item in resolvers(Environ()) if item.resolver.name != resolver.name]


def foreign(resolver: ResolverProtocol) -> Iterator[Environ]:
    """Return recorded environments with nothing of this resolver's launcher in them."""
    for environ in recorded():
        answer = resolver.resolve(environ)
        if isinstance(answer, NoMatch) and not answer.found and not _speaks(resolver, environ):
            yield environ


def _speaks(resolver: ResolverProtocol, environ: Environ) -> bool:
    """Return whether a table's launcher left rank or size, as in a batch script, which is no process of it."""
    if not isinstance(resolver, Resolver) or {*resolver.variables()}.isdisjoint(names(environ)):
        return False
    return bool({"rank", "world_size"} & resolver.readable(environ).keys())


def outer(resolver: ResolverProtocol) -> Iterator[Environ]:
    """Return recorded environments whose launchers all stand outside of this resolver's."""
    for environ in foreign(resolver):
        found = [other for other in others(resolver) if not isinstance(other.resolve(environ), NoMatch)]
        started = any(resolver.name in getattr(other, "started_by", ()) for other in found)
        if found and not started and min(other.layer for other in found) > resolver.layer:
            yield environ


def around(environ: Environ, leftovers: Environ, whole: Environ) -> Environ:
    """Put leftovers around a process's own environment: no other value replaces what its launcher sets."""
    own = names(whole)
    left = {name: text for name, text in leftovers.variables.items() if name not in own}
    return Environ({**left, **environ.variables}, environ.argv)


def remains(environs: Sequence[Environ]) -> st.SearchStrategy[Environ]:
    """Draw what is left of another launcher: a few of its variables, or all of them."""
    return st.integers(0, len(environs) - 1).flatmap(lambda index: _some(environs[index]))


@st.composite
def _some(draw: st.DrawFn, environ: Environ) -> Environ:
    if draw(st.booleans()):
        return Environ(environ.variables)
    few = draw(st.lists(st.sampled_from(sorted(environ.variables)), max_size=3, unique=True))
    return Environ({name: environ.variables[name] for name in few})


def environs(
    resolver: ResolverProtocol, launched: st.SearchStrategy[Layout] | None = None
) -> st.SearchStrategy[Environ]:
    """Draw environments of a launcher's processes: whole, with a variable garbled or lost, and amid others' leftovers.

    `launched` draws the launches; by default any of up to 64 ranks.
    """
    launched = launches(resolver) if launched is None else launched
    damaged = st.one_of(garbled(resolver, launched), lost(resolver, launched))
    left = [*foreign(resolver)]
    leftovers = st.just(Environ()) | remains(left) if left else st.just(Environ())
    return st.builds(_amid, damaged, st.booleans(), leftovers)


def _amid(damaged: Damaged, broken: bool, leftovers: Environ) -> Environ:
    whole = damaged.started.environ
    return around(damaged.environ if broken else whole, leftovers, whole)
