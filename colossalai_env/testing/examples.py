"""What a contract tries its laws on, and how a broken law is reported."""

from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from colossalai_env import ColossalaiEnvError, DistSpec
from colossalai_env._resolution import examine
from colossalai_env._rows import is_required, names_of
from colossalai_env.errors import InvalidSpec, MissingVariable
from colossalai_env.resolver import Answer, Claim, Environ, Invalid, Resolver, ResolverProtocol

from . import environments as drawn
from .broken_law import BrokenLaw
from .comparison import described
from .environments import Started, launches
from .layouts import Layout

PLACE = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "host", "port")
"""The fields that say which process this is and where it meets the others."""

SAID = (*PLACE, "agent_store", "backend", "job_id")
"""The fields that a launcher says."""


class Examples:
    """The resolver that is tried, and the launches that are tried on it."""

    resolver: ClassVar[ResolverProtocol]
    """The resolver."""

    job_ids: ClassVar[st.SearchStrategy[str | None] | None] = None
    """Draws job ids in the launcher's form; by default any short text where one variable holds it, else none."""

    def launches(self, max_ranks: int = 64) -> st.SearchStrategy[Layout]:
        """Draw launches of up to `max_ranks` that the launcher can do; by default all those that `emulate` accepts."""
        return launches(self.resolver, max_ranks, self.job_ids)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        """Return whether the launcher may leave a variable out of such an environment; None where either may be.

        By default as the table says. A contract that says it anew finds rows that are required by mistake, or are not.
        """
        rows = self.resolver.every_row() if isinstance(self.resolver, Resolver) else ()
        read = [(row, item) for _, row in rows for item in row.inputs() if name in item.names]
        if not read or len({item.names for _, item in read}) > 1:
            return None
        return not any(is_required(row, environ) and is_required(item, environ) for row, item in read)

    def _holds(self, law: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
        """Try examples until one breaks the law, and find the smallest."""
        slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
        checks = [*slow, HealthCheck.filter_too_much]
        phases = [phase for phase in settings().phases if phase is not Phase.explain]
        quiet = settings().verbosity is Verbosity.normal
        options = settings(
            phases=phases,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=checks,
            verbosity=Verbosity.quiet if quiet else settings().verbosity,  # the sentence has it all
            print_blob=settings().print_blob and not quiet,
        )
        try:
            options(given(*strategies)(law))()
        except Unsatisfiable:
            raise self._broken(self._refusal()) from None

    def _refusal(self) -> str:
        """Return why no launch can be emulated."""
        try:
            self.resolver.emulate(Layout(("node0",), (0,)).spec(0))
        except InvalidSpec as error:
            return f"emulate() refuses the launches that are tried ({error}): draw others, by job_ids or launches()"
        return "too few of the launches that are tried can be emulated: draw others, by launches()"

    def _broken(self, sentence: str, environ: Environ | None = None) -> BrokenLaw:
        return BrokenLaw(self.resolver.name, sentence, environ)

    def _ask(self, environ: Environ) -> Answer:
        try:
            return self.resolver.resolve(environ)
        except Exception as error:
            told = f"resolve() raised {type(error).__name__}: {error}"
            raise self._broken(f"{told}: expected NoMatch, Invalid or Claim", environ) from error

    def _claimed(self, started: Started) -> DistSpec:
        answer = self._ask(started.environ)
        if isinstance(answer, Claim):
            return answer.spec
        told = f"what emulate() sets for {started.spec} is answered by {described(answer)}"
        raise self._broken(f"{told}{self._way_back(answer)}", started.environ)

    def _way_back(self, answer: Answer) -> str:
        """Return what a table may lack where what it emulates is an error to itself."""
        if not isinstance(self.resolver, Resolver) or not isinstance(answer, Invalid):
            return ""
        if not isinstance(answer.error, MissingVariable):
            return ": a row with read= needs write=, and derived rows need emulated="
        name = answer.error.variable
        host = any(field == "host" and name in names_of(row) for field, row in self.resolver.rows())
        others = ", or only_others=True where it is rank 0 that lacks it" if host else ""
        return (
            f": emulated= has to set {name}; where the launcher may leave it out, the row says required=False{others}"
        )

    def _fields(self) -> frozenset[str]:
        """Return the fields of a table's rows; another resolver says what it says."""
        rows = self.resolver.rows() if isinstance(self.resolver, Resolver) else ()
        return frozenset(name for name, _ in rows)

    def _may_leave_out(self, name: str, started: Started) -> bool:
        """Return whether a process can do without a field: a single process meets no other."""
        alone = started.layout.world_size == 1
        return (name in {"host", "port"} and alone) or (name == "host" and self._knows_itself(started.rank))

    def _knows_itself(self, rank: int) -> bool:
        """Return whether a rank need not be told rank 0's host: it is rank 0, and the table says what it does then."""
        table = self.resolver
        return rank == 0 and isinstance(table, Resolver) and (table.tells_others_alone or bool(table.locate))

    def _among(self, environ: Environ) -> DistSpec | ColossalaiEnvError:
        return examine(environ, {}, among=[self.resolver, *drawn.others(self.resolver)]).outcome
