"""The table of what was said and when, by this library and by plain torch."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .model import Fault, Rank
from .runner import Record, Trace

LIBRARIES = {"colossalai_env": "colossalai-env", "torch": "plain torch"}


def table(faults: Iterable[Fault], records: Mapping[str, Mapping[str, Record]]) -> str:
    """Write the sums for each library and a Markdown table with a row for each fault."""
    lines: list[Sequence[str]] = [["Fault", *(LIBRARIES[library] for library in records)], ["---"] * (len(records) + 1)]
    for fault in faults:
        row = [_cell(fault.story)]
        for played in records.values():
            record = played.get(fault.name)
            told = [f"Not put to it: {fault.plain}"] if record is None else [seconds(record), *statements(record)]
            row.append("<br>".join(map(_cell, told)))
        lines.append(row)
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    sums = "".join(f"- {_sums(library, list(played.values()))}\n" for library, played in records.items())
    return f"{sums}\n{text}"


def lasted(record: Record) -> float | None:
    """Return the seconds from the last rank's start until the last rank had ended; None where one had to be ended."""
    hindered = {act.to for act in record.fault.acts if act.deed == "STOP"}
    ranks = [trace for trace in _ranks(record) if trace.process.name not in hindered]
    ends = [trace.ended for trace in ranks if trace.ended is not None]
    return max(ends) - max(trace.started for trace in ranks) if len(ends) == len(ranks) else None


def seconds(record: Record) -> str:
    """Write how long a fault lasted."""
    took = lasted(record)
    return f"> {record.cap:.0f} s" if took is None else f"{took:.1f} s"


def mixed(record: Record) -> bool:
    """Tell whether ranks of two jobs formed one group."""
    return "ranks of" in said(record)


def said(record: Record) -> str:
    """Put together what was said, each thing once, with who said it."""
    return "; ".join(statements(record))


def statements(record: Record) -> list[str]:
    """Return what was said, each thing once, with who said it."""
    heard: dict[str, list[str]] = {}
    for trace in _ranks(record):
        heard.setdefault(_outcome(trace), []).append(trace.process.name)
    return [f"{', '.join(names)}: {words}" for words, names in heard.items()]


def _ranks(record: Record) -> list[Trace]:
    return [trace for trace in record.traces.values() if isinstance(trace.process, Rank)]


def _sums(library: str, records: Sequence[Record]) -> str:
    """Count what needs no reading of messages."""
    late = sum(any(_is_late(trace) for trace in _unhindered(record)) for record in records)
    endless = sum(any(trace.ended is None for trace in _unhindered(record)) for record in records)
    strange = sum(map(mixed, records))
    cap = max((record.cap for record in records), default=0.0)
    return (
        f"{LIBRARIES[library]}, of {len(records)} faults: in {late} a rank was in init for longer than its timeout "
        f"and 2 s; in {endless} a rank had not ended when the fault was broken off, after {cap:.0f} s; "
        f"in {strange} ranks of two jobs formed one group."
    )


def _unhindered(record: Record) -> list[Trace]:
    hindered = {act.to for act in record.fault.acts if act.deed in {"KILL", "STOP"}}
    return [trace for trace in _ranks(record) if trace.process.name not in hindered]


def _is_late(trace: Trace) -> bool:
    rank = trace.process
    calls, outcomes = trace.seen("entered"), trace.seen("returned", "raised")
    limit = 2 + (rank.timeout if isinstance(rank, Rank) else 0)
    ended = trace.ended is not None
    took = [outcome["at"] - call["at"] for call, outcome in zip(calls, outcomes, strict=False)]
    return any(time > limit for time in took) or (len(outcomes) < len(calls) and not ended)


def _outcome(trace: Trace) -> str:
    for event in reversed(trace.events):
        match event["seen"]:
            case "raised" | "collective failed":
                return f"{event['kind']}: {_sentence(event['text'])}"
            case "summed":
                return _summed(trace, event)
            case "returned" if trace.ended is not None:
                return "starts, then ends"
            case _:
                continue
    if trace.status is not None and trace.status < 0:
        return f"ended by signal {-trace.status}"
    return "nothing"


def _summed(trace: Trace, event: dict[str, Any]) -> str:
    """Tell a sum over one's own job from one over anything else."""
    rank = trace.process
    right = isinstance(rank, Rank) and event["sum"] == rank.size == len(event["members"])
    jobs = len({job for job, _, _ in event["members"]})
    return "starts" if right and jobs == 1 else f"starts with ranks of {jobs} job(s), sum {event['sum']}"


def _sentence(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\[[^\]]*\.(cc|cpp):\d+\] ", "", text.strip().partition("\n")[0]))


def _cell(text: str) -> str:
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", text)
