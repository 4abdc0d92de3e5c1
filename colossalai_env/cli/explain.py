"""Explain who this process is in its job: who was asked, who claims it, who won, and where each value came from.

With --env-file, explain a process of somebody else, such as one of a bug report, from what `env` printed there.

Examples:
  srun -n2 colossalai-env explain
  env > dump; colossalai-env explain --env-file dump -- --rank 3 --world_size 4
  colossalai-env explain --env-file /proc/4711/environ

docs/reference/errors.md says of each error when it is raised and what to do.

"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

import attrs

from colossalai_env._explain import Explanation, explain, where_told
from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError

from .output import on_terminal, show_json, show_table, show_text

NAME = re.compile(r"[A-Za-z_][\w.-]*(?:%%|\(\))?", re.ASCII)
"""A variable's name; bash exports functions under names that end in ``%%``."""


@attrs.frozen
class Captured:
    """What a process was started with, and its host where that is known; ``repr`` shows no values."""

    variables: Mapping[str, str] = attrs.field(repr=False)
    argv: Sequence[str] = ()
    hostname: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument(
        "--env-file",
        type=captured,
        metavar="FILE",
        help="explain this environment and no other: what `env` or `env -0` printed, a JSON object, or a launch that "
        "colossalai_env.testing recorded; - reads it here",
    )
    parser.add_argument("--resolver", metavar="NAME", help="ask this resolver alone")
    parser.add_argument("words", nargs="*", metavar="ARGUMENT", help="the training script's own arguments, after --")


def run(options: argparse.Namespace) -> int:
    """Explain; the code is 1 where `resolve` refuses."""
    found: Captured | tuple[Captured, ...] | None = options.env_file
    if isinstance(found, tuple):
        explained = [(task, _explained(task, options)) for task in found]
        if options.json:
            show_json({"tasks": [{"hostname": task.hostname, **item.to_dict()} for task, item in explained]})
        else:
            for number, (task, item) in enumerate(explained):
                show_text(("\n" if number else "") + f"Task {number} on {task.hostname}")
                _show(item)
        return max(_code(item) for _, item in explained)
    explanation = _explained(found or Captured(Environ.snapshot().variables), options)
    if options.json:
        show_json(explanation.to_dict())
    else:
        _show(explanation)
    return _code(explanation)


def _explained(process: Captured, options: argparse.Namespace) -> Explanation:
    return explain(env=process.variables, argv=options.words or process.argv, resolver=options.resolver)


def _code(explanation: Explanation) -> int:
    return 1 if isinstance(explanation.resolution.outcome, ColossalaiEnvError) else 0


def _show(explanation: Explanation) -> None:
    if not on_terminal():
        show_text(str(explanation))
        return
    report = explanation.to_dict()
    rows = [[item["name"], item["layer"], _answer(item)] for item in report["resolvers"]]
    show_table(["resolver", "layer", "answer"], rows)
    for warning in report["warnings"]:
        show_text(f"Warning: {warning}")
    if "error" in report:
        show_text(f"{report['error']['type']}: {report['error']['message']}")
        show_text(where_told(report["error"]["type"]))
        return
    fields = report["spec"].items()
    show_table(
        ["field", "value", "from"],
        [
            [name, str(value), report["sources"].get(name, "")]
            if value is not None
            else [name, "unknown", explanation.how_found(name)]
            for name, value in fields
        ],
    )


def _answer(item: Mapping[str, Any]) -> str:
    if item["answer"] == "claim":
        return f"{'wins' if item['won'] else 'outranked'}: rank {item['rank']} of {item['world_size']}"
    partial = f", only {', '.join(item['found'])} set" if item.get("found") else ""
    return f"{'no' if item['answer'] == 'no match' else 'invalid'}: {item['reason']}{partial}"


def captured(path: str) -> Captured | tuple[Captured, ...]:
    """Read the variables of a captured environment, or those of each task of a recorded launch."""
    try:
        if path == "-":
            if sys.stdin is None:  # as after <&-
                raise argparse.ArgumentTypeError("- is standard input, which is closed")
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error.strerror}") from None
    text = data.decode(errors="surrogateescape").removeprefix("\ufeff")
    if text.lstrip().startswith("{"):
        return _json(path, text)
    # a file that went through Windows has \r on every line; on one line it belongs to the value, and explains much
    if text.count("\r\n") == text.count("\n"):
        text = text.replace("\r\n", "\n")
    return Captured(_listed(path, text.strip("\n\0")))


def _json(path: str, text: str) -> Captured | tuple[Captured, ...]:
    try:
        found = cast("dict[str, Any]", json.loads(text))
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{path}, line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise argparse.ArgumentTypeError(f"{path} is nested too deeply, expected names and texts") from None
    if not isinstance(found.get("tasks"), list):
        return Captured(_texts(path, found))
    try:
        tasks = [(task["rank_env"], task["argv"], task["hostname"]) for task in found["tasks"]]
    except (KeyError, TypeError):
        tasks = []
    if not tasks:
        msg = f"{path}: tasks is no recorded launch, expected a list of objects with hostname, argv and rank_env"
        raise argparse.ArgumentTypeError(msg)
    return tuple(Captured(_texts(path, variables), argv, host) for variables, argv, host in tasks)


def _texts(path: str, found: Mapping[str, Any]) -> Mapping[str, str]:
    for name, value in found.items():
        if not isinstance(value, str):
            told = repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"  # no secrets
            raise argparse.ArgumentTypeError(f"{path}: {name} is {told}, expected a text, as all variables are")
    return found


def _listed(path: str, text: str) -> Mapping[str, str]:
    """Read what `env` printed, where a value of several lines looks as further lines, or `env -0`, which is exact."""
    exact = "\0" in text
    variables: dict[str, str] = {}
    name = ""
    for number, part in enumerate(text.split("\0" if exact else "\n"), 1):
        begin, equals, value = part.partition("=")
        if equals and (exact or NAME.fullmatch(begin)):
            name, variables[begin] = begin, value
        elif name and not exact:
            variables[name] += f"\n{part}"
        elif part:  # what stands behind the = may be secret
            where = f"{path}, {'entry' if exact else 'line'} {number}"
            raise argparse.ArgumentTypeError(
                f"{where} is {(begin + equals)[:40]!r}, expected NAME=VALUE, as env prints it"
            )
    return variables
