"""What each process reports of itself in the roll call, how it is written and read, and how processes are named."""

import gc
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from colossalai_env._version import VERSION as LIBRARY
from colossalai_env.errors import ranges

from .requests import VERSION

UNKNOWN: Mapping[str, Any] = {"boot": "", "backend": "", "torch": "", "resolver": ""}
"""What stands in a report for what a process cannot report."""

SOME = 4
"""How many processes are named in full."""

Runs = tuple[tuple[int, int], ...]
"""Ranks as runs: the first and the last of each."""


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@attrs.frozen(kw_only=True)
class RankReport:
    """What one process reports of itself; about 300 bytes as JSON.

    Rank, host, pid, protocol, library and error are in every version of the protocol; the rest belongs to this one.
    """

    rank: int
    world_size: int
    host: str
    boot: str
    pid: int
    backend: str
    torch: str
    resolver: str
    protocol: int = VERSION
    library: str = LIBRARY
    local_rank: int | None = None
    local_world_size: int | None = None
    node_rank: int | None = None
    num_nodes: int | None = None
    kind: str = "cpu"
    """What it computes on, by torch's name."""
    visible: int = 0
    """How many devices of that kind it sees."""
    devices: tuple[str, ...] = attrs.field(default=(), converter=_listed)
    """What tells each of these from all others of any node; empty where nothing does."""
    index: int | None = None
    """The one of them that it takes, where that is settled before the roll call."""
    shares: bool = False
    """Whether its backend can share a device with another rank."""
    choice: str = ""
    """The variables that choose among the devices of its machine, as they are set."""
    address: str | None = None
    """By which it reached the store; None where that was loopback."""
    given: str = ""
    """Rank 0's place and what gives it, where a person or script did and the launcher would lead elsewhere."""
    error: str | None = None
    gave_up: bool = False
    """Whether the error is that its time was over, while it waited for others."""

    @classmethod
    def of_error(cls, rank: int | None, host: str, pid: int, error: str, world_size: int = 1) -> "RankReport":
        """Return the report of a process that ends before it knows more of itself than this."""
        return cls(rank=-1 if rank is None else rank, world_size=world_size, host=host, pid=pid, error=error, **UNKNOWN)

    def line(self) -> str:
        """Return one line of JSON; what is as it is by default is left out, but for the versions."""
        said = {
            field.name: getattr(self, field.name)
            for field in attrs.fields(RankReport)
            if getattr(self, field.name) != field.default or field.name in VERSIONS
        }
        return json.dumps(said, separators=(",", ":")) + "\n"

    def __str__(self) -> str:
        """Name the process: ``rank 3 (pid 4711 on gpu-a02)``."""
        return f"rank {self.rank} ({self.process})" if self.rank >= 0 else f"a process ({self.process})"

    @property
    def process(self) -> str:
        """Name pid and host."""
        return f"pid {self.pid} on {self.host}"

    def device(self, index: int | None) -> str:
        """Name the device of this number among those that it sees."""
        if index is None:
            return "cpu"
        return self.devices[index] if self.devices else f"{self.kind}:{index}"

    @property
    def sight(self) -> str:
        """Describe the devices that it sees: ``sees 2 cuda device(s) (CUDA_VISIBLE_DEVICES is '0,1')``."""
        found = f"{self.visible} {self.kind} device(s)" if self.visible else "no accelerator"
        return f"sees {found}" + (f" ({self.choice})" if self.choice else "")

    @property
    def incomplete(self) -> bool:
        """Whether rank 0 has to find out a number of this rank's, or its device."""
        numbers = (self.local_rank, self.local_world_size, self.node_rank, self.num_nodes)
        return None in numbers or (self.index is None and self.visible > 0)

    @property
    def node(self) -> tuple[str, str]:
        """Distinguish nodes: two machines may have one name, two containers may share one machine."""
        return self.host, self.boot


VERSIONS = frozenset({"protocol", "library"})

AT_ONCE = 256
"""Lines that are parsed as one text: in that the parser keeps the names of fields."""

NAMES = frozenset(field.name for field in attrs.fields(RankReport))


def read_reports(log: str | None) -> list[RankReport]:
    """Read a log of reports; one of another version is read as an error, as far as all versions agree."""
    lines = (log or "").splitlines()
    reports: list[RankReport] = []
    with _uncollected():
        for first in range(0, len(lines), AT_ONCE):
            reports += map(_read, json.loads(f"[{','.join(lines[first : first + AT_ONCE])}]"))
    return reports


@contextmanager
def _uncollected() -> Generator[None]:
    """Collect no garbage meanwhile: for thousands of new objects all of torch's would be looked through many times."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@attrs.define
class ReportLog:
    """The reports of a log that grows: what was read before is not read again."""

    reports: list[RankReport] = attrs.field(factory=list[RankReport])
    _length: int = 0

    def read(self, log: str | None) -> list[RankReport]:
        """Return all reports of the log as it is now."""
        self.reports += read_reports((log or "")[self._length :])
        self._length = len(log or "")
        return self.reports


def _read(said: dict[str, Any]) -> RankReport:
    if said.get("protocol") == VERSION:
        return RankReport(**(said if said.keys() <= NAMES else {name: said[name] for name in NAMES & said.keys()}))
    theirs = versions(str(said.get("library", "?")), int(said.get("protocol", 0)))
    error = f"it has {theirs}, and rank 0 has {versions()}: install one version on all nodes"
    host, pid, rank = (said.get(name, default) for name, default in (("host", "?"), ("pid", 0), ("rank", -1)))
    return RankReport.of_error(rank, host, pid, said.get("error") or error)


def versions(library: str = LIBRARY, protocol: int = VERSION) -> str:
    """Name a version of the library and of its protocol."""
    return f"colossalai-env {library}, whose roll call has version {protocol}"


def runs(ranks: Iterable[int]) -> Runs:
    """Gather ranks in runs."""
    found: list[list[int]] = []
    for rank in sorted(ranks):
        if found and found[-1][1] == rank - 1:
            found[-1][1] = rank
        else:
            found.append([rank, rank])
    return tuple((low, high) for low, high in found)


def ranges_of(ranks: Iterable[int]) -> str:
    """Write ranks as people do: ``0-3, 7, 12-13``."""
    return ranges(runs(ranks))


def named(reports: Sequence[RankReport]) -> tuple[str, ...]:
    """Name some processes in full, and of many the others by rank alone."""
    return limited([*map(str, reports)], (one.rank for one in reports[SOME:]))


def limited(names: Sequence[str], others: Iterable[int] = ()) -> tuple[str, ...]:
    """Return some names, and in one more how many others there are, with their ranks where they are given."""
    more = len(names) - SOME
    ranks = ranges_of(others)
    rest = (f"{more} more" + (f" (rank(s) {ranks})" if ranks else ""),) if more > 0 else ()
    return (*names[:SOME], *rest)
