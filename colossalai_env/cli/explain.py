"""Explain who this process is in its job: who was asked, who claims it, who won, and where each value came from.

With --env-file, explain a process of somebody else, such as one of a bug report, from what `env` printed there.

Examples:
  srun -n2 colossalai-env explain
  env > dump; colossalai-env explain --env-file dump -- --rank 3 --world_size 4

"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from typing import Any, cast

from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError
from colossalai_env.report import explain

from .output import on_terminal, show_json, show_table, show_text

ASSIGNMENT = re.compile(r"([A-Za-z_]\w*(?:%%|\(\))?)=(.*)", re.ASCII | re.DOTALL)
"""A line that begins a variable; bash exports functions under names that end in ``%%``."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "--env-file",
        type=captured,
        metavar="FILE",
        help="explain this environment and no other: what `env` or `env -0` printed, or a JSON object; - reads it here",
    )
    parser.add_argument("--resolver", metavar="NAME", help="ask this resolver alone")
    parser.add_argument("words", nargs="*", metavar="ARGUMENT", help="the training script's own arguments, after --")


def run(options: argparse.Namespace) -> int:
    """Explain; the code is 1 where `resolve` refuses."""
    variables = Environ.snapshot().variables if options.env_file is None else options.env_file
    explanation = explain(env=variables, argv=options.words, resolver=options.resolver)
    if options.json:
        show_json(explanation.to_dict())
    elif on_terminal():
        _show(explanation.to_dict())
    else:
        show_text(str(explanation))
    return 1 if isinstance(explanation.resolution.outcome, ColossalaiEnvError) else 0


def _show(report: Mapping[str, Any]) -> None:
    rows = [[item["name"], item["layer"], _verdict(item)] for item in report["resolvers"]]
    show_table(["resolver", "layer", "answer"], rows)
    if "error" in report:
        show_text(f"{report['error']['type']}: {report['error']['message']}")
        return
    fields = report["spec"].items()
    show_table(
        ["field", "value", "from"],
        [
            [name, "not said" if value is None else str(value), report["sources"].get(name, "")]
            for name, value in fields
        ],
    )


def _verdict(item: Mapping[str, Any]) -> str:
    if item["verdict"] == "claim":
        return f"{'wins' if item['won'] else 'outranked'}: rank {item['rank']} of {item['world_size']}"
    partial = f", only {', '.join(item['found'])} set" if item.get("found") else ""
    return f"{'no' if item['verdict'] == 'not mine' else 'unusable'}: {item['reason']}{partial}"


def captured(path: str) -> Mapping[str, str]:
    """Read the variables of a captured environment."""
    try:
        if path == "-":
            text = sys.stdin.read()
        else:
            with open(path, encoding="utf-8", errors="surrogateescape") as file:
                text = file.read()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error.strerror}") from None
    return _json(path, text) if text.lstrip().startswith("{") else _listed(path, text)


def _json(path: str, text: str) -> Mapping[str, str]:
    try:
        found = cast("dict[str, Any]", json.loads(text))
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{path}, line {error.lineno}: {error.msg}") from None
    for name, value in found.items():
        if not isinstance(value, str):
            raise argparse.ArgumentTypeError(f"{path}: {name} is {value!r}, expected a text, as all variables are")
    return found


def _listed(path: str, text: str) -> Mapping[str, str]:
    variables: dict[str, str] = {}
    name = ""
    for number, line in enumerate(text.strip("\n\0").split("\0" if "\0" in text else "\n"), 1):
        begins = ASSIGNMENT.fullmatch(line)
        if begins:
            name, variables[begins[1]] = begins[1], begins[2]
        elif name:  # a value of several lines
            variables[name] += f"\n{line}"
        elif line:
            raise argparse.ArgumentTypeError(
                f"{path}, line {number} is {line!r}, expected NAME=VALUE, as env prints it"
            )
    return variables
