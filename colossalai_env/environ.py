"""Environ: one frozen snapshot of environment variables and arguments, the only reader of either; and their Export.

The variables are written where a job is exported, and nowhere else.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, cast

import attr as attrs

from .errors import InvalidArgument, MalformedVariable, quoted

if TYPE_CHECKING:
    from typing_extensions import Self


def _frozen(variables: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(variables))


def _listed(argv: Iterable[str]) -> tuple[str, ...]:
    return tuple(argv)


def _counted(found: Mapping[str, str] | tuple[str, ...]) -> str:
    return f"<{len(found)}>"


@attrs.frozen
class Environ:
    """What a process was started with. A name that begins with ``--`` is looked up among the arguments.

    ``repr`` shows no values: environments hold secrets.
    """

    variables: Mapping[str, str] = attrs.field(factory=dict[str, str], converter=_frozen, repr=_counted)
    argv: tuple[str, ...] = attrs.field(default=(), converter=_listed, repr=_counted)

    @classmethod
    def snapshot(cls, env: Mapping[str, str] | None = None, argv: Sequence[str] | None = None) -> "Environ":
        """Take this process's variables and arguments, or, when either is given, those alone.

        Raises `InvalidArgument` where they are no mapping and no sequence of texts, and `MalformedVariable` where a
        variable that is given is no text.
        """
        if env is None and argv is None:
            return cls(os.environ, sys.argv[1:])
        env, argv = {} if env is None else env, () if argv is None else argv
        if not isinstance(cast("object", env), Mapping):  # what it holds may be secret
            raise InvalidArgument("argument env", f"of type {type(env).__name__}", "a mapping of names to texts")
        words = isinstance(cast("object", argv), Sequence) and not isinstance(argv, (str, bytes))
        if not words or not all(isinstance(word, str) for word in cast("Sequence[object]", argv)):
            raise InvalidArgument("argument argv", quoted(argv), "a list of texts, such as ['--rank', '3']")
        for name, value in cast("Mapping[object, object]", env).items():
            if not isinstance(name, str):
                raise InvalidArgument("argument env", f"a mapping with the name {quoted(name)}", "names that are texts")
            if not isinstance(value, str):
                raise MalformedVariable("env", name, str(value), f"a str, and found {type(value).__name__}")
        return cls(env, argv)

    def get(self, name: str) -> str | None:
        """Return the text of a variable, or of an option such as ``--rank``; ``None`` where it is not set."""
        return self._option(name) if name.startswith("--") else self.variables.get(name)

    def __contains__(self, name: str) -> bool:
        """Return whether the variable or option is set, be it to nothing."""
        return self._option(name) is not None if name.startswith("--") else name in self.variables

    def plus(self, variables: Mapping[str, str]) -> "Environ":
        """Return the same with further variables."""
        return Environ({**self.variables, **variables}, self.argv)

    def found(self, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Return the pairs of name and text of those that are set."""
        values = ((name, self.get(name)) for name in names)
        return tuple((name, value) for name, value in values if value is not None)

    def _option(self, name: str) -> str | None:
        """Find an option as argparse does: ``--a b`` or ``--a=b``, dash or underscore, the last one counts."""
        wanted, value = name.replace("_", "-"), None
        for position, argument in enumerate(self.argv):
            if argument == "--":
                break
            option, equals, text = argument.partition("=")
            if option.startswith("--") and option.replace("_", "-") == wanted:
                value = text if equals else "".join(self.argv[position + 1 : position + 2])
        return value


def value_now(name: str) -> str | None:
    """Return the text of a variable in this process's environment as it is now, without a copy of all."""
    return os.environ.get(name)


class Export:
    """Variables that are set in this process's environment, and taken back at the end of a block, or by hand.

    What the program changes meanwhile is its own, and stays.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        """Set the variables."""
        self._before = {name: os.environ.get(name) for name in variables}
        self._ours = dict(variables)
        os.environ.update(variables)

    def take_back(self) -> None:
        """Give each variable the value that it had; doing it again does nothing."""
        for name, text in self._ours.items():
            before = self._before[name]
            if os.environ.get(name) != text:
                continue
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
        self._ours.clear()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the variables back."""
        del kind, error, trace
        self.take_back()
