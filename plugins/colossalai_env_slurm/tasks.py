"""Slurm's counts of tasks per node, such as ``2(x3),1``."""

import re
from collections.abc import Sequence

import attrs

COUNTS = r"[0-9]{1,10}(?:\(x[0-9]{1,10}\))?(?:,[0-9]{1,10}(?:\(x[0-9]{1,10}\))?)*"


@attrs.frozen
class TaskCounts:
    """How many tasks each node of a step has, in the order of the nodes."""

    runs: Sequence[tuple[int, int]]
    nodes: int
    total: int
    """The tasks of all nodes."""

    @classmethod
    def parse(cls, text: str) -> "TaskCounts":
        """Read SLURM_STEP_TASKS_PER_NODE; raise `ValueError` with what was expected."""
        if not re.fullmatch(COUNTS, text):
            msg = "counts of tasks such as 2(x3),1"
            raise ValueError(msg)
        pairs = (item.partition("(x") for item in text.split(","))
        runs = tuple((int(count), int(repeat[:-1] or 1)) for count, _, repeat in pairs)
        return cls(runs, sum(repeat for _, repeat in runs), sum(count * repeat for count, repeat in runs))

    def __len__(self) -> int:
        return self.nodes

    def __getitem__(self, node: int) -> int:
        for count, repeat in self.runs:
            if node < repeat:
                return count
            node -= repeat
        raise IndexError(node)
