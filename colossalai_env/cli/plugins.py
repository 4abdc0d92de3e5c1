"""List the resolvers that are installed: whose they are, what they read, and what is disabled or unusable and why.

Example:
  COLOSSALAI_ENV_DISABLE=hydra colossalai-env plugins

"""

import argparse
from typing import Any

from colossalai_env._registry import DISABLE, Plugin, Registered, disabled, installed, load, resolvers
from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError

from .output import show_json, show_table, show_text

QUIET = ("disabled", "empty")
"""States that are worth a line, and no fault."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options: none of its own."""
    del parser


def run(options: argparse.Namespace) -> int:
    """List; the code is 1 where a plugin is unusable or two have one name."""
    environ, plugins = Environ.snapshot(), installed()
    without = disabled(environ, plugins)
    found = [row for plugin in plugins for row in _rows(plugin, plugin.name in without)]
    problems = [row["problem"] for row in found if row["state"] == "unusable"]
    if not problems:
        try:
            resolvers(environ)
        except ColossalaiEnvError as error:  # each is sound, but they do not go together
            problems.append(str(error))
    if options.json:
        show_json({"plugins": found, "problems": problems})
        return 1 if problems else 0
    columns = ["plugin", "distribution", "state", "resolver", "layer", "asks by"]
    keys = ["plugin", "distribution", "state", "resolver", "layer", "ways"]
    show_table(columns, [[_cell(row[key]) for key in keys] for row in found])
    reads = [f"{row['resolver']} reads {', '.join(row['variables'])}" for row in found if row["variables"]]
    notes = [f"{row['plugin']} is {row['state']}: {row['problem']}" for row in found if row["state"] in QUIET]
    show_text("\n".join([*reads, *notes, *problems]))
    return 1 if problems else 0


def _cell(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType]


def _rows(plugin: Plugin, is_disabled: bool) -> list[dict[str, Any]]:
    row: dict[str, Any] = {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "state": "ready",
        "resolver": "",
        "layer": "",
        "variables": [],
        "ways": [],
        "problem": "",
    }
    if is_disabled:
        return [{**row, "state": "disabled", "problem": f"{DISABLE} names it"}]
    try:
        rows = [{**row, **_told(item)} for item in load([plugin])[plugin.name]]
    except ColossalaiEnvError as error:
        return [{**row, "state": "unusable", "problem": str(error)}]
    return rows or [{**row, "state": "empty", "problem": "its hook brings no resolver"}]


def _told(item: Registered) -> dict[str, Any]:
    resolver: Any = item.resolver  # what a plugin need not have is looked for
    try:
        variables = list(resolver.variables()) if hasattr(resolver, "variables") else []
        ways = [way.name for way in getattr(resolver, "locate", ())]
    except Exception as error:
        problem = f"its resolver {resolver.name!r} does not tell what it reads: {type(error).__name__}: {error}"
        raise item.plugin.broken(problem) from error
    return {"resolver": resolver.name, "layer": resolver.layer.name.lower(), "variables": variables, "ways": ways}
