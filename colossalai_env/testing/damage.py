"""The laws of variables that are garbled, lost, or another launcher's."""

from hypothesis import strategies as st

from colossalai_env import ColossalaiEnvError, DistSpec
from colossalai_env._candidates import SingleProcess
from colossalai_env._resolution import examine, set_by_hand
from colossalai_env.errors import ConflictingResolvers
from colossalai_env.resolver import Environ, Layer
from colossalai_env.spec import Origin

from . import environments as drawn
from .comparison import described, plain, without_id
from .environments import Damaged, Started
from .examples import PLACE, Examples


class DamageLaws(Examples):
    """What a resolver answers where not all is as its launcher sets it."""

    def test_a_garbled_variable_is_named(self) -> None:
        """A variable with a text that its launcher never puts there is named in an error, or changes nothing."""

        def law(started: Started) -> None:
            whole = self._claimed(started)
            for name in drawn.names(started.environ):
                for text in drawn.texts(self.resolver, name, started.environ):
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
        alone = whole.world_size == answer.world_size == 1  # a single process meets no other
        for name in (*PLACE[: -2 if alone else None], *(["job_id"] if lost and not less and not alone else [])):
            meant, read = getattr(whole, name), getattr(answer, name)
            ruled = name in {"host", "port"} and answer.origin(name) is Origin.RULE
            own = lost and name == "host" and read is None and self._knows_itself(damaged.started.rank)
            if own:
                continue
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
