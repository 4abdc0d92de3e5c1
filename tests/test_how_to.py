"""The page "Write a resolver in fifteen minutes", step by step, in a fresh environment beside the built wheel."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from colossalai_env.resolver import var
from colossalai_env.testing import BrokenLaw, ResolverContract

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/how-to/write-a-resolver.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULE, TEST = "acme/colossalai_env_acme/__init__.py", "acme/tests/test_colossalai_env_acme.py"
NEEDED = ["attrs", "hypothesis", "pluggy", "pytest", "pytest-xdist"]
"""What the wheel needs without torch, and what the page's commands need."""


@attrs.frozen
class Venv:
    """An environment of its own, with the wheel of this checkout in it."""

    folder: Path

    def run(self, script: str) -> str:
        """Run a script of the page as a person would in a shell, with this environment's programs first."""
        tools = {"mypy .": f"{sys.executable} -m mypy --python-executable {self.folder}/bin/python .",
                 "pyright": f"{Path(sys.executable).parent}/basedpyright --pythonpath {self.folder}/bin/python",
                 "pip install -e": "pip install --no-deps -e",
                 "pip install dist": "pip install --no-deps dist"}  # fmt: skip
        lines = script.splitlines()
        for typed, here in tools.items():
            lines = [line.replace(typed, here) if line.startswith(typed) else line for line in lines]
        env = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        ran = subprocess.run(
            ["bash", "-ec", "\n".join(lines)],
            cwd=self.folder.parent,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, f"{script}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    made = Venv(tmp_path_factory.mktemp("fresh") / "venv")
    subprocess.run([sys.executable, "-m", "venv", made.folder], check=True)
    wheels = made.folder.parent / "wheels"
    made.run(f"pip wheel --quiet --no-deps --wheel-dir {wheels} {ROOT}")
    made.run(f"pip install --quiet {' '.join(NEEDED)} && pip install --quiet --no-deps {wheels}/*.whl")
    return made


def test_each_step_of_the_page_does_what_it_says(venv: Venv) -> None:
    state, out, seen = "", "", 0
    for language, text in BLOCKS:
        if language == "bash":
            script = text.replace("pip install 'colossalai-env[testing]'\n", "")
            out = venv.run(state + script)
            state += "".join(f"{line}\n" for line in script.splitlines() if line.startswith(("cd ", "export ")))
        elif language == "python" and "Resolver(" in text and not seen:
            (venv.folder.parent / MODULE).write_text(text)
            seen += 1
        elif language == "py":
            assert (venv.folder.parent / TEST).read_text() == text
        elif language == "text" and not text.startswith("BrokenLaw"):
            assert all(" ".join(line.split()) in " ".join(out.split()) for line in text.splitlines()), out
    assert seen == 1
    assert "torch" not in venv.run("pip list")
    venv.run("pip uninstall --yes colossalai-env-acme")
    assert "acme" not in venv.run("colossalai-env plugins")


def test_the_broken_law_on_the_page_is_told_as_it_says() -> None:
    table: dict[str, Any] = {}
    exec(next(text for language, text in BLOCKS if language == "python"), table)
    wrong = attrs.evolve(table["ACME"], local_rank=var("ACME_TASK_ON_NODE", read=int))
    held: ResolverContract = type("TestAcme", (ResolverContract,), {"resolver": wrong})()
    with pytest.raises(BrokenLaw) as told:
        held.test_a_garbled_variable_is_named()
    page = next(text for _, text in BLOCKS if text.startswith("BrokenLaw"))
    *same, nodes = f"BrokenLaw: {told.value}".splitlines()
    assert same == page.splitlines()[:-1]
    assert nodes.startswith("    ACME_NODES=")  # of the smallest names hypothesis takes now one, now another


def test_a_new_plugin_is_whole_as_it_is_written(venv: Venv) -> None:
    """A table of at most fifteen lines, three lines of test; its tests, types and style are sound."""
    where = venv.folder.parent / "house"
    venv.run(f"colossalai-env new-plugin big-house {where} --json\ncd {where}\npytest -q\nmypy .\npyright")
    module = (where / "colossalai_env_big_house/__init__.py").read_text()
    table = re.findall(r"^BIG_HOUSE = Resolver\(.*?^\)", module, re.DOTALL | re.MULTILINE)[0]
    assert len(table.splitlines()) <= 15
    assert (
        (where / "tests/test_colossalai_env_big_house.py")
        .read_text()
        .endswith("\n\nclass TestBigHouse(ResolverContract):\n    resolver = BIG_HOUSE\n")
    )
    ruff = ["ruff", "check", "--isolated", "--select=ALL", "--ignore=S101,D203,D213,COM812,INP001,D101,CPY001,I001"]
    assert not venv.run(f"PATH={Path(sys.executable).parent}:$PATH {' '.join(ruff)} --quiet {where}")


def test_a_folder_in_use_and_a_name_that_is_none_are_refused(venv: Venv) -> None:
    for words, told in (
        (f"house {venv.folder}", "is there already"),
        ("House /tmp/none", "no name for a launcher"),
        ("slurm /tmp/none", "installed already"),
    ):
        assert told in venv.run(f"colossalai-env new-plugin {words} 2>&1 && exit 1 || [ $? = 2 ]")
