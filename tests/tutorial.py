"""The commands of the tutorial, as they stand on the page."""

import re
from math import prod
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "examples" / "launch"
"""The folder in which the tutorial's commands are typed."""


@attrs.frozen
class Block:
    """Commands that the tutorial shows in one block, each for a terminal or a node of its own."""

    lines: tuple[str, ...]

    @property
    def starter(self) -> str:
        """The program that is called."""
        return self.lines[0].split()[0]

    @property
    def size(self) -> int:
        """How many processes train."""
        counts = re.findall(r" --?(?:world_size|np|ntasks|nnodes|nproc-per-node)[ =](\d+)", self.lines[0])
        return prod(map(int, counts))

    def __str__(self) -> str:
        """Return the first command."""
        return self.lines[0]


def blocks() -> list[Block]:
    """Return all blocks of commands of the tutorial."""
    page = (ROOT / "docs/tutorial/launch.md").read_text()
    found = re.findall(r"^```bash\n(.*?)\n```", page, re.DOTALL | re.MULTILINE)
    return [Block(tuple(re.sub(r" \\\n *", " ", text).splitlines())) for text in found]


def assert_trained(block: Block, printed: str) -> None:
    """Hold what the processes of a block printed against what they were to do: one of them tells a small loss."""
    said = re.findall(r"(\d+) processes, [a-z-]+: loss ([\d.]+)", printed)
    assert [(int(size), float(loss) < 0.1) for size, loss in said] == [(block.size, True)], printed
