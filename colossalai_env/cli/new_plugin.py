"""Write a plugin for a launcher: a distribution that is typed, tested and can be installed at once.

Examples:
  colossalai-env new-plugin house ./colossalai-env-house
  colossalai-env new-plugin cloud ./colossalai-env-cloud --kind node

"""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version

from colossalai_env._registry import installed

from .output import show_json, show_text

KINDS: Mapping[str, str] = {
    "process": "it starts each process, and its variables hold rank and world size, as those of mpirun and srun do",
    "node": "it starts one process on each node, and its numbers count nodes, as those of cloud platforms do",
    "host": "as process, but no variable holds rank 0's host: that stands in a file, or the launcher is asked for it",
}
"""What a launcher may be; each has a module in the folder skeletons, which is the template."""

SKELETON = "house"
"""The launcher's name in the templates."""

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{distribution}"
version = "0.1.0"
description = "colossalai-env's resolver for {name}"
readme = "README.md"
requires-python = ">=3.10"
dependencies = ["colossalai-env>={version}"]

[project.optional-dependencies]
testing = ["colossalai-env[testing]"]

[project.entry-points.colossalai_env]
{name} = "{module}"

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]

[tool.mypy]
strict = true

[tool.pyright]
typeCheckingMode = "strict"
"""

CONFTEST = '''\
"""While you write: pytest --hypothesis-profile=quick."""

from hypothesis import settings

settings.register_profile("quick", max_examples=10)
'''

TEST = '''\
"""The contract, for {name}, and what its manual says."""

{imports}

{example}

class Test{camel}(ResolverContract):
    resolver = {constant}
'''

IMPORTS = """\
from {module} import {constant}

from colossalai_env import resolve
from colossalai_env.testing import ResolverContract
"""

EXAMPLES: Mapping[str, tuple[str, str]] = {
    "process": (
        IMPORTS,
        '''\
def test_the_manuals_example_is_read_as_it_says() -> None:
    """The contract cannot know what a variable means; an example of the manual does."""
    process = {{
        "{constant}_RANK": "5",
        "{constant}_WORLD_SIZE": "8",
        "{constant}_LOCAL_RANK": "1",
        "{constant}_LOCAL_WORLD_SIZE": "4",
        "{constant}_HOST": "n1",
        "{constant}_JOB_ID": "77",
    }}
    spec = resolve(env=process, resolver={constant})
    assert (spec.rank, spec.world_size, spec.local_rank) == (5, 8, 1)
    assert (spec.host, spec.job_id) == ("n1", "77")
''',
    ),
    "node": (
        IMPORTS,
        '''\
def test_the_manuals_example_is_read_as_it_says() -> None:
    """Three nodes, of which node 1 is the main one and is not told its address."""
    job = {{"{constant}_NODES": "3", "{constant}_MAIN_NODE": "1"}}
    told = {{"{constant}_MAIN_ADDRESS": "10.0.0.5"}}
    nodes = [
        {{"{constant}_NODE": "0", **job, **told}},
        {{"{constant}_NODE": "1", **job}},
        {{"{constant}_NODE": "2", **job, **told}},
    ]
    specs = [resolve(env=node, resolver={constant}) for node in nodes]
    assert [spec.rank for spec in specs] == [1, 0, 2]
    assert [spec.host for spec in specs] == ["10.0.0.5", None, "10.0.0.5"]
''',
    ),
    "host": (
        """\
from pathlib import Path

import pytest
from {module} import {constant}, ask

from colossalai_env import resolve
from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import Environ, HostAnswer
from colossalai_env.testing import ResolverContract
""",
        '''\
PROCESS = {{
    "{constant}_RANK": "5",
    "{constant}_WORLD_SIZE": "8",
    "{constant}_LOCAL_RANK": "1",
}}


def test_the_manuals_example_is_read_as_it_says() -> None:
    """The contract cannot know what a variable means; an example of the manual does."""
    spec = resolve(env=PROCESS, resolver={constant})
    assert (spec.rank, spec.world_size, spec.local_rank) == (5, 8, 1)
    assert spec.host is None


def test_rank_0s_host_is_read_from_the_file(tmp_path: Path) -> None:
    """Without the variable the way does not apply; a file that is wrong is an error."""
    spec = resolve(env=PROCESS, resolver={constant})
    table = tmp_path / "table.json"
    environ = Environ({{"{constant}_RANK_TABLE": str(table)}})
    table.write_text(\'{{"ranks": [{{"host": "n1"}}, {{"host": "n2"}}]}}\')
    found = ask(spec, environ, 5)
    assert isinstance(found, HostAnswer)
    assert found.host == "n1"
    assert isinstance(ask(spec, Environ(), 5), str)
    table.write_text(\'{{"ranks": []}}\')
    with pytest.raises(CannotLocate, match="{constant}_RANK_TABLE"):
        ask(spec, environ, 5)
''',
    ),
}
"""For each kind, what its test imports, and the tests beside the contract."""

README = """\
# {distribution}

States to colossalai-env what the variables of {name} mean. The table is in `{module}/__init__.py`: put the
launcher's own variables there, leave a row out where it does not state the field, and say in the docstring where that
is written. `tests/` has the contract that every table keeps, and an example: put the manual's there.

colossalai-env itself is on no package index yet: install it from a checkout, into the same environment.

    pip install PATH/TO/colossalai-env
    pip install -e '.[testing]'
    pytest --hypothesis-profile=quick   # the contract in seconds, while you write
    pytest                              # the contract
    colossalai-env plugins              # it is found
    pip wheel --no-deps --wheel-dir dist .
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("name", type=_name, metavar="NAME", help="the launcher: a-z, 0-9 and dashes")
    parser.add_argument("folder", type=_folder, metavar="DIR", help="where to write; it must be empty or new")
    kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    parser.add_argument(
        "--kind",
        choices=[*KINDS],
        help=f"{kinds}. Where it is left out it is asked for on a terminal, and else process",
    )


def run(options: argparse.Namespace) -> int:
    """Write the distribution, and say what to do with it."""
    kind: str = options.kind or _asked(options.name, quiet=options.json)
    files = distribution(options.name, kind)
    for path, text in files.items():
        whole = os.path.join(options.folder, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w", encoding="utf-8") as file:
            file.write(text)
    if options.json:
        show_json({"folder": options.folder, "kind": kind, "files": [*files]})
    else:
        told = f"wrote {', '.join(files)}\n\nThe kind is {kind}: {KINDS[kind]}."
        show_text(f"{told}\n\n    cd {options.folder}\n    pip install -e '.[testing]' && pytest")
    return 0


def _asked(name: str, *, quiet: bool) -> str:
    """Ask on a terminal of which kind the launcher is; elsewhere it is the first."""
    kinds = [*KINDS]
    if quiet or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return kinds[0]
    show_text(f"What is {name}?")
    for number, kind in enumerate(kinds, 1):
        show_text(f"  {number}  {kind:7}  {KINDS[kind]}")
    while True:
        try:
            typed = input("number or word [1]: ").strip() or "1"
        except EOFError:
            return kinds[0]
        if typed in kinds:
            return typed
        if typed in {str(number + 1) for number in range(len(kinds))}:
            return kinds[int(typed) - 1]


def distribution(name: str, kind: str) -> dict[str, str]:
    """Return the files of a plugin's distribution: their paths and texts."""
    words = {
        "name": name,
        "distribution": f"colossalai-env-{name}",
        "module": f"colossalai_env_{name.replace('-', '_')}",
        "constant": name.replace("-", "_").upper(),
        "camel": "".join(part.capitalize() for part in name.split("-")),
        "version": version("colossalai-env"),
    }
    imports, example = (text.format(**words) for text in EXAMPLES[kind])
    return {
        "pyproject.toml": PYPROJECT.format(**words),
        "README.md": README.format(**words),
        f"{words['module']}/__init__.py": _renamed(kind, name, words["constant"]),
        f"{words['module']}/py.typed": "",
        "tests/conftest.py": CONFTEST,
        f"tests/test_{words['module']}.py": TEST.format(imports=imports, example=example, **words),
    }


def _renamed(kind: str, name: str, constant: str) -> str:
    """Return the source of a kind's template, in the new launcher's names."""
    path = os.path.join(os.path.dirname(__file__), "skeletons", f"{kind}.py")
    with open(path, encoding="utf-8") as file:
        source = file.read()
    return re.sub(rf"\b{SKELETON}\b", name, source).replace(SKELETON.upper(), constant)


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", text):
        msg = f"{text!r} is no name for a launcher: use a-z, 0-9 and single dashes, a letter first"
        raise argparse.ArgumentTypeError(msg)
    if text in {plugin.name for plugin in installed()}:
        msg = f"a plugin {text!r} is installed already: choose another name, or uninstall it"
        raise argparse.ArgumentTypeError(msg)
    return text


def _folder(text: str) -> str:
    if os.path.exists(text) and (not os.path.isdir(text) or os.listdir(text)):
        msg = f"{text!r} is there already: name a folder that is empty or new"
        raise argparse.ArgumentTypeError(msg)
    return text
