"""The contract of every resolver: the laws that it keeps, whatever its launcher."""

import re
import time
from collections.abc import Callable

import attrs

from colossalai_env.resolver import Environ, Resolver

from . import environments as drawn
from .comparison import described, plain
from .damage import DamageLaws
from .effects import effects, process_environment
from .environments import Started
from .examples import SAID
from .layouts import Layout

SECONDS = 0.02
"""The CPU time that one answer may take; the tables of this library take less than a thousandth of a second."""


class ResolverContract(DamageLaws):
    """Every law as a test: inherit from it and name the resolver.

    ::

        class TestHouse(ResolverContract):
            resolver = HOUSE

    A law that is broken fails with one sentence and the smallest environment that shows it. How many
    examples each law tries is hypothesis' own setting, ``max_examples`` of the loaded profile.
    """

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
                needed = name in self._fields() and not self._may_leave_out(name, started)
                if meant is not None and read != meant and (read is not None or needed):
                    raise self._broken(f"{name} {meant!r} is read as {read!r} for {whole}", started.environ)

        self._holds(law, drawn.processes(self.resolver, self.launches(4096)))

    def test_each_process_is_read_as_its_own_rank(self) -> None:
        """The processes of a launch are read as rank 0 to the world size less 1, each as the one that was meant."""
        sizes = set[int]()

        def law(layout: Layout) -> None:
            for rank in range(layout.world_size):
                started = drawn.started(self.resolver, layout, rank)
                sizes.add(layout.world_size)
                read = self._claimed(started).rank
                if read != rank:
                    other = f", which is another process of {layout.world_size}" if read < layout.world_size else ""
                    raise self._broken(f"rank {rank} is read as rank {read}{other}", started.environ)

        self._holds(law, self.launches())
        if sizes == {1}:
            raise self._broken("emulate() refuses all launches of several processes that are tried")

    def test_all_ranks_of_a_launch_agree(self) -> None:
        """What the processes of a launch have in common is read alike by all of them, or by none.

        Rank 0 alone need not be told its own host, where its row says so or the table has a way to ask.
        """

        def law(layout: Layout) -> None:
            first = self._claimed(drawn.started(self.resolver, layout, 0))
            for rank in range(1, layout.world_size):
                started = drawn.started(self.resolver, layout, rank)
                spec = self._claimed(started)
                if first.host is None and self._knows_itself(0):
                    first = attrs.evolve(first, host=spec.host)
                for name in ("world_size", "num_nodes", "host", "port", "agent_store", "backend", "job_id"):
                    one, other = getattr(first, name), getattr(spec, name)
                    if one != other:
                        told = f"{name} is {one!r} for rank 0 and {other!r} for rank {rank}"
                        known = ", and only_others=True is missing in its row" if name == "host" and one is None else ""
                        raise self._broken(f"{told}: ranks that disagree never meet{known}", started.environ)

        self._holds(law, self.launches())

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
            doc, marks = self.resolver.doc, self.resolver.detect.__doc__
        else:
            doc = marks = type(self.resolver).__doc__
        if not (doc or "").strip():
            raise self._broken("doc is empty: say there where the facts of the table come from")
        if not (marks or "").strip():
            raise self._broken("the function `detect` has no docstring: say there how the launcher is recognised")

    def test_it_is_quick(self) -> None:
        """An answer takes little of a processor, however large the launch."""

        def law(started: Started) -> None:
            used = min(_cpu_seconds(lambda: self._ask(started.environ)) for _ in range(3))
            if used > SECONDS:
                told = f"an answer to a launch of {started.layout.world_size} takes {used:.3f} s of a processor"
                raise self._broken(f"{told}, expected less than {SECONDS} s", started.environ)

        self._holds(law, drawn.processes(self.resolver, self.launches(4096)))


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
