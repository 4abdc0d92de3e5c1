"""One pass over a resolver's table, which turns an environment into a spec."""

from typing import TYPE_CHECKING, Any

from ._rows import READERS, Either, Reader, Row, Var, is_required, names_of, text
from .environ import Environ
from .errors import ContradictoryVariables, InvalidSpec, MalformedVariable, MissingVariable
from .spec import DistSpec, Source, source_of

if TYPE_CHECKING:
    from .resolver import Resolver


MEETING = ("host", "port")
"""The fields that say where ranks meet."""


class Reading:
    """One pass over a table: it knows the rank as soon as that is read, for the errors of later rows."""

    def __init__(self, resolver: "Resolver", environ: Environ) -> None:
        self.resolver, self.environ = resolver, environ
        self.rank: int | None = None
        self.names: list[str] = []
        """The variables that were read for the row at hand."""
        self.rule = ""
        """The name of the function that computes the row at hand, if one does."""

    def spec(self) -> DistSpec:
        values: dict[str, Any] = {}
        sources: dict[str, Source] = {}
        counts_nodes = self.resolver.counts_nodes
        read = self.value if self.resolver.main_node is None else self.counted
        for field, row in self.resolver.rows():
            if counts_nodes and field in MEETING and values["world_size"] == 1:
                continue  # a single process meets no other, and platforms leave it no address
            value = read(field, row)
            if value is not None:
                values[field] = value
                sources[field] = source_of(tuple(self.names), self.rule)
            if field == "rank":
                self.rank = value
        try:
            return DistSpec(**values, resolver=self.resolver.name, sources=sources)
        except InvalidSpec as error:
            names = [name for field, row in self.resolver.rows() if field in error.fields for name in names_of(row)]
            raise ContradictoryVariables(
                self.resolver.name, error.problem, self.environ.found(names), self.rank
            ) from None

    def counted(self, field: str, row: Row) -> Any:  # noqa: ANN401 - a field's own type
        """Read a field of a launcher that says which node is rank 0: the others follow in their order."""
        value = self.value(field, row)
        main_node = self.resolver.main_node
        if main_node is None or field not in {"rank", "world_size"}:
            return value
        names = [*self.names]
        main = self.value("main_node", main_node)
        if main is None or field == "world_size":
            self.names, self.rule = names, ""
            if main is not None and main >= value:
                found = self.environ.found([*names_of(main_node), *names_of(row)])
                problem = f"of {value} nodes, which count from 0, none is number {main}"
                raise ContradictoryVariables(self.resolver.name, problem, found, self.rank)
            return value
        self.names[:0], self.rule = names, "main node first"
        return 0 if value == main else value + (value < main)

    def value(self, field: str, row: Row) -> Any:  # noqa: ANN401 - a field's own type
        if isinstance(row, Either):
            for item in row.rows:
                value = self.value(field, item)
                if value is not None:
                    return value
            return None
        self.names.clear()
        if isinstance(row, Var):
            self.rule = ""
            return self.read(row, READERS.get(field, text))
        self.rule = row.function.__name__
        required = is_required(row, self.environ)
        inputs = [self.read(item, text, required=required) for item in row.variables]
        if None in inputs and any(
            value is None and item.required is True for value, item in zip(inputs, row.variables, strict=True)
        ):
            return None
        try:
            return row.function(*inputs)
        except ValueError as problem:
            raise ContradictoryVariables(
                self.resolver.name, str(problem), self.environ.found(names_of(row)), self.rank
            ) from None

    def read(self, row: Var, default: Reader, *, required: bool = True) -> Any:  # noqa: ANN401 - any reader's value
        for name in row.names:
            found = self.environ.get(name)
            if found is not None:
                break
        else:
            if required and is_required(row, self.environ) and not (row.only_others and self.rank == 0):
                raise MissingVariable(self.resolver.name, row.names[0], self.marks(), self.rank)
            return None
        self.names.append(name)
        try:
            return (row.read or default)(found)
        except ValueError as expected:
            raise MalformedVariable(self.resolver.name, name, found, str(expected), self.rank) from None

    def marks(self) -> tuple[str, ...]:
        """Return what is set of the rows' variables; what only a later way to say a field reads is no mark."""
        rows = [row.rows[0] if isinstance(row, Either) else row for _, row in self.resolver.rows()]
        return tuple(dict.fromkeys(name for row in rows for name in names_of(row) if name in self.environ))
