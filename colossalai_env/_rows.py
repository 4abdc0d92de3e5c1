"""A row of a resolver's table: the variables of one field, and how their texts become its value."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from .environ import Environ
from .spec import host_name, port_number, positive_number, whole_number

Required: TypeAlias = bool | str | Callable[[Environ], bool]
"""Whether a variable must be there: always, when another variable is set, or when a function says so."""

Reader: TypeAlias = Callable[[str], Any]
"""Turns a variable's text into a value; raises `ValueError` with what was expected."""

Writer: TypeAlias = Callable[[Any], str]
"""Turns a value into the text that a launcher sets: the way back of a `Reader`."""


def text(value: str) -> str:
    """Read any text but the empty one."""
    if not value:
        msg = "a text that is not empty"
        raise ValueError(msg)
    return value


READERS: Mapping[str, Reader] = {
    "rank": whole_number,
    "world_size": positive_number,
    "local_rank": whole_number,
    "local_world_size": positive_number,
    "node_rank": whole_number,
    "num_nodes": positive_number,
    "accelerators": whole_number,
    "main_node": whole_number,
    "host": host_name,
    "port": port_number,
}


class Var(NamedTuple):
    """The row of a field that one variable holds; see `var`."""

    names: tuple[str, ...]
    required: Required
    read: Reader | None
    only_others: bool = False
    write: Writer = str

    def inputs(self) -> tuple["Var", ...]:
        """Return the variables that this row reads."""
        return (self,)


class Derived(NamedTuple):
    """The row of a field that is computed from several variables; see `derive`."""

    function: Callable[..., Any]
    variables: tuple[Var, ...]
    required: Required

    def inputs(self) -> tuple[Var, ...]:
        """Return the variables that this row reads."""
        return self.variables


class Either(NamedTuple):
    """The row of a field that launches of one launcher say in several ways; see `either`."""

    rows: tuple[Var | Derived, ...]

    def required(self, environ: Environ) -> bool:
        """Return whether the variables of any of its rows must be there."""
        return any(is_required(row, environ) for row in self.rows)

    def inputs(self) -> tuple[Var, ...]:
        """Return the variables that this row reads."""
        return tuple(item for row in self.rows for item in row.inputs())


Row: TypeAlias = Var | Derived | Either


def var(
    *names: str,
    required: Required = True,
    read: Reader | None = None,
    write: Writer = str,
    only_others: bool = False,
) -> Var:
    """Take a field from the first of these variables that is set; ``--name`` is an option.

    `required` is True where the launcher always sets it, False where it may be absent, a
    variable's name where it must be there when that variable is, or a function of the `Environ`.
    `read` turns the text into the value and raises `ValueError` with what was expected; each field
    has its own by default. `write` is its way back, for `emulate`, where the text is not the value as
    Python prints it. With `only_others` it leads to rank 0's host, and all ranks are told it but rank 0 itself.
    """
    return Var(names, required, read, only_others, write)


def derive(function: Callable[..., Any], *variables: str | Var, required: Required = True) -> Derived:
    """Compute a field by a pure function of the values of variables; ``None`` means "unknown".

    A name alone is a required text. The function raises `ValueError` with a sentence where its
    values contradict each other.
    """
    rows = tuple(item if isinstance(item, Var) else var(item) for item in variables)
    return Derived(function, rows, required)


ONE_A_NODE = "one process a node"
"""Why a process is local rank 0 of 1 where a launcher's numbers count nodes."""


def always(value: object, why: str = "") -> Derived:
    """Give a field one value whatever the variables say; `why`, in words, is shown as its source."""

    def constant() -> object:
        return value

    constant.__name__ = why or f"always {value}"
    return Derived(constant, (), required=True)


def either(*rows: Var | Derived) -> Either:
    """Take a field from the first of these rows that says it, in order of trust; those after it are not read."""
    return Either(rows)


def is_required(row: Row, environ: Environ) -> bool:
    """Return whether a row's variables must be there."""
    if callable(row.required):
        return row.required(environ)
    return row.required in environ if isinstance(row.required, str) else row.required


def names_of(row: Row) -> list[str]:
    """Return the variables that a row reads."""
    return [name for item in row.inputs() for name in item.names]
