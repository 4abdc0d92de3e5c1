"""How all benchmarks measure: fresh processes in paired order, medians, ratios; and what a figure is."""

import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

ROOT = Path(__file__).parent.parent

ELSEWHERE = "/"
"""Where programs run: what is installed is what they import, and not what lies in this checkout."""

PAIRS = 15
"""Rounds by default: in each, every program runs once, and ratios are taken within the round."""


@attrs.frozen
class Figure:
    """One measured number, its goal, and what others need for the same."""

    question: str
    case: str
    what: str
    value: float
    unit: str = ""
    most: float | None = None
    least: float | None = None
    beside: Mapping[str, float | str] = attrs.field(factory=dict)
    """A peer's number, or the words that say why there is none."""

    @property
    def goal(self) -> str:
        """Return the goal in words."""
        if self.most is not None:
            return f"at most {written(self.most)}"
        return "" if self.least is None else f"at least {written(self.least)}"

    @property
    def met(self) -> bool:
        """Tell whether the goal is met, where there is one."""
        high = self.most is not None and self.value > self.most
        return not high and (self.least is None or self.value >= self.least)


@attrs.frozen
class Picture:
    """A drawing for the documentation."""

    name: str
    title: str
    svg: str = attrs.field(repr=False)


Finding = Figure | Picture


def written(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@attrs.frozen
class Program:
    """Python code in a fresh interpreter. It ends as soon as the code has run: nothing is torn down."""

    python: str
    code: str
    env: Mapping[str, str] = attrs.field(repr=False)

    def command(self, after: str = "") -> list[str]:
        """Return the command line, with more code for after what is measured."""
        return [self.python, "-c", f"{self.code}\n{after}\nimport os; os._exit(0)"]

    def told(self, after: str = "") -> str:
        """Run it unmeasured and return what it prints; raise where it fails."""
        command, env = self.command(after), dict(self.env)
        ran = subprocess.run(command, cwd=ELSEWHERE, env=env, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError(ran.stderr.strip().rpartition("\n")[2])
        return ran.stdout


@attrs.frozen
class Cost:
    """What one run took, in seconds."""

    cpu: float
    wall: float


def cost(program: Program) -> Cost:
    """Run a program once; its CPU time is user and system time, with that of its children."""
    began = time.perf_counter()
    process = subprocess.Popen(program.command(), cwd=ELSEWHERE, env=dict(program.env), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"status {process.returncode}: {program}")
    return Cost(used.ru_utime + used.ru_stime, wall)


def turns(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Name all in each round, and begin each round with the next one."""
    order = list(names)
    for turn in range(rounds):
        first = turn % len(order)
        yield from (*order[first:], *order[:first])


def paired(programs: Mapping[str, Program], pairs: int) -> dict[str, list[Cost]]:
    """Run all programs in each round."""
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for program in programs.values():
        program.told()  # compiles what is not compiled yet, and warms the file cache
    for name in turns(programs, pairs):
        costs[name].append(cost(programs[name]))
    return costs


def cpu_ms(costs: Iterable[Cost]) -> float:
    """Return the median of the CPU time, in milliseconds."""
    return 1000 * statistics.median(one.cpu for one in costs)


def wall_ms(costs: Iterable[Cost]) -> float:
    """Return the median of the time that passed, in milliseconds."""
    return 1000 * statistics.median(one.wall for one in costs)


def ratio(ours: Sequence[float], beside: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(ours, beside, strict=True))


def cpu_ratio(costs: Sequence[Cost], beside: Sequence[Cost]) -> float:
    """Return the median of the rounds' ratios of CPU time."""
    return ratio([one.cpu for one in costs], [other.cpu for other in beside])


@attrs.frozen
class Weight:
    """What a program's end state weighs."""

    peak_mb: float
    modules: frozenset[str]
    file_calls: int


TELL = """
import json, sys
names = list(sys.modules)
status = open("/proc/self/status").read()
print("\\nWEIGHT", json.dumps([int(status.split("VmHWM:")[1].split()[0]), names]), flush=True)
"""


def weight(program: Program) -> Weight:
    """Run a program for its peak memory and modules, and once more under strace for its calls that take a path."""
    peak, modules = json.loads(program.told(TELL).rpartition("WEIGHT")[2])
    with tempfile.NamedTemporaryFile("r") as summary:
        _traced(program, "-c", "-o", summary.name)
        total = summary.read().strip().rpartition("\n")[2].split()
    return Weight(peak / 1024, frozenset(modules), int(total[3]))


def slowed(program: Program, milliseconds: int = 1) -> float:
    """Run a program once, with so much more time for each call that takes a path; return the seconds until its end."""
    began = time.perf_counter()
    _traced(program, "--seccomp-bpf", "-e", f"inject=%file:delay_enter={1000 * milliseconds}", "-o", os.devnull)
    return time.perf_counter() - began


def _traced(program: Program, *options: str) -> None:
    strace = ["strace", "-f", "-e", "trace=%file", *options, *program.command()]
    subprocess.run(strace, cwd=ELSEWHERE, env=dict(program.env), stdout=subprocess.DEVNULL, check=True)
