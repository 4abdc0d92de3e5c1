"""The page "Write a resolver in fifteen minutes", and new-plugin, where this checkout is installed without torch."""

import os
import pty
import re
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from colossalai_env.cli.new_plugin import KINDS
from colossalai_env.resolver import var
from colossalai_env.testing import BrokenLaw, ResolverContract
from tests.bare import ROOT, Bare
from tests.processes import Processes

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/how-to/write-a-resolver.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULE, TEST = "acme/colossalai_env_acme/__init__.py", "acme/tests/test_colossalai_env_acme.py"


def typed(bare: Bare, script: str, where: Path) -> str:
    """Run a script of the page; the type checkers are this environment's, and look at the other one."""
    tools = {
        "mypy .": f"{sys.executable} -m mypy --python-executable {bare.python} .",
        "pyright": f"{Path(sys.executable).parent}/basedpyright --pythonpath {bare.python}",
    }
    lines = script.splitlines()
    for name, here in tools.items():
        lines = [line.replace(name, here) if line.startswith(name) else line for line in lines]
    return bare.run("\n".join(lines), where)


def test_each_step_of_the_page_does_what_it_says(bare: Bare, tmp_path: Path) -> None:
    state, out, written, tested = "", "", 0, 0
    for language, text in BLOCKS:
        if text == "pip install '.[testing]'\n":
            continue  # so the environment was made
        if language == "bash":
            out = typed(bare, state + text, tmp_path)
            state += "".join(f"{line}\n" for line in text.splitlines() if line.startswith(("cd ", "export ")))
        elif language == "python" and "@hookimpl" in text:
            (tmp_path / MODULE).write_text(text)
            written += 1
        elif language == "py":
            assert written_by_new_plugin(text) == written_by_new_plugin((tmp_path / TEST).read_text())
            (tmp_path / TEST).write_text(text)
            tested += 1
        elif language == "text" and not text.startswith("BrokenLaw"):
            assert all(" ".join(line.split()) in " ".join(out.split()) for line in text.splitlines()), out
    assert (written, tested) == (1, 1)
    bare.run("pip uninstall --yes colossalai-env-acme", tmp_path)
    assert "acme" not in bare.run("colossalai-env plugins", tmp_path)


def written_by_new_plugin(test: str) -> str:
    """Return a test's text without the example, into which an author puts the manual's names."""
    return re.sub(r"^    process = \{\n.*?^    \}\n", "", test, flags=re.DOTALL | re.MULTILINE)


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


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_is_whole_as_it_is_written(bare: Bare, tmp_path: Path, kind: str) -> None:
    """A table of at most fifteen lines, three lines of contract; its tests, types and style are sound."""
    where = tmp_path / "house"
    bare.run(f"colossalai-env new-plugin big-house {where} --kind {kind} --json", tmp_path)
    commands = re.findall(r"^    (\S.*)$", (where / "README.md").read_text(), re.MULTILINE)
    assert commands[:2] == ["pip install PATH/TO/colossalai-env", "pip install -e '.[testing]'"]
    short = [line for line in commands[1:] if not line.startswith("pytest  ")]  # the page's own plugin runs the whole
    assert len(short) == len(commands) - 2
    out = typed(bare, "\n".join([*short, "mypy .", "pyright"]), where)
    bare.run("pip uninstall --yes colossalai-env-big-house", where)
    assert re.search(r"^big-house +colossalai-env-big-house 0\.1\.0 +ready", out, re.MULTILINE)
    assert (where / "dist/colossalai_env_big_house-0.1.0-py3-none-any.whl").exists()
    module = (where / "colossalai_env_big_house/__init__.py").read_text()
    table = re.findall(r"^BIG_HOUSE = Resolver\(.*?^\)", module, re.DOTALL | re.MULTILINE)[0]
    assert len(table.splitlines()) <= 15
    assert (
        (where / "tests/test_colossalai_env_big_house.py")
        .read_text()
        .endswith("\n\nclass TestBigHouse(ResolverContract):\n    resolver = BIG_HOUSE\n")
    )
    ruff = ["ruff", "check", "--isolated", "--select=ALL", "--ignore=S101,D203,D213,COM812,INP001,D101,CPY001,I001"]
    files = f"{where}/colossalai_env_big_house {where}/tests"
    assert not bare.run(f"PATH={Path(sys.executable).parent}:$PATH {' '.join(ruff)} --quiet {files}", where)


@pytest.mark.parametrize(
    ("typed", "kind"),
    [("2\n", "node"), ("host\n", "host"), ("\n", "process"), ("seven\n3\n", "host"), ("\x04", "process")],
    ids=["a number", "a word", "nothing", "something else, then a number", "the end of input"],
)
def test_a_terminal_is_asked_for_the_kind(tmp_path: Path, typed: str, kind: str) -> None:
    keyboard, terminal = pty.openpty()
    try:
        with Processes() as processes:
            command = (
                f"exec {sys.executable} -m colossalai_env new-plugin house {tmp_path}/house <{os.ttyname(terminal)}"
            )
            processes.start(["bash", "-c", f"{command} >{os.ttyname(terminal)}"])
            os.write(keyboard, typed.encode())
            (ended,) = processes.wait()
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert ended.code == 0, ended.err
    module = (tmp_path / "house/colossalai_env_house/__init__.py").read_text()
    assert ("counts_nodes" in module, "locate" in module) == (kind == "node", kind == "host")


def test_a_folder_in_use_and_a_name_that_is_none_are_refused(bare: Bare, tmp_path: Path) -> None:
    for words, told in (
        (f"house {bare.folder}", "is there already"),
        ("House /tmp/none", "no name for a launcher"),
        ("slurm /tmp/none", "installed already"),
        ("house /tmp/none --kind pod", "invalid choice: 'pod'"),
    ):
        assert told in bare.run(f"colossalai-env new-plugin {words} 2>&1 && exit 1 || [ $? = 2 ]", tmp_path)
