"""Recorded environments of real launches, each task with the truth that its launcher told otherwise."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

RECORDED = Path(__file__).parent / "recorded"
"""One file for each launch."""


@attrs.frozen
class Task:
    """One process of a launch: what it was started with, and who it truly was."""

    hostname: str
    argv: tuple[str, ...]
    variables: dict[str, str] = attrs.field(repr=False)
    truth: dict[str, Any]


@attrs.frozen
class Capture:
    """One launch, as it was recorded."""

    scenario: str
    launcher: str
    version: str
    command: str | list[str]
    tasks: tuple[Task, ...]


def captures(folder: Path = RECORDED) -> Iterator[Capture]:
    """Read all launches recorded in a folder, by name; those of this package by default."""
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        tasks = tuple(
            Task(task["hostname"], tuple(task["argv"]), task["rank_env"], task["truth"]) for task in record["tasks"]
        )
        yield Capture(record["scenario"], record["launcher"], record["launcher_version"], record["command"], tasks)
