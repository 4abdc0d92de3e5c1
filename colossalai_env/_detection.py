"""Whether a launcher started this process, by the marker variables that it leaves."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from .environ import Environ


class NoMatch(NamedTuple):
    """The launcher did not start this process; `found` and `missing` are its marks where only some are there."""

    reason: str
    found: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


Detect: TypeAlias = Callable[[Environ], NoMatch | None]
"""Returns whether the launcher started this process: ``None`` for yes. Raises `NotLaunched` to refuse the place."""


class Marks:
    """Any of some variables, or all of them. Where none of them is set, a resolver is not even asked."""

    def __init__(self, names: tuple[str, ...], *, every: bool) -> None:
        self.names = names
        self.every = every
        self.absent = NoMatch(f"no {', '.join(names)}" if every else f"no {' or '.join(names)}")
        self.__doc__ = f"{'All' if every else 'Any'} of {', '.join(names)} {'are' if every else 'is'} set."

    def __call__(self, environ: Environ) -> NoMatch | None:
        """Look for the variables."""
        found = tuple(name for name in self.names if name in environ)
        if not found:
            return self.absent
        missing = tuple(name for name in self.names if name not in found) if self.every else ()
        return NoMatch(f"no {', '.join(missing)}", found, missing) if missing else None


def any_of(*marks: str) -> Detect:
    """Claim the process when any of these variables is set: only this launcher sets them."""
    return Marks(marks, every=False)


def all_of(*marks: str) -> Detect:
    """Claim the process when all of these variables are set: others may set some of them too."""
    return Marks(marks, every=True)
