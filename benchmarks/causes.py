"""How long until every rank of a launch that goes wrong has been told why and has ended, beside plain torch."""

import statistics
from collections.abc import Callable, Iterator

from benchmarks.drawing import curves
from benchmarks.measure import Figure, Finding, Picture, ratio
from tests.faults.faults import FAULTS
from tests.faults.model import Fault
from tests.faults.report import LIBRARIES, lasted, mixed
from tests.faults.runner import Record, players
from tests.faults.verdict import cause_told

QUESTION = "cause known"
CAP = 20.0
"""Seconds after which a launch that still hangs is ended, and counts as so long; torch's own timeout is 30 minutes."""

AT_ONCE = 3
SECONDS = (0.5, 1, 2, 4, 6, 8, 12, CAP)

OURS, PLAIN = "colossalai_env", "torch"


def measure(pairs: int) -> Iterator[Finding]:
    """Play each fault that ends with an error once with either library: the faults are many, the pairs one."""
    del pairs
    faults = [fault for fault in FAULTS if fault.plain is None and _fails(fault)]
    with players(AT_ONCE) as play:
        futures = {library: [play(fault, library, CAP) for fault in faults] for library in (OURS, PLAIN)}
        records = {library: [future.result() for future in played] for library, played in futures.items()}
    case = f"{len(faults)} launches that go wrong, timeout mostly 4 s"
    took = {library: list(map(_seconds, played)) for library, played in records.items()}
    told = {library: [at for at in map(cause_told, played) if at is not None] for library, played in records.items()}

    def figure(what: str, found: Callable[[str], float], unit: str = "", **goal: float) -> Figure:
        return Figure(QUESTION, case, what, found(OURS), unit, beside={LIBRARIES[PLAIN]: found(PLAIN)}, **goal)

    yield figure("launches whose cause some rank tells", lambda of: len(told[of]), least=len(faults))
    yield figure("until a rank tells the cause, where one does, median", lambda of: statistics.median(told[of]), "s")
    yield figure("until the last rank has ended, median", lambda of: statistics.median(took[of]), "s")
    relative = ratio(took[OURS], took[PLAIN])
    yield Figure(QUESTION, case, "until the last rank has ended, ratio to plain torch", relative, "x", most=1)
    yield figure(f"launches in which a rank hung for {CAP:.0f} s", lambda of: took[of].count(CAP), most=0)
    yield figure(
        "launches in which ranks of two jobs formed one group", lambda of: sum(map(mixed, records[of])), most=0
    )
    drawn = {
        LIBRARIES[library]: [(at, float(sum(one <= at and one < CAP for one in seconds))) for at in SECONDS]
        for library, seconds in took.items()
    }
    title = f"{len(faults)} launches that go wrong"
    yield Picture("causes", title, curves(title, "seconds", "launches whose last rank has ended", drawn))


def _fails(fault: Fault) -> bool:
    """Tell whether some rank has to raise an error."""
    return any(say.words and not say.maybe for say in fault.says)


def _seconds(record: Record) -> float:
    seconds = lasted(record)
    return CAP if seconds is None else min(CAP, seconds)
