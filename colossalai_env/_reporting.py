"""While a rank joins: its own failures and interrupts are reported to the others, by the phase that it has reached."""

from collections.abc import Generator
from contextlib import contextmanager

import attrs

from ._rendezvous.adopted import Adopting
from ._rendezvous.entered import Entered
from ._rendezvous.formed import Gathered
from ._rendezvous.protocol.report import RankReport
from ._rendezvous.rendezvous import Contender, Guest, Host
from ._signals import interruptible
from .errors import ColossalaiEnvError


@attrs.define
class Joining:
    """How far this rank has come, and what it would report if it failed now."""

    phase: Host | Contender | Guest | Adopting | Entered | Gathered
    report: RankReport

    def close(self) -> None:
        """Let go of what the phase holds."""
        self.phase.close()


@contextmanager
def failures_reported(
    joining: Joining,
    kind: type[ColossalaiEnvError] = ColossalaiEnvError,
    *,
    brief: bool = False,
) -> Generator[None]:
    """Report an error of this rank's own to the others; for a moment where the time is over."""
    try:
        yield
    except kind as failure:
        report = attrs.evolve(joining.report, error=str(failure))
        joining.phase.interrupt(report) if brief else joining.phase.fail(report)
        raise


@contextmanager
def interrupts_reported(joining: Joining) -> Generator[None]:
    """Report to the others, once, that this rank is interrupted."""
    reported: list[str] = []

    def tell(reason: str) -> None:
        if not reported:
            reported.append(reason)
            joining.phase.interrupt(attrs.evolve(joining.report, error=reason))

    try:
        with interruptible(tell):
            yield
    except ColossalaiEnvError:
        raise  # reported already
    except BaseException as stop:
        tell(f"left by {type(stop).__name__}: {stop}")
        raise
