"""README and docs: their code runs, and they leave no public name of an error or a variable out."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import colossalai_env
from colossalai_env import ColossalaiEnvError

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REFERENCE = (ROOT / "docs/reference/variables-and-errors.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    document: Any = Sybil([PythonCodeBlockParser()]).parse(page)
    for example in document.examples():
        example.evaluate()


def test_every_error_is_in_the_reference() -> None:
    public = [getattr(colossalai_env, name) for name in colossalai_env.__all__]
    errors = {item.__name__ for item in public if isinstance(item, type) and issubclass(item, ColossalaiEnvError)}
    assert {name for name in errors if f"`{name}`" not in REFERENCE} == set()


def test_every_variable_is_in_the_reference() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "colossalai_env").glob("*.py"))
    variables = set(re.findall(r'"(COLOSSALAI_ENV_[A-Z_]+)"', sources))
    assert {name for name in variables if f"`{name}`" not in REFERENCE} == set()


def test_the_launchers_page_is_the_generators() -> None:
    made = subprocess.run([sys.executable, ROOT / "docs/launchers.py"], capture_output=True, text=True, check=True)
    assert (ROOT / "docs/reference/launchers.md").read_text() == made.stdout, "make -B docs/reference/launchers.md"


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
