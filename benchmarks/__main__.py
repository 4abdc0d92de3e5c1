"""Run the benchmarks: print each figure with its goal and its peers, and write JSON, pictures and the docs' table.

python -m benchmarks [QUESTION ...] [--pairs 15] [--write]
"""

import argparse
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import Any

import attrs

from benchmarks import at_scale, causes, earlier, forming, knocking, roll_call, spec_known
from benchmarks.measure import PAIRS, ROOT, Figure, Finding, written

QUESTIONS: Mapping[str, Callable[[int], Iterator[Finding]]] = {
    spec_known.QUESTION: spec_known.measure,
    earlier.QUESTION: earlier.measure,
    forming.QUESTION: forming.measure,
    roll_call.QUESTION: roll_call.measure,
    knocking.QUESTION: knocking.measure,
    at_scale.QUESTION: at_scale.measure,
    causes.QUESTION: causes.measure,
}
"""A question is a module: a generator of figures and pictures, for so many pairs."""

JSON = ROOT / "benchmarks/last.json"
PAGE = ROOT / "docs/explanation/speed.md"
PICTURES = ROOT / "docs/_static"


FLOORS = {spec_known.BARE, spec_known.FLOOR}
"""What stands beside a figure and is no peer."""


def beside(figure: Figure) -> str:
    """Return the peers' numbers in words."""
    return "; ".join(
        f"{name} {written(value) if isinstance(value, float | int) else f'({value})'}"
        for name, value in figure.beside.items()
    )


def line(figure: Figure) -> str:
    """Return a figure on one line."""
    goal = f" [{figure.goal}: {'met' if figure.met else 'MISSED'}]" if figure.goal else ""
    others = f"  beside: {beside(figure)}" if figure.beside else ""
    return f"{figure.question}: {figure.case}: {figure.what}: {written(figure.value)} {figure.unit}{goal}{others}"


def machine() -> str:
    """Say where this ran."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*: (.*)", file.read())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "attrs", "pluggy"))
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model.group(1) if model else platform.processor()}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {versions}"
    )


def goals(figures: Iterable[Figure]) -> str:
    """Return the figures that have a goal, as Markdown."""
    rows = ["| | figure | found | goal | |", "|---|---|---|---|---|"]
    for one in figures:
        if one.goal:
            found, met = f"{written(one.value)} {one.unit}".strip(), "met" if one.met else "missed"
            rows.append(f"| {one.case} | {one.what} | {found} | {one.goal} | {met} |")
    return "\n".join(rows)


def peers(figures: Iterable[Figure]) -> str:
    """Return what the peers need for the same, one table a case, as Markdown."""
    tables: list[str] = []
    for case, group in groupby((one for one in figures if one.beside), key=lambda one: one.case):
        rows = list(group)
        names = list(
            dict.fromkeys(name for one in rows for name, value in one.beside.items() if not isinstance(value, str))
        )
        if len(rows) > 1 and set(names) - FLOORS:
            head = ["", "colossalai-env", *names]
            lines = [head, ["---"] * len(head)]
            for one in rows:
                values = [one.value, *(one.beside.get(name, "") for name in names)]
                cells = [written(value) if isinstance(value, float | int) else "" for value in values]
                lines.append([f"{one.what}, {one.unit}".strip(", "), *cells])
            said = dict.fromkeys(
                f"{name} {why}" for one in rows for name, why in one.beside.items() if isinstance(why, str)
            )
            text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
            tables.append(f"### {case}\n\n{text}" + (f"\n\nNot there: {'; '.join(said)}." if said else ""))
    return "\n\n".join(tables)


def alone(figures: Iterable[Figure]) -> str:
    """Return figures that have no peers as one table, a row a case, as Markdown."""
    cases: dict[str, dict[str, str]] = {}
    for one in figures:
        missed = "" if one.met else f" (missed: {one.goal})"
        cases.setdefault(one.case, {})[f"{one.what}, {one.unit}".strip(", ")] = written(one.value) + missed
    head = list(dict.fromkeys(what for row in cases.values() for what in row))
    lines = [["", *head], ["---"] * (1 + len(head))]
    lines += [[case, *(row.get(what, "") for what in head)] for case, row in cases.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def publish(name: str, text: str) -> None:
    """Put a text between its markers on the page."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: written by make bench -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="rounds of every comparison (default %(default)s)")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write benchmarks/last.json, and the docs' tables and pictures, of each question when it is answered",
    )
    asked = parser.parse_args()
    unknown = sorted(set(asked.questions) - set(QUESTIONS))
    if unknown:
        parser.error(f"unknown question(s) {', '.join(unknown)}: use {', '.join(QUESTIONS)}")
    figures: list[Figure] = []
    for question in asked.questions or QUESTIONS:
        found: list[Figure] = []
        for finding in QUESTIONS[question](asked.pairs):
            if isinstance(finding, Figure):
                found.append(finding)
                print(line(finding), flush=True)
            elif asked.write:
                (PICTURES / f"{finding.name}.svg").write_text(finding.svg, encoding="utf-8")
        if asked.write:
            record(question, found, asked.pairs)
        figures += found
    missed = [figure for figure in figures if not figure.met]
    print(f"{len(missed)} goal(s) missed of {sum(1 for figure in figures if figure.goal)}")


def record(question: str, found: Sequence[Figure], pairs: int) -> None:
    """Write what answers a question to the record and the page, in the place of what is there of it."""
    kept: dict[str, Any] = json.loads(JSON.read_text(encoding="utf-8"))
    dates: dict[str, str] = {**kept["dates"], question: time.strftime("%Y-%m-%d", time.gmtime())}
    others = [Figure(**one) for one in kept["figures"] if one["question"] != question]
    figures = sorted((*others, *found), key=lambda one: list(QUESTIONS).index(one.question))
    kept = {"machine": machine(), "pairs": pairs, "dates": dates, "figures": list(map(attrs.asdict, figures))}
    JSON.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    days = {day: [one for one in QUESTIONS if dates.get(one) == day] for day in sorted({*dates.values()})}
    when = ", ".join(f"{day} ({', '.join(those)})" if len(days) > 1 else day for day, those in days.items())
    publish("goals", f"{when}, {machine()}; medians of {pairs} pairs.\n\n{goals(figures)}")
    publish(question, peers(found) or alone(found))


if __name__ == "__main__":
    main()
