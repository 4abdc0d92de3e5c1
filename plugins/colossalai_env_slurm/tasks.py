"""Slurm's counts of tasks per node, such as ``2(x3),1``."""

from collections.abc import Sequence

DIGITS = 10
"""The longest number."""


class TaskCounts:
    """How many tasks each node of a step has, in the order of the nodes."""

    def __init__(self, runs: Sequence[tuple[int, int]]) -> None:
        self.runs = runs
        """A number of tasks, and on how many nodes in a row."""
        self.nodes = sum(nodes for _, nodes in runs)
        self.total = sum(tasks * nodes for tasks, nodes in runs)
        """The tasks of all nodes."""

    @classmethod
    def parse(cls, text: str) -> "TaskCounts":
        """Read SLURM_STEP_TASKS_PER_NODE; raise `ValueError` with what was expected."""
        return cls([_run(item) for item in text.split(",")])

    def __len__(self) -> int:
        return self.nodes

    def __getitem__(self, node: int) -> int:
        for tasks, nodes in self.runs:
            if node < nodes:
                return tasks
            node -= nodes
        raise IndexError(node)


def _run(item: str) -> tuple[int, int]:
    tasks, times, nodes = item.partition("(x")
    repeat = nodes[:-1] if times else "1"
    numbers = all(text.isascii() and text.isdecimal() and len(text) <= DIGITS for text in (tasks, repeat))
    if not numbers or nodes[-1:] != (")" if times else ""):
        msg = "counts of tasks such as 2(x3),1"
        raise ValueError(msg)
    return int(tasks), int(repeat)
