"""What the roll call asks of rank 0's store, by simulated ranks, beside what gloo then asks of it itself."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.drawing import curves
from benchmarks.installations import BEFORE, EARLIER, checkout
from benchmarks.measure import ROOT, Figure, Finding, Picture, ratio, turns
from benchmarks.simulated import CONNECTIONS, Cost

QUESTION = "roll call"
CLIENTS = (64, 256, 1024, 4096, 16384, 65536)
AGAINST_AT = 16384
"""Ranks with which the earlier build is measured beside this one."""
GLOO_CLIENTS = 1024
"""Gloo's traffic is played up to here: it grows with the square of the ranks."""

OURS, ONE_BY_ONE, TUNED = "colossalai-env", "gloo, address by address", "gloo, as this library sets it"

LIMITS: Mapping[str, float] = {"requests": 10, "sent": 600, "memory": 150}
WALL: Mapping[int, float] = {4096: 2.0, 65536: 6.0}


def played(play: str, size: int, build: Path = ROOT, *, late: bool = False) -> Cost:
    """Play one world in a process of its own, by the library as it is in the checkout `build`."""
    with tempfile.TemporaryDirectory() as folder:
        for name, home in (("colossalai_env", build), ("benchmarks", ROOT)):
            (Path(folder) / name).symlink_to(home / name)
        command = [sys.executable, "-P", "-m", "benchmarks.simulated", play, str(size), *(["--late"] if late else [])]
        told = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": folder}, stdout=subprocess.PIPE, check=True, text=True
        )
    return Cost(**json.loads(told.stdout))


MEASURED: Mapping[str, tuple[str, str]] = {
    "requests": ("requests of a rank", ""),
    "sent": ("bytes sent by a rank", ""),
    "wall": ("until the last rank is told", "s"),
    "cpu": ("CPU of rank 0 and its store", "s"),
}


def measure(pairs: int) -> Iterator[Finding]:
    """Hold roll calls of all sizes, beside the earlier build, and let gloo's clients read each other's addresses."""
    rounds = max(3, pairs // 3)
    found: dict[int, dict[str, Cost]] = {}
    for size in CLIENTS:
        plays = {OURS: "roll_call"} | ({ONE_BY_ONE: "one_by_one", TUNED: "tuned"} if size <= GLOO_CLIENTS else {})
        found[size] = {
            name: _median([played(play, size) for _ in range(rounds if size < 1000 or name == OURS else 1)])
            for name, play in plays.items()
        }
    unplayed = "is not played with so many ranks: gloo's traffic grows with their square"
    for field, (case, unit) in MEASURED.items():
        for size, costs in found.items():
            beside = {name: getattr(costs[name], field) if name in costs else unplayed for name in (ONE_BY_ONE, TUNED)}
            limit = WALL.get(size) if field == "wall" else LIMITS.get(field)
            yield Figure(QUESTION, case, _ranks(size), getattr(costs[OURS], field), unit, most=limit, beside=beside)
    for size, costs in found.items():
        yield Figure(QUESTION, "requests of rank 0", _ranks(size), costs[OURS].leader_requests)
        yield Figure(QUESTION, "CPU of rank 0 without its store", _ranks(size), costs[OURS].leader_cpu, "s")
        yield Figure(QUESTION, "CPU of the simulation", _ranks(size), costs[OURS].clients_cpu, "s")
    for size in CLIENTS[-2:]:
        grown = statistics.median(played("roll_call", size, late=True).memory for _ in range(3))
        what = "memory of rank 0 beyond its store's"
        yield Figure(QUESTION, what, _ranks(size), grown, "MB", most=LIMITS["memory"])
    with tempfile.TemporaryDirectory() as folder:
        before = checkout(BEFORE, Path(folder))
        if before is not None:
            yield from _beside(before, rounds)
    drawn = {
        name: [(size, costs[name].wall) for size, costs in found.items() if name in costs]
        for name in (OURS, ONE_BY_ONE, TUNED)
    }
    title = "Until the last rank is told"
    yield Picture("roll-call", title, curves(title, "simulated ranks", "seconds", drawn))


def _beside(before: Path, rounds: int) -> Iterator[Figure]:
    """Play both builds in turns."""
    costs: dict[str, list[Cost]] = {OURS: [], EARLIER: []}
    for name in turns(costs, rounds):
        costs[name].append(played("roll_call", AGAINST_AT, before if name == EARLIER else ROOT))
    for field, what, goal in (
        ("wall", "until the last rank is told", 0.5),
        ("cpu", "CPU of rank 0 and its store", None),
    ):
        ours, then = ([getattr(cost, field) for cost in costs[name]] for name in (OURS, EARLIER))
        beside = {EARLIER + ", s": statistics.median(then), OURS + ", s": statistics.median(ours)}
        case = f"{_ranks(AGAINST_AT)}, ratio to {BEFORE}"
        yield Figure(QUESTION, case, what, ratio(ours, then), "x", most=goal, beside=beside)


def _ranks(size: int) -> str:
    shared = -(-size // CONNECTIONS)
    return f"{size} simulated ranks" + (f", {shared} to a connection" if shared > 1 else "")


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*map(attrs.astuple, costs), strict=True)))
