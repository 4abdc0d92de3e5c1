"""Write a plugin for a launcher: a distribution that is typed, tested and can be installed at once.

Example:
  colossalai-env new-plugin house ./colossalai-env-house

"""

import argparse
import ast
import inspect
import os
import re
from importlib import import_module
from importlib.metadata import version

from colossalai_env._registry import installed, resolvers
from colossalai_env.environ import Environ
from colossalai_env.resolver import Resolver

from .output import show_json, show_text

TEMPLATE = "openmpi"
"""The installed plugin whose package is the template: a table of plain variables."""

DOC = '''"""The launcher {name}.

Facts: say here where they come from: a manual, a version that was run.
"""
'''

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

TEST = '''\
"""The contract, for {name}."""

from {module} import {constant}

from colossalai_env.testing import ResolverContract


class Test{camel}(ResolverContract):
    resolver = {constant}
'''

README = """\
# {distribution}

Tells [colossalai-env](https://pypi.org/project/colossalai-env/) what the variables of {name} mean. The table is in
`{module}/__init__.py`: put the launcher's own variables there, leave a row out where it does not say, and
say in the module's docstring where that is written.

    pip install -e '.[testing]'
    pytest                          # the contract
    colossalai-env plugins          # it is found
    python -m build                 # what is published
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("name", type=_name, metavar="NAME", help="the launcher: a-z, 0-9 and dashes")
    parser.add_argument("folder", type=_folder, metavar="DIR", help="where to write; it must be empty or new")


def run(options: argparse.Namespace) -> int:
    """Write the distribution, and say what to do with it."""
    files = distribution(options.name)
    for path, text in files.items():
        whole = os.path.join(options.folder, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w", encoding="utf-8") as file:
            file.write(text)
    if options.json:
        show_json({"folder": options.folder, "files": [*files]})
    else:
        show_text(f"wrote {', '.join(files)}\n\n    cd {options.folder}\n    pip install -e '.[testing]' && pytest")
    return 0


def distribution(name: str) -> dict[str, str]:
    """Return the files of a plugin's distribution: their paths and texts."""
    words = {
        "name": name,
        "distribution": f"colossalai-env-{name}",
        "module": f"colossalai_env_{name.replace('-', '_')}",
        "constant": name.replace("-", "_").upper(),
        "camel": "".join(part.capitalize() for part in name.split("-")),
        "version": version("colossalai-env"),
    }
    return {
        "pyproject.toml": PYPROJECT.format(**words),
        "README.md": README.format(**words),
        f"{words['module']}/__init__.py": DOC.format(**words) + _renamed(name, words["constant"]),
        f"{words['module']}/py.typed": "",
        f"tests/test_{words['module']}.py": TEST.format(**words),
    }


def _renamed(name: str, constant: str) -> str:
    """Return the template's source, without its docstring and its ways to ask, in the new launcher's names."""
    (item,) = (item for item in resolvers(Environ()) if item.resolver.name == TEMPLATE)
    if not isinstance(item.resolver, Resolver):
        raise TypeError(item.resolver)
    source = inspect.getsource(import_module(item.plugin.module))
    for field, row in item.resolver.rows():
        for variable in row.inputs()[0].names:
            source = re.sub(rf"\b{variable}\b", f"{constant}_{field.upper()}", source)
    for old, new in ((TEMPLATE, name), (TEMPLATE.upper(), constant), (TEMPLATE.capitalize(), name)):
        source = re.sub(rf"\b{old}\b", new, source)
    return _without_asking(source)


def _without_asking(source: str) -> str:
    """Leave out the docstring, the functions that ask the launcher, and what is imported for them."""
    tree, lines = ast.parse(source), source.splitlines(keepends=True)
    ways = [word for word in ast.walk(tree) if isinstance(word, ast.keyword) and word.arg == "locate"]
    asking = {word.id for way in ways for word in ast.walk(way) if isinstance(word, ast.Name)}
    dropped = [item for item in tree.body if isinstance(item, ast.FunctionDef) and item.name in asking]
    gone: list[ast.stmt | ast.keyword] = [tree.body[0], *dropped, *ways]
    spans = [(item.lineno - 1, (item.end_lineno or 0) + 2 * isinstance(item, ast.FunctionDef)) for item in gone]
    for first, end in sorted(spans, reverse=True):
        lines[first:end] = []
    left = "".join(lines)
    used = {word.id for word in ast.walk(ast.parse(left)) if isinstance(word, ast.Name)}

    def kept(found: re.Match[str]) -> str:
        return found[1] + ", ".join(name for name in found[2].split(", ") if name in used)

    return re.sub(r"^(from \S+ import )(.*)$", kept, left, flags=re.MULTILINE)


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
