"""What follows from all reports: what forbids the group, and how rank 0's verdict is written and read; pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from colossalai_env.errors import (
    ColossalaiEnvError,
    DuplicateRank,
    InconsistentRanks,
    LostRanks,
    MissingRanks,
    NodeLevelRanks,
    PartialEndpoint,
    RankFailed,
    SharedDevice,
)

from .placement import reported, shared_device, too_few_devices, too_high
from .report import SOME, RankReport, limited, named, runs

KINDS: dict[str, type[ColossalaiEnvError]] = {
    kind.__name__: kind
    for kind in (
        DuplicateRank,
        InconsistentRanks,
        LostRanks,
        MissingRanks,
        NodeLevelRanks,
        PartialEndpoint,
        RankFailed,
        SharedDevice,
    )
}
"""The errors that a verdict can be."""

AGREED = {
    "library": "colossalai-env version",
    "world_size": "world size",
    "backend": "backend",
    "torch": "torch version",
    "resolver": "resolver",
}
"""What all ranks must report alike, and its name for people."""

HOSTS = 8
"""How many of the hosts that were heard from are named."""


def written(failure: ColossalaiEnvError) -> str:
    """Write a verdict as it is posted: its kind and its fields."""
    kind = type(failure).__name__
    if KINDS.get(kind) is not type(failure):
        raise AssertionError(f"{kind} is no verdict")
    return json.dumps({"kind": kind, "fields": failure.values()})


def read_verdict(text: str) -> ColossalaiEnvError:
    """Read a verdict; one that this version does not know is an error too."""
    said = json.loads(text)
    kind = KINDS.get(str(said.get("kind")))
    try:
        if kind is not None:
            return kind(**{name: _frozen(value) for name, value in said["fields"].items()})
    except (KeyError, TypeError):
        pass
    return RankFailed(f"rank 0 gave a verdict that this version of colossalai-env cannot read: {text[:200]}")


def _frozen(value: Any) -> Any:  # noqa: ANN401 - what JSON can hold
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownVariableType]


def problem(reports: Sequence[RankReport], seconds: float = 0.0) -> ColossalaiEnvError | None:
    """Find what forbids the group, whoever is missing: an error, a duplicate, an inconsistency, a shared device."""
    for one in reports:
        if one.error is not None and not one.gave_up:
            return RankFailed(one.error, str(one))
    gave_up = [one for one in reports if one.gave_up]
    if gave_up and len({one.rank for one in reports}) >= reports[0].world_size:
        return no_verdict(seconds)
    if gave_up:
        return None
    return (
        _duplicate(reports)
        or _partial_endpoint(reports)
        or inconsistency(reports)
        or too_high(reports)
        or shared_device(reports)
        or too_few_devices(reports, reported(reports))
    )


def no_verdict(seconds: float) -> LostRanks:
    """Return the error of a world that is complete, and whose rank 0 has not said so in time."""
    return LostRanks(("rank 0",), f"gave no verdict within {seconds:.1f} s, though all ranks answered")


def _duplicate(reports: Sequence[RankReport]) -> DuplicateRank | None:
    holders: dict[int, RankReport] = {}
    for one in reports:
        first = holders.setdefault(one.rank, one)
        if first is not one:
            return DuplicateRank(one.rank, first.process, one.process)
    return None


def _partial_endpoint(reports: Sequence[RankReport]) -> PartialEndpoint | None:
    given = [one for one in reports if one.given]
    others = [one for one in reports if not one.given]
    if not given or not others:
        return None
    ranks = (runs(one.rank for one in ranks) for ranks in (given, others))
    return PartialEndpoint(str(given[0]), given[0].given, *ranks)


def inconsistency(reports: Sequence[RankReport]) -> InconsistentRanks | None:
    """Name the ranks that report another value than most, or than rank 0 where there is no most."""
    for field, name in AGREED.items():
        values = Counter(getattr(one, field) for one in reports)
        if len(values) < 2:
            continue
        most = values.most_common(2)
        usual = most[0][0]
        if most[0][1] == most[1][1]:
            usual = next((getattr(one, field) for one in reports if one.rank == 0), usual)
        odd = [one for one in reports if getattr(one, field) != usual]
        rest = [one for one in reports if getattr(one, field) == usual]
        by_device = field == "backend" and odd[0].kind != rest[0].kind
        show = str if by_device else repr
        return InconsistentRanks(
            name,
            tuple((str(one), show(getattr(one, field))) for one in odd[:SOME]),
            max(0, len(odd) - SOME),
            runs(one.rank for one in rest),
            show(usual),
            (*(one.sight for one in odd[:SOME]), f"{rest[0]} {rest[0].sight}") if by_device else (),
        )
    return None


def missing(
    reports: Sequence[RankReport],
    world_size: int,
    seconds: float,
    lost: Sequence[RankReport] = (),
    importing: Mapping[int, str] | None = None,
    hint: str = "",
) -> MissingRanks:
    """Name the ranks that did not come, their neighbours' hosts, and the hosts that were heard from.

    `hint` is what may keep other hosts away, for where none was heard from.
    """
    here = {one.rank: one.host for one in reports if one.rank >= 0}
    absent = [rank for rank in range(world_size) if rank not in here]
    beside = sorted({rank for gone in absent for rank in (gone - 1, gone + 1) if rank in here})
    hosts = sorted(Counter(here.values()).items())
    slow = [f"rank {rank} ({process})" for rank, process in (importing or {}).items() if rank not in here]
    return MissingRanks(
        runs(absent),
        world_size,
        seconds,
        tuple((rank, here[rank]) for rank in beside[:SOME]),
        tuple(hosts[:HOSTS]),
        max(0, len(hosts) - HOSTS),
        named(lost),
        limited(slow),
        hint if len(hosts) < 2 else "",
    )
