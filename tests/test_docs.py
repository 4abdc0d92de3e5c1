"""README and docs: they build, their code and commands run, and no public name is left out."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pluggy
import pytest
from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser

import colossalai_env
from colossalai_env import _hookspecs as hookspecs
from colossalai_env import errors, resolver, testing
from colossalai_env._arguments import OURS
from colossalai_env._registry import resolvers
from colossalai_env._rendezvous.protocol import keys
from colossalai_env.cli import COMMANDS, parser_of
from colossalai_env.environ import Environ
from tests.error_tree import BASE, PARENTS, TREE
from tests.pages import MPIRUN, PAGES, starters
from tests.processes import LAUNCHERS, Processes, free_port, run
from tests.tutorial import ROOT, SCRIPTS, Block, assert_trained, blocks
from tests.warm import warm

pytestmark = pytest.mark.slow

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the pages as `make docs` does, and return all HTML."""
    folder = tmp_path_factory.mktemp("docs")
    strictly = ["--fail-on-warning", "--keep-going", "--quiet", f"--doctree-dir={folder / 'read'}"]
    ran = run([sys.executable, "-m", "sphinx", *strictly, DOCS, folder / "html"])
    assert ran.code == 0, ran.err
    return "\n".join(path.read_text() for path in sorted((folder / "html").rglob("*.html")))


def test_every_public_name_and_hook_has_its_entry(built: str) -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    entries = set(re.findall(r'<dt class="sig [^>]* id="([\w.]+)"', built))
    public = {colossalai_env: colossalai_env.__all__, testing: testing.__all__, errors: {*TREE} - {BASE}}
    public[resolver] = {*resolver.__all__} - {*colossalai_env.__all__}
    names = {f"{module.__name__}.{name}" for module, found in public.items() for name in found}
    hooks = {f"{hookspecs.__name__}.{name}" for name in vars(manager.hook) if not name.startswith("_")}
    assert hooks
    assert (names | hooks) - entries == set()


def test_every_member_of_what_a_user_gets_has_its_entry(built: str) -> None:
    entries = set(re.findall(r'<dt class="sig [^>]* id="([\w.]+)"', built))
    fields = {f"Peer.{field.name}" for field in attrs.fields(colossalai_env.Peer)}
    fields |= {f"DistSpec.{field.name}" for field in attrs.fields(colossalai_env.DistSpec)}
    with colossalai_env.init_from_env(device="cpu") as job:
        fields |= {f"Job.{name}" for name in dir(job) if not name.startswith("_")}
    assert {f"colossalai_env.{name}" for name in fields} - entries == set()


def test_every_error_has_its_section_with_its_message_and_no_other() -> None:
    found: dict[str, str] = {}
    kind = ""
    for level, name, section in re.findall(
        r"^(##|###) (\w+)\n(.*?)(?=^##|\Z)", (DOCS / "reference/errors.md").read_text(), re.MULTILINE | re.DOTALL
    ):
        if level == "###":
            assert "```text" in section, f"{name} has no message"
            found[name] = kind
        else:
            kind = name
    assert found == {name: parent for name, parent in TREE.items() if name not in {BASE, *PARENTS}}


def test_every_module_has_its_line_in_the_map_and_every_key_its_row() -> None:
    package = ROOT / "colossalai_env"
    found = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    rooms = {name for name in found if not name.startswith(("cli/", "testing/", "errors/")) and "/__init__" not in name}
    rooms = {name.removeprefix("_rendezvous/") if "protocol/" in name else name for name in rooms}
    shown = re.findall(r"^\| .*$", (DOCS / "explanation/architecture.md").read_text(), re.MULTILINE)
    named = {name for line in shown for name in re.findall(r"`([\w/]+\.py)`", line.split("|")[1])}
    assert named == rooms
    table = (DOCS / "explanation/meeting.md").read_text().partition("<!-- keys -->")[2].partition("\n\n|")[2]
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \| (.*?) \|$", table.partition("\n\n")[0], re.MULTILINE)
    assert rows == [tuple(key) for key in keys.TABLE]


def test_every_variable_has_its_section_and_no_other() -> None:
    sources = [path.read_text() for folder in ("colossalai_env", "plugins") for path in (ROOT / folder).rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"COLOSSALAI_ENV_[A-Z_]*[A-Z]", source)}
    sections = re.findall(r"^## (COLOSSALAI_ENV_\w+)", (DOCS / "reference/variables.md").read_text(), re.MULTILINE)
    assert set(sections) == used == {*OURS}


def test_every_way_to_ask_has_its_row_and_no_other() -> None:
    page = (DOCS / "reference/variables.md").read_text()
    section = page.partition("## COLOSSALAI_ENV_LOCATE")[2].partition("\n## ")[0]
    cells: list[str] = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    every = {way.name for item in resolvers(Environ()) for way in getattr(item.resolver, "locate", ())}
    assert sorted(name for cell in cells for name in re.findall(r"`(.*?)`", cell)) == sorted(every)


def test_every_command_and_option_has_its_words() -> None:
    common, *sections = re.split(r"^## (.*)", (DOCS / "reference/command-line.md").read_text(), flags=re.MULTILINE)
    told = dict(zip(sections[::2], sections[1::2], strict=True))
    assert set(COMMANDS) - set(told) == set()
    for command in COMMANDS:
        options = set(re.findall(r"--[a-z][a-z-]*", parser_of(command).format_usage()))
        assert "--json" in options
        assert {option for option in options if f"`{option}" not in common + told[command]} == set(), command


def transcripts() -> list[tuple[str, str]]:
    """Return each command that the page of the command line shows with what it prints, and that."""
    text = (DOCS / "reference/command-line.md").read_text()
    return re.findall(r"^```console\n\$ (.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)


@pytest.mark.parametrize(("command", "printed"), transcripts(), ids=lambda text: text.splitlines()[0])
def test_the_commands_of_the_command_lines_page_print_what_it_shows(command: str, printed: str) -> None:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    ended = run(["bash", "-o", "pipefail", "-c", f"{{ {command}; }} 2>&1"], {"PATH": path})
    assert ended.out.rstrip() == printed.rstrip()


def as_printed(example: Example) -> str | None:
    """Compare a message on the page of errors with what the code above it raised, and with its section's name."""
    heading = re.findall(r"^### (.*)", example.document.text[: example.start], re.MULTILINE)[-1]
    error = example.namespace.pop("error")
    found = f"{type(error).__name__}: {error}"
    return None if found == f"{heading}: {example.parsed.strip()}" else f"the page should say: {found}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in colossalai_env.resolver.Environ.snapshot().variables if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    messages = [CodeBlockParser("text", as_printed)] if page.name == "errors.md" and "api" not in page.parts else []
    document: Any = Sybil([PythonCodeBlockParser(), *messages]).parse(page)
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("block", [block for block in blocks() if block.starter != "srun"], ids=str)
def test_the_commands_of_the_tutorial_train(block: Block, tmp_path: Path) -> None:
    """Slurm's are run by tests/launchers."""
    if block.starter == "mpirun" and not MPIRUN.exists():
        pytest.skip("no Open MPI in .venv/mpi (make .venv/mpi/ready)")
    folder = shutil.copytree(SCRIPTS, tmp_path / "launch")
    (folder / "hosts").write_text("localhost slots=4\n")
    env = {"CUDA_VISIBLE_DEVICES": "", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    port = str(free_port())
    with Processes() as processes:
        for line in block.lines:
            first, *words = line.replace("29500", port).replace("gpu-a01", "127.0.0.1").split()
            words = [warm() if word == "python" else word for word in words]
            processes.start([*starters()[first], *words], env, folder)
        ended = processes.wait()
    assert not any(process.code for process in ended), ended
    assert_trained(block, "".join(process.out for process in ended))


def test_the_launchers_page_is_the_generators() -> None:
    made = subprocess.run([sys.executable, DOCS / "launchers.py"], capture_output=True, text=True, check=True)
    assert (DOCS / "reference/launchers.md").read_text() == made.stdout, "make -B docs/reference/launchers.md"


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings in links, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), f"{target}#{anchor}"
