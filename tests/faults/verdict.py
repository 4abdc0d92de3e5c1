"""Holds a record against what was promised; the only place of assertions."""

import re
import signal
import socket
from collections.abc import Iterator

from .model import At, Rank, Say, T
from .runner import Record, Trace

BUSY = 0.5
"""The share of time that processes waited for a core, from which on seconds prove little: bounds move by it."""

EXIT = 10.0
"""Seconds that a process may take to end after its last word: nothing of the library's may hold it."""


def problems(record: Record) -> list[str]:
    """Return what was promised and not kept, as sentences; nothing when all was."""
    found: list[str] = []
    for say in record.fault.says:
        for name in say.who.split():
            found += [f"{name}: {problem}" for problem in _kept(record, name, say)]
    for trace in record.traces.values():
        found += [f"{trace.process.name}: {problem}" for problem in _bounded(record, trace)]
    found += _looked(record)
    found += [f"left behind: {item}" for item in record.left]
    return found


def told_all(record: Record) -> str:
    """Write down everything that was seen, for people."""
    begin = record.times["begin", ""]
    lines: list[str] = []
    for name, trace in record.traces.items():
        lines.append(f"-- {name} (pid {trace.pid}), exit status {trace.status}")
        lines += [
            f"   {event['at'] - begin:6.2f} s {event['seen']} "
            + ", ".join(f"{key}={value}" for key, value in event.items() if key not in {"at", "seen"})
            for event in trace.events
        ]
        if trace.ended is not None:
            lines.append(f"   {trace.ended - begin:6.2f} s ended")
        shown = 4 if trace.ended is not None else 60
        lines += [f"   | {line}" for line in trace.log.splitlines()[-shown:]]
    lines += [
        f"   {at - begin:6.2f} s {seen} {of}"
        for (seen, of), at in record.times.items()
        if seen in {"signalled", "listening", "connected"}
    ]
    lines += [f"-- looked: {addresses} by {inodes}" for _, addresses, inodes in record.looks]
    lines.append(
        f"-- processes waited for a core in {record.stalled:.1f} s of it; bounds moved by {_slack(record):.1f} s"
    )
    return "\n".join(lines)


def _slack(record: Record) -> float:
    """Return the seconds by which bounds move, since others kept this machine busy; 5 at most."""
    lasted = max([event["at"] for trace in record.traces.values() for event in trace.events], default=0.0)
    lasted -= record.times["begin", ""]
    return min(5.0, record.stalled) if record.stalled > BUSY * lasted else 0.0


def _kept(record: Record, name: str, say: Say) -> Iterator[str]:
    trace = record.traces.get(name)
    if trace is None:
        yield "was never started, for what it waited for never came"
        return
    if say.by_signal is not None:
        yield from _died(record, trace, say)
        return
    outcomes = trace.seen("returned", "raised")
    calls = trace.seen("entered")
    if len(calls) < (say.turn + 1 if say.turn >= 0 else 1) or len(outcomes) < len(calls):
        yield f"said nothing in its call of init within {record.cap:.0f} s (exit status {trace.status})"
        return
    outcome, call = outcomes[say.turn], calls[say.turn]
    if outcome["seen"] == "returned":
        if say.words and not say.maybe:
            yield f"init returned, and should have raised an error with {', '.join(say.words)}"
        elif say.fine:
            yield from _right(record, trace)
    elif say.fine:
        yield f"init raised {outcome['kind']}: {outcome['text']}"
    else:
        yield from _said(record, say, outcome["kind"], outcome["text"], deliberate=outcome["deliberate"])
    yield from _in_time(record, say, outcome["at"], call["at"], trace)


def _right(record: Record, trace: Trace) -> Iterator[str]:
    """Its sums are right, over all ranks of its own job and nobody else."""
    rank = trace.process
    summed = trace.seen("summed")
    wanted = rank.steps.count("sum") if isinstance(rank, Rank) else 0
    if len(summed) < wanted or not isinstance(rank, Rank):
        yield f"summed {len(summed)} times of {wanted}; exit status {trace.status}"
        return
    mine = {item.pid for item in record.traces.values() if isinstance(item.process, Rank) and _same(item.process, rank)}
    for event in summed:
        ranks, pids = [item[1] for item in event["members"]], {item[2] for item in event["members"]}
        if event["sum"] != rank.size or ranks != list(range(rank.size)) or not pids <= mine:
            yield f"summed {event['sum']} over {event['members']}: not its own job"
    if trace.status != 0:
        yield f"ended with status {trace.status}"


def _same(one: Rank, other: Rank) -> bool:
    return (one.job, one.size) == (other.job, other.size)


def _said(record: Record, say: Say, kind: str, text: str, *, deliberate: bool) -> Iterator[str]:
    if not deliberate:
        yield f"raised {kind}, which is no deliberate error: {text}"
    absent = [word for word in say.words if not _has(text, _filled(record, word))]
    if absent:
        yield f"raised {kind} without {', '.join(absent)}: {text}"
    for word in say.never:
        if _has(text, _filled(record, word)):
            yield f"raised {kind} with {word}: {text}"


def cause_told(record: Record) -> float | None:
    """Return the seconds after which the first rank had said all that it must of the cause; None where none did."""
    told = [
        event["at"] - record.times["begin", ""]
        for say in record.fault.says
        for name in say.who.split()
        if say.words and name in record.traces
        for event in record.traces[name].seen("raised")
        if all(_has(event["text"], _filled(record, word)) for word in say.words)
    ]
    return min(told, default=None)


def _filled(record: Record, word: str) -> str:
    word = word.replace("<port>", str(record.place.port)).replace("<here>", socket.gethostname())
    word = word.replace("<timeout>", f"{T * record.pace:.1f} s")
    return re.sub(
        "<pid ([^>]*)>",
        lambda match: str(record.traces[match[1]].pid) if match[1] in record.traces else "nobody",
        word,
    )


def _has(text: str, word: str) -> bool:
    """Tell whether one of the alternatives stands in the text, not as a part of a longer word or number."""
    return any(re.search(rf"(?<![\w-]){re.escape(choice)}(?![\w-])", text, re.IGNORECASE) for choice in word.split("|"))


def _died(record: Record, trace: Trace, say: Say) -> Iterator[str]:
    number = getattr(signal, f"SIG{say.by_signal}")
    fitting = {-number, 128 + number}
    sent = record.times.get(("signalled", trace.process.name))
    if sent is None or trace.ended is None or trace.status not in fitting:
        yield f"should have died of SIG{say.by_signal}, and its exit status is {trace.status}"
        return
    words = [event["at"] for event in trace.seen("raised") if event["at"] >= sent]
    took = (words[0] if words else trace.ended) - sent
    if say.within is not None and took > say.within * record.pace + _slack(record):
        yield f"took {took:.2f} s to serve SIG{say.by_signal}, and {say.within * record.pace:.1f} s are promised"


def _in_time(record: Record, say: Say, at: float, entered: float, trace: Trace) -> Iterator[str]:
    rank = trace.process
    within = record.pace * (
        say.within if say.within is not None else (rank.timeout if isinstance(rank, Rank) else 0) + 2
    )
    since = entered if say.since is None else record.moment(say.since)
    if since is None:
        yield f"{say.since} never came"
    elif at - since > within + _slack(record):
        of = "its call" if say.since is None else _shown(say.since)
        yield f"took {at - since:.2f} s after {of}, and {within:.1f} s are promised"


def _shown(at: At) -> str:
    return f"{at.of} {at.seen}" + (f" + {at.plus} s" if at.plus else "")


def _bounded(record: Record, trace: Trace) -> Iterator[str]:
    """Every call of init ends within its timeout and 2 s more, and the process soon after its last word."""
    rank = trace.process
    hindered = {act.to for act in record.fault.acts if act.deed in {"KILL", "STOP"}}
    if not isinstance(rank, Rank) or rank.name in hindered:
        return
    for call, outcome in zip(trace.seen("entered"), trace.seen("returned", "raised"), strict=False):
        took, timeout = outcome["at"] - call["at"], rank.timeout * record.pace
        if took > timeout + 2 * record.pace + _slack(record):
            yield f"was in init for {took:.2f} s with a timeout of {timeout:.1f} s"
    if trace.status is not None and trace.status < 0 and ("signalled", rank.name) not in record.times:
        yield f"ended by signal {-trace.status}, which nobody sent"
    if len(trace.seen("returned", "raised")) == len(trace.seen("entered")) > 0 and hindered:
        return  # it is in a group whose other ranks were ended: what collectives do then is not init's business
    last = trace.seen("leaving")
    if last and (trace.ended is None or trace.ended - last[0]["at"] > EXIT * record.pace + record.stalled):
        yield f"did not end within {EXIT:.0f} s of its last word"
    elif trace.ended is None:
        yield f"still ran after {record.cap:.0f} s"


def _looked(record: Record) -> Iterator[str]:
    inodes: set[int] = set()
    for look, addresses, by in record.looks:
        inodes |= by
        if addresses != set(look.addresses):
            yield f"{_shown(look.at)}: {addresses or 'nobody'} listened, and {set(look.addresses)} is promised"
    if len(inodes) > 1:
        yield f"the port was bound more than once: {inodes}"
    taken = [look for look, _, _ in record.looks]
    if any(look not in taken and not look.maybe for look in record.fault.looks):
        yield "not every look was taken, for its moment never came"
