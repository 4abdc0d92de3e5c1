"""Whether what the innermost launcher says can be meant beside what the launcher outside of it says; pure."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from .errors import ConflictingResolvers, listed
from .resolver import Layer
from .spec import DistSpec


class Kind(Enum):
    """Who says rank and world size."""

    ARGUMENTS = "arguments"
    """The caller, or the command line."""
    BY_HAND = "variables set by hand"
    """Variables that a script, a container or a person set; by mistake once for all processes."""
    WORKERS = "a launcher of workers"
    """A launcher such as torchrun: the one outside starts its agents, one for each of its own processes."""
    OTHERS = "any other launcher"
    """A launcher with daemons of its own: what stands outside describes these."""


class Beside(Enum):
    """How many processes the inner one counts beside the outer one."""

    ONE = "one, and the outer one several"
    FEWER = "several, and fewer"
    OTHER = "as many, and another rank"
    SAME = "as many, and the same rank"
    MORE = "more"


class Verdict(Enum):
    """What follows."""

    MEANT = "the inner one wins"
    DOUBTFUL = "the inner one wins, with a warning"
    REFUSED = "an error names both"


MEANT, DOUBTFUL, REFUSED = Verdict

VERDICTS: Mapping[Kind, Mapping[Beside, Verdict]] = {
    kind: dict(zip(Beside, row, strict=True))
    for kind, row in {
        Kind.ARGUMENTS: (DOUBTFUL, DOUBTFUL, MEANT, MEANT, MEANT),
        Kind.BY_HAND: (REFUSED, DOUBTFUL, REFUSED, MEANT, MEANT),
        Kind.WORKERS: (DOUBTFUL, DOUBTFUL, MEANT, MEANT, MEANT),
        Kind.OTHERS: (DOUBTFUL, MEANT, MEANT, MEANT, MEANT),
    }.items()
}
"""What follows for each kind of the inner one. Two cases are told otherwise by more than the counts.

Arguments that say one process where workers or variables set by hand say several are refused: those are this very
process's. Workers are doubtful where they have fewer agents than there are processes outside.
"""


class Claimed(NamedTuple):
    """One who says rank and world size."""

    kind: Kind
    layer: Layer
    spec: DistSpec

    @property
    def sources(self) -> tuple[str, ...]:
        """Where rank and world size come from."""
        return tuple(dict.fromkeys(self.spec.sources.get(field, field) for field in ("rank", "world_size")))

    def __str__(self) -> str:
        """Print as ``slurm says rank 2 of 4 (SLURM_PROCID, SLURM_STEP_NUM_TASKS)``."""
        who = "the arguments say" if self.kind is Kind.ARGUMENTS else f"{self.spec.resolver} says"
        return f"{who} rank {self.spec.rank} of {self.spec.world_size} ({', '.join(self.sources)})"


def kind_of(layer: Layer, *, by_hand: bool = False) -> Kind:
    """Return who speaks in a layer."""
    if layer is Layer.ARGUMENTS:
        return Kind.ARGUMENTS
    if by_hand:
        return Kind.BY_HAND
    return Kind.WORKERS if layer is Layer.WORKER else Kind.OTHERS


def beside(inner: DistSpec, outer: DistSpec) -> Beside:
    """Compare the counts, and the ranks where the counts are equal."""
    if inner.world_size == outer.world_size:
        return Beside.SAME if inner.rank == outer.rank else Beside.OTHER
    if inner.world_size > outer.world_size:
        return Beside.MORE
    return Beside.ONE if inner.world_size == 1 else Beside.FEWER


def verdict(inner: Claimed, outer: Claimed) -> Verdict:
    """Look the two up in the table."""
    relation = beside(inner.spec, outer.spec)
    if inner.kind is Kind.ARGUMENTS and relation is Beside.ONE and outer.layer is Layer.WORKER:
        return REFUSED
    if inner.kind is Kind.WORKERS and (inner.spec.num_nodes or outer.spec.world_size) < outer.spec.world_size:
        return DOUBTFUL
    return VERDICTS[inner.kind][relation]


def held_against(inner: Claimed, outer: Claimed) -> tuple[str, ...]:
    """Return a warning where either may be meant; raise `ConflictingResolvers` where the inner one cannot be."""
    found = verdict(inner, outer)
    if found is MEANT:
        return ()
    if found is REFUSED:
        raise ConflictingResolvers((str(inner), str(outer)), _remedy(inner, outer))
    count = outer.spec.world_size
    if inner.kind is Kind.WORKERS:
        agents = f" and {inner.spec.num_nodes} agent(s)" if inner.spec.num_nodes else ""
        remedy = f"start {count} agents of one rendezvous, one in each of them"
    else:
        agents, remedy = "", f"leave out {listed(inner.sources)}"
    warning = (
        f"{inner}{agents}; {outer}, around it. If each of these {count} processes does the same, they are several "
        f"worlds, this one of {inner.spec.world_size}; if one is meant, {remedy}"
    )
    return (warning,)


def _remedy(inner: Claimed, outer: Claimed) -> str:
    names, launcher = listed(inner.sources), outer.spec.resolver
    if beside(inner.spec, outer.spec) is Beside.OTHER:
        mine, theirs = inner.sources[0], outer.sources[0]
        return (
            f"{mine} seems to have been set too early, once for all processes, before {launcher} started them: set "
            f"{mine} from {theirs} in each process, or unset {names}; where it is meant, "
            f"export COLOSSALAI_ENV_RESOLVER={inner.spec.resolver}"
        )
    return (
        f"leave out {names}, or where each process is meant to be alone, export COLOSSALAI_ENV_RESOLVER=single-process"
    )


def held_against_trace(claimed: Claimed, variables: Mapping[str, str], size: int) -> tuple[str, ...]:
    """Hold a claim against what is set of a launcher inside of it, a world of some `size`; warn or raise likewise."""
    spec = claimed.spec
    if size in {1, spec.world_size}:
        return ()
    other = f"{', '.join(f'{name}={text!r}' for name, text in variables.items())} for a world of {size}"
    if spec.world_size > 1:
        return (f"{claimed}, and beside it stands {other}: {spec.resolver} is taken to be right",)
    remedy = (
        f"start the {size} processes with one launcher, or take {listed([*variables])} away; where it is left over, "
        f"export COLOSSALAI_ENV_RESOLVER={spec.resolver}"
    )
    raise ConflictingResolvers((str(claimed), f"and beside it stands {other}"), remedy)
