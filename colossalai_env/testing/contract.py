"""The contract of every resolver: the laws that it keeps, whatever its launcher."""

import re
import time
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from colossalai_env import (
    Answer,
    Claim,
    ColossalaiEnvError,
    ConflictingResolvers,
    DistSpec,
    Environ,
    InvalidSpec,
    Layer,
    Resolver,
    ResolverProtocol,
)
from colossalai_env.candidates import SingleProcess
from colossalai_env.resolution import examine, set_by_hand
from colossalai_env.rows import is_required

from . import surroundings as drawn
from .broken_law import BrokenLaw
from .comparison import described, plain, without_id
from .effects import effects, process_environment
from .layouts import Layout
from .surroundings import Damaged, Started, launches

PLACE = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "host", "port")
"""The fields that say which process this is and where it meets the others."""

SAID = (*PLACE, "agent_store", "backend", "job_id")
"""The fields that a launcher says."""

SECONDS = 0.02
"""The CPU time that one answer may take; the tables of this library take less than a thousandth of a second."""


class ResolverContract:
    """Every law as a test: inherit from it and name the resolver.

    ::

        class TestHouse(ResolverContract):
            resolver = HOUSE

    A law that is broken fails with one sentence and the smallest environment that shows it. How many
    examples each law tries is hypothesis' own setting, ``max_examples`` of the loaded profile.
    """

    resolver: ClassVar[ResolverProtocol]
    """The resolver."""

    job_ids: ClassVar[st.SearchStrategy[str | None] | None] = None
    """Draws job ids in the launcher's form; by default any short text where one variable holds it, else none."""

    def launches(self, max_ranks: int = 64) -> st.SearchStrategy[Layout]:
        """Draw launches of up to `max_ranks` that the launcher can do; by default all those that `emulate` accepts."""
        return launches(self.resolver, max_ranks, self.job_ids)

    def may_lack(self, name: str, environ: Environ) -> bool | None:
        """Tell whether the launcher may leave a variable out of such an environment; None where either may be.

        By default as the table says. A contract that says it anew finds rows that are required by mistake, or are not.
        """
        rows = self.resolver.rows() if isinstance(self.resolver, Resolver) else ()
        read = [(row, item) for _, row in rows for item in row.inputs() if name in item.names]
        if not read or len({item.names for _, item in read}) > 1:
            return None
        return not any(is_required(row, environ) and is_required(item, environ) for row, item in read)

    def test_it_answers_without_any_effect(self) -> None:
        """No file is read, no socket opened, no process started, no variable set; neither torch nor MPI is imported."""

        def law(environ: Environ, layout: Layout) -> None:
            for deed in (lambda: self.resolver.resolve(environ), lambda: drawn.started(self.resolver, layout, 0)):
                with effects() as found:
                    failure = _failure(deed)
                if found:
                    raise self._broken(f"answers come from the environment alone, without {found[0]}", environ)
                if failure is not None:
                    raise failure

        self._holds(law, drawn.environs(self.resolver, self.launches()), self.launches())

    def test_it_answers_the_same_each_time(self) -> None:
        """The answer depends on the environment handed in alone: not on the process's own, on order or on time."""

        def law(environ: Environ, other: Environ) -> None:
            answer = self._ask(environ)
            with process_environment(other):
                again = self._ask(Environ(dict(reversed([*environ.variables.items()])), environ.argv))
            if plain(again) != plain(answer):
                told = f"one environment got two answers, {described(answer)} and {described(again)}"
                raise self._broken(f"{told}: read nothing but the Environ handed in, and keep nothing", environ)

        environs = drawn.environs(self.resolver, self.launches())
        self._holds(law, environs, environs)

    def test_what_the_launcher_would_set_is_read_as_meant(self) -> None:
        """For each process of each launch, resolve(emulate(spec)) says what was meant, in every field but the rank."""

        def law(started: Started) -> None:
            spec, whole = self._claimed(started), started.spec
            for name in SAID[1:]:
                meant, read = getattr(whole, name), getattr(spec, name)
                if meant is not None and read != meant and (read is not None or name in self._fields()):
                    raise self._broken(f"{name} {meant!r} is read as {read!r} for {whole}", started.environ)

        self._holds(law, drawn.processes(self.resolver, self.launches(4096)))

    def test_each_process_is_read_as_its_own_rank(self) -> None:
        """The processes of a launch are read as rank 0 to the world size less 1, each as the one that was meant."""

        def law(layout: Layout) -> None:
            for rank in range(layout.world_size):
                started = drawn.started(self.resolver, layout, rank)
                read = self._claimed(started).rank
                if read != rank:
                    other = f", which is another process of {layout.world_size}" if read < layout.world_size else ""
                    raise self._broken(f"rank {rank} is read as rank {read}{other}", started.environ)

        self._holds(law, self.launches())

    def test_all_ranks_of_a_launch_agree(self) -> None:
        """What the processes of a launch have in common is read alike by all of them, or by none."""

        def law(layout: Layout) -> None:
            first = self._claimed(drawn.started(self.resolver, layout, 0))
            for rank in range(1, layout.world_size):
                started = drawn.started(self.resolver, layout, rank)
                spec = self._claimed(started)
                for name in ("world_size", "num_nodes", "host", "port", "agent_store", "backend", "job_id"):
                    one, other = getattr(first, name), getattr(spec, name)
                    if one != other:
                        told = f"{name} is {one!r} for rank 0 and {other!r} for rank {rank}"
                        raise self._broken(f"{told}: ranks that disagree never meet", started.environ)

        self._holds(law, self.launches())

    def test_a_garbled_variable_is_named(self) -> None:
        """A variable with a text that its launcher never puts there is named in an error, or changes nothing."""

        def law(started: Started) -> None:
            whole = self._claimed(started)
            for name in drawn.names(started.environ):
                for text in drawn.texts(self.resolver, name):
                    damaged = Damaged(started, name, text)
                    answer = self._after(damaged)
                    if isinstance(answer, DistSpec):
                        self._same(whole, answer, damaged, less=False)
                    elif repr(text) not in str(answer):
                        told = f"{name} is {text!r}, and the error does not show it: {answer}"
                        raise self._broken(told, damaged.environ)

        self._holds(law, drawn.processes(self.resolver, self.launches()))

    def test_a_lost_variable_makes_nobody_else_of_the_process(self) -> None:
        """With any one variable lost, the process is still the same one, or an error names the variable."""

        def law(started: Started) -> None:
            whole = self._claimed(started)
            for name in drawn.names(started.environ):
                damaged, absent = Damaged(started, name, None), self.may_lack(name, started.environ)
                answer = self._after(damaged)
                if isinstance(answer, ColossalaiEnvError):
                    if absent:
                        raise self._broken(f"{name} may be absent, and it is missed: {answer}", damaged.environ)
                    continue
                if answer.resolver == SingleProcess.name and self.resolver.layer is Layer.ARGUMENTS:
                    continue  # options are everybody's: fewer than all of them may be another program's
                self._same(whole, answer, damaged, less=absent is not False)

        self._holds(law, drawn.processes(self.resolver, self.launches()))

    def _after(self, damaged: Damaged) -> DistSpec | ColossalaiEnvError:
        """Ask about a damaged environment; an error must name the variable."""
        answer = examine(damaged.environ, {}, among=[self.resolver]).outcome
        if isinstance(answer, ColossalaiEnvError) and damaged.name not in str(answer):
            raise self._broken(f"an error does not name {damaged.name}, which is to blame: {answer}", damaged.environ)
        return answer

    def _same(self, whole: DistSpec, answer: DistSpec, damaged: Damaged, *, less: bool) -> None:
        """Hold the answer to a damaged environment against that to the whole one; it may say `less` where allowed."""
        lost = damaged.text is None
        alone = whole.world_size == answer.world_size == 1  # a process alone meets nobody
        for name in (*PLACE[: -2 if alone else None], *(["job_id"] if lost and not less and not alone else [])):
            meant, read = getattr(whole, name), getattr(answer, name)
            ruled = name in {"host", "port"} and answer.sources.get(name, "").startswith("rule:")
            if meant not in {None, read} and not ruled and not (less and read is None):
                told = f"{damaged.name} is {'lost' if lost else repr(damaged.text)}"
                told = f"{told}, and {name} is read as {read!r} instead of {meant!r}, by {answer.resolver}"
                raise self._broken(f"{told}: expected an error that names the variable", damaged.environ)

    def test_other_launchers_variables_change_nothing(self) -> None:
        """What other launchers leave in the environment changes neither the resolver's answer nor who wins.

        The launcher around may say that arguments and variables set by hand contradict it; to the latter it lends its
        id.
        """
        foreign, outer = [*drawn.foreign(self.resolver)], [*drawn.outer(self.resolver)]

        def answer(damaged: Damaged, whole: bool, left: Environ) -> None:
            own = damaged.started.environ if whole else damaged.environ
            both = drawn.around(own, left, damaged.started.environ)
            one, other = self._ask(own), self._ask(both)
            if plain(one) != plain(other):
                told = f"another launcher's variables make {described(other)} of {described(one)}"
                raise self._broken(f"{told}: read one launcher's variables alone", both)

        def winner(started: Started, left: Environ) -> None:
            both = drawn.around(started.environ, left, started.environ)
            one, other = self._among(started.environ), self._among(both)
            by_hand = set_by_hand(self.resolver, started.environ)
            if isinstance(other, ConflictingResolvers) and (by_hand or self.resolver.layer is Layer.ARGUMENTS):
                return  # which names both
            if by_hand:
                other = without_id(other) if isinstance(one, DistSpec) and one.job_id is None else other
            if plain(one) != plain(other):
                told = f"inside of another launcher the process is {other}, and {one} without it"
                raise self._broken(f"{told}: {self.resolver.layer.name} may be the wrong layer", both)

        lost = drawn.lost(self.resolver, self.launches())
        if foreign:
            self._holds(answer, lost, st.booleans(), drawn.remains(foreign))
        if outer:
            self._holds(winner, drawn.processes(self.resolver, self.launches()), drawn.remains(outer))

    def test_every_value_names_its_source(self) -> None:
        """Each value of an answer says which variables that are there, or which rule, it came from."""

        def law(started: Started) -> None:
            spec = self._claimed(started)
            for name in SAID:
                value, source = getattr(spec, name), spec.sources.get(name)
                if name == "agent_store" and not value:
                    continue
                if (value is None) != (source is None):
                    told = f"{name} is {value!r}, and sources has {'no' if source is None else 'an'} entry for it"
                    raise self._broken(told, started.environ)
                words = re.split(r"[\s,()]+", source or "rule:")
                if not (words[0] == "rule:" or set(words) & set(drawn.names(started.environ))):
                    told = f"{name} is said to come from {source!r}, which names no variable that is set"
                    raise self._broken(told, started.environ)

        self._holds(law, drawn.processes(self.resolver, self.launches()))

    def test_it_is_documented(self) -> None:
        """It has a name that can be typed, a text on where its facts come from, and a sentence on its marks."""
        name = self.resolver.name
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
            raise self._broken(f"the name {name!r} cannot be listed in a variable: use a-z, 0-9 and dashes")
        if isinstance(self.resolver, Resolver):
            doc, marks = self.resolver.doc, self.resolver.present.__doc__
        else:
            doc = marks = type(self.resolver).__doc__
        if not (doc or "").strip():
            raise self._broken("doc is empty: say there where the facts of the table come from")
        if not (marks or "").strip():
            raise self._broken("the function `present` has no docstring: say there how the launcher is recognised")

    def test_it_is_quick(self) -> None:
        """An answer takes little of a processor, however large the launch."""

        def law(started: Started) -> None:
            used = min(_cpu_seconds(lambda: self._ask(started.environ)) for _ in range(3))
            if used > SECONDS:
                told = f"an answer to a launch of {started.layout.world_size} takes {used:.3f} s of a processor"
                raise self._broken(f"{told}, expected less than {SECONDS} s", started.environ)

        self._holds(law, drawn.processes(self.resolver, self.launches(4096)))

    def _holds(self, law: Callable[..., None], *strategies: st.SearchStrategy[Any]) -> None:
        """Try examples until one breaks the law, and find the smallest."""
        slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
        checks = [*slow, HealthCheck.filter_too_much]
        phases = [phase for phase in settings().phases if phase is not Phase.explain]
        options = settings(phases=phases, deadline=None, report_multiple_bugs=False, suppress_health_check=checks)
        try:
            options(given(*strategies)(law))()
        except Unsatisfiable:
            raise self._broken(self._refusal()) from None

    def _refusal(self) -> str:
        """Say why no launch can be emulated."""
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
            raise self._broken(f"{told}: expected NotMine, Unusable or Claim", environ) from error

    def _claimed(self, started: Started) -> DistSpec:
        answer = self._ask(started.environ)
        if not isinstance(answer, Claim):
            raise self._broken(f"{described(answer)} was the answer to {started.spec}", started.environ)
        return answer.spec

    def _fields(self) -> frozenset[str]:
        """Return the fields of a table's rows; another resolver says what it says."""
        rows = self.resolver.rows() if isinstance(self.resolver, Resolver) else ()
        return frozenset(name for name, _ in rows)

    def _among(self, environ: Environ) -> DistSpec | ColossalaiEnvError:
        return examine(environ, {}, among=[self.resolver, *drawn.others(self.resolver)]).outcome


def _failure(deed: Callable[[], object]) -> BaseException | None:
    try:
        deed()
    except Exception as error:  # noqa: BLE001 - raised again when no effect explains it
        return error
    return None


def _cpu_seconds(deed: Callable[[], object]) -> float:
    began = time.thread_time()
    deed()
    return time.thread_time() - began
