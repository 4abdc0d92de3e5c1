"""All that an author of a resolver imports: a launcher's dialect as a table, and how the table is read and written."""

from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import attr as attrs

from ._detection import Detect, Marks, NoMatch, all_of, any_of
from ._hookspecs import hookimpl
from ._reading import Reading
from ._rows import ONE_A_NODE, Derived, Row, Var, always, derive, either, is_required, names_of, var
from .environ import Environ
from .errors import (
    ColossalaiEnvError,
    InvalidSpec,
    MissingVariable,
    NotAsked,
)
from .spec import FIELDS, DistSpec, Origin, Source, host_name, port_number, positive_number, whole_number

if TYPE_CHECKING:
    from ._addresses import own_address

__all__ = [
    "Answer",
    "Claim",
    "Detect",
    "Directory",
    "DistSpec",
    "Environ",
    "HostAnswer",
    "HostQuery",
    "Invalid",
    "Layer",
    "NoMatch",
    "Origin",
    "Resolver",
    "ResolverProtocol",
    "Source",
    "all_of",
    "always",
    "any_of",
    "derive",
    "either",
    "hookimpl",
    "host_name",
    "own_address",
    "port_number",
    "positive_number",
    "var",
    "whole_number",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - each name has its own type
        if name != "own_address":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ._addresses import own_address

        return own_address


class Layer(IntEnum):
    """How near a launcher stands to the process; the nearest one that claims it is right."""

    ARGUMENTS = 1
    """The command line of the process itself."""
    WORKER = 2
    """torchrun and the variables of ``env://``."""
    MPI = 3
    """mpirun, mpiexec and their kin."""
    STEP = 4
    """A scheduler's step, such as srun's."""
    PLATFORM = 5
    """Kubernetes, SageMaker and other platforms that start containers."""
    ALONE = 6
    """None: a process started by hand."""


class Invalid(NamedTuple):
    """The launcher started this process, but what it left is incomplete, malformed or no world."""

    error: ColossalaiEnvError


class Claim(NamedTuple):
    """The launcher started this process, and this is who it is."""

    spec: DistSpec


class HostAnswer(NamedTuple):
    """What a launcher said when it was asked for rank 0."""

    host: str
    """A name or address at which the other ranks reach rank 0."""
    source: str
    """What was asked, shown as the field's source."""
    job_id: str | None = None
    """The launch's own token, where the variables have none."""


class Directory(NamedTuple):
    """Where the ranks ask for rank 0 when nothing says its host: a process of the launch that every rank can name."""

    host: str
    """The host on which that process runs."""
    serves: bool
    """Whether it is this process."""


class HostQuery(NamedTuple):
    """One way to ask a launcher for rank 0's host."""

    name: str
    ask: Callable[[DistSpec, Environ, float], HostAnswer | str | None]
    """Takes spec, environment and the seconds that are left.

    Returns the reason in words, for the error, or ``None`` where it does not apply. A way through which the ranks wait
    for each other must apply alike on all of them. Raises `CannotLocate`.
    """


Answer: TypeAlias = NoMatch | Invalid | Claim


@runtime_checkable
class ResolverProtocol(Protocol):
    """What the registry asks of a resolver; `Resolver` fulfils it from a table."""

    @property
    def name(self) -> str:
        """The name by which it is chosen and shown."""
        ...

    @property
    def layer(self) -> Layer:
        """How near its launcher stands to the process."""
        ...

    def resolve(self, environ: Environ) -> Answer:
        """Answer from `environ` alone: no other input, no output."""
        ...

    def emulate(self, spec: DistSpec) -> Environ:
        """Return what the launcher would have set for the process that `spec` describes."""
        ...


def _detect(marks: "str | Detect") -> Detect:
    return any_of(marks) if isinstance(marks, str) else marks


def _nothing(spec: DistSpec) -> Mapping[str, str]:
    del spec
    return {}


def _nothing_amiss(environ: Environ) -> NoMatch | None:
    del environ
    return None


def _never(environ: Environ) -> bool:
    del environ
    return False


def _nothing_else(environ: Environ) -> str | None:
    del environ
    return None


def _no_end(environ: Environ) -> float | None:
    del environ
    return None


@attrs.frozen(kw_only=True, eq=False)
class Resolver:
    """A launcher's dialect: one row per field of `DistSpec`, the marks that tell it, and its layer.

    It answers all or nothing, from the rows of its own table.
    """

    name: str
    layer: Layer
    detect: Detect = attrs.field(converter=_detect)
    """A variable that only this launcher sets, `any_of`, `all_of`, or a function of the `Environ`."""
    exclude: Detect = _nothing_amiss
    """Looks closer where `detect` finds the launcher: raises `NotLaunched` where to wait for others is to wait forever.

    It returns `NoMatch` where the process is a single one after all, or another launcher's.
    """
    rank: Row
    world_size: Row
    local_rank: Row | None = None
    local_world_size: Row | None = None
    node_rank: Row | None = None
    num_nodes: Row | None = None
    host: Row | None = None
    port: Row | None = None
    agent_store: Row | None = None
    backend: Row | None = None
    job_id: Row | None = None
    counts_nodes: bool = False
    """Whether rank and world size count nodes, on each of which the launcher starts one process.

    Each is local rank 0 of 1 on a node of its own, as far as rows do not say otherwise. On several nodes with several
    accelerators each it is refused with torchrun's line: by the row `accelerators`, or else when the ranks meet.
    """
    main_node: Row | None = None
    """The number of the node that is rank 0, where a launcher that counts nodes does not always take the first one.

    The other nodes follow in the order of their numbers, which the row `rank` reads; its host is the main node's.
    """
    accelerators: Row | None = None
    """How many accelerators a node has, where a launcher that counts nodes says it."""
    emulated: Callable[[DistSpec], Mapping[str, str]] = _nothing
    """What the launcher sets besides the plain rows: the variables of derived rows, and its marks.

    It raises `InvalidSpec`, with the problem in words, for a process that the launcher never starts.
    """
    by_hand: Callable[[Environ], bool] = _never
    """Whether people or scripts set these variables: a launcher around the process may then prove them wrong."""
    host_advice: Callable[[Environ], str | None] = _nothing_else
    """Returns in an error how rank 0's address is given where exporting MASTER_ADDR is of no use; None where it is."""
    complete: Callable[[Environ, float], Mapping[str, str] | str] | None = None
    """Asks the launcher, within the seconds, for what no variable says; returns it under names that rows read.

    `init_from_env` asks where the world size is missing; `resolve` asks nobody and raises `NotAsked`. A text says why
    there is no answer.
    """
    locate: tuple[HostQuery, ...] = ()
    """Ways to ask the launcher for rank 0's host where its variables do not say, in order."""
    directory: Callable[[DistSpec, Environ], Directory | None] | None = None
    """Names the process that the others ask for rank 0's host, where the variables do not say it or may be wrong on it.

    ``None`` where there is no doubt; alike on all ranks.
    """
    job_end: Callable[[Environ], float | None] = _no_end
    """Returns when the launcher ends the job, in seconds since 1970, where its variables say it, for those who wait."""
    started_by: tuple[str, ...] = ()
    """Names of resolvers whose launchers start this one, and never the other way round: their claims stand outside."""
    doc: str | None = None
    """Where the facts of the table come from, for the documentation."""

    def __attrs_post_init__(self) -> None:
        """Fill in what follows from counting nodes."""
        if not self.counts_nodes and (self.main_node is not None or self.accelerators is not None):
            msg = f"{self.name}: main_node and accelerators are for launchers that count nodes: add counts_nodes=True"
            raise ValueError(msg)
        if self.counts_nodes:
            implied = {
                "local_rank": always(0, ONE_A_NODE),
                "local_world_size": always(1, ONE_A_NODE),
                "node_rank": self.rank,
                "num_nodes": self.world_size,
            }
            for field, row in implied.items():
                if getattr(self, field) is None:
                    object.__setattr__(self, field, row)

    @property
    def marks(self) -> frozenset[str] | None:
        """Variables of which one at least is set where this launcher started the process; None if that is not known."""
        return frozenset(self.detect.names) if isinstance(self.detect, Marks) else None

    @property
    def tells_others_alone(self) -> bool:
        """Whether rank 0 is not told its own host."""
        return self.host is not None and any(item.only_others for item in self.host.inputs())

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Return the fields that this launcher says, with their rows, rank first."""
        for field in FIELDS:
            row = None if field == "resolver" else getattr(self, field)
            if row is not None:
                yield field, row

    def every_row(self) -> Iterator[tuple[str, Row]]:
        """Return `rows`, and those of a launcher that counts nodes that are no field of a spec."""
        yield from self.rows()
        for name in ("main_node", "accelerators"):
            row = getattr(self, name)
            if row is not None:
                yield name, row

    def variables(self) -> tuple[str, ...]:
        """Return the names of all variables and options that the rows read."""
        return tuple(dict.fromkeys(name for _, row in self.every_row() for name in names_of(row)))

    def resolve(self, environ: Environ) -> Answer:
        """Answer from `environ` alone."""
        try:
            absent = self.detect(environ) or self.exclude(environ)
            return Claim(self._read(environ)) if absent is None else absent
        except MissingVariable as error:
            if self.complete is None or error.variable not in names_of(self.world_size):
                return Invalid(error)
            return Invalid(NotAsked(self.name, error.variable, environ.found(error.marks), error.rank))
        except ColossalaiEnvError as error:
            return Invalid(error)

    def _read(self, environ: Environ) -> DistSpec:
        """Read the table; raise `NotLaunched` for one process on each of several nodes with several accelerators."""
        reading = Reading(self, environ)
        spec = reading.spec()
        if self.accelerators is not None and spec.world_size > 1:
            from ._node_level import refuse_several

            names = [name for row in (self.rank, self.world_size, self.accelerators) for name in names_of(row)]
            refuse_several(spec, reading.value("accelerators", self.accelerators), environ, names)
        return spec

    def readable(self, environ: Environ) -> dict[str, Any]:
        """Return the fields that can be read where others cannot, so that the other ranks can be told of the error."""
        values: dict[str, Any] = {}
        reading = Reading(self, environ)
        for field, row in self.rows():
            try:
                values[field] = reading.counted(field, row)
            except ColossalaiEnvError:  # noqa: PERF203 - a table has a dozen rows
                continue
        return {field: value for field, value in values.items() if value is not None}

    def emulate(self, spec: DistSpec) -> Environ:
        """Return what the launcher would have set; raise `InvalidSpec` where it always says what `spec` does not."""
        settings = {row.names[0]: row.write(1) for row in (self.accelerators,) if isinstance(row, Var)}
        for field, row in self.rows():
            stated = getattr(spec, field)
            self._refuse_layout(spec, field, row)
            if isinstance(row, Var) and stated is not None and not (row.only_others and spec.rank == 0):
                settings[row.names[0]] = row.write(stated)
        if self.main_node is not None:
            settings.update(self._main_node_first(spec))
        settings.update(self.emulated(spec))
        environ = Environ(
            {name: value for name, value in settings.items() if not name.startswith("--")},
            [f"{name}={value}" for name, value in settings.items() if name.startswith("--")],
        )
        for field, row in self.rows():
            if getattr(spec, field) is None and row.inputs() and is_required(row, environ):
                msg = f"{field} is None, which {self.name} always says"
                raise InvalidSpec(msg, (field,))
        return environ

    def _main_node_first(self, spec: DistSpec) -> Mapping[str, str]:
        """Return the node's number, and a main node with which it has its rank."""
        node = spec.rank if spec.node_rank is None else spec.node_rank
        if spec.rank not in {0, node, node + 1}:
            msg = f"node_rank is {node} and rank {spec.rank}, and only {self.name}'s main node leaves the order"
            raise InvalidSpec(msg, ("node_rank", "rank"))
        main = node if spec.rank == 0 else 0 if spec.rank == node else node + 1
        numbers = ((self.rank, node), (self.main_node, main))
        return {row.names[0]: row.write(number) for row, number in numbers if isinstance(row, Var)}

    def _refuse_layout(self, spec: DistSpec, field: str, row: Row) -> None:
        """Raise `InvalidSpec` for a process that this launcher never starts."""
        stated = getattr(spec, field)
        if isinstance(row, Derived) and not row.variables:
            only = row.function()
        elif self.counts_nodes and field == "node_rank" and row is self.rank and self.main_node is None:
            only = spec.rank
        elif self.counts_nodes and field == "num_nodes" and row is self.world_size:
            only = spec.world_size
        else:
            return
        if stated not in {None, only}:
            msg = f"{field} is {stated}, and a process of {self.name} has {only}"
            raise InvalidSpec(msg, (field,))
