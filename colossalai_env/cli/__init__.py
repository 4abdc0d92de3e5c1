"""The command colossalai-env. Each of its commands is a module, imported when the command is typed.

Exit codes: 0, all is well; 1, the launch or the machine is not, as the output says; 2, the command was typed wrongly;
130, it was interrupted.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType

from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError

from .output import show_error, show_json

COMMANDS: Mapping[str, str] = {
    "explain": "who this process is in its job, who says so, and why not the others",
    "check": "whether this launch works: run it in place of the training script, under the launcher",
    "doctor": "whether this machine lets ranks meet: versions, devices, names, limits",
    "plugins": "the resolvers that are installed, what they read, and what is disabled or unusable",
    "new-plugin": "write a plugin for a launcher of your own: typed, tested, ready to be installed",
}
"""The commands and what they tell. A command's module has the functions `arguments(parser)` and `run(options)`."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells count it: 128 and the signal's number."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Return the parser of one command's options."""
    module = _module(command)
    about, _, example = (module.__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog=f"colossalai-env {command}",
        description=about,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` defaults to this process's arguments."""
    words = Environ.snapshot().argv if argv is None else argv
    if not words or words[0] not in COMMANDS:
        return _usage(words)
    try:
        return _run(words[0], words[1:])
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(command: str, words: Sequence[str]) -> int:
    options = parser_of(command).parse_args(words)
    try:
        code: int = _module(command).run(options)
    except ColossalaiEnvError as error:
        if options.json:
            show_json({"error": {"type": type(error).__name__, "message": str(error)}})
        else:
            show_error(error)
        return 1
    return code


def _module(command: str) -> ModuleType:
    return import_module(f"{__name__}.{command.replace('-', '_')}")


def _usage(words: Sequence[str]) -> int:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {about}" for name, about in COMMANDS.items())
    text = f"usage: colossalai-env COMMAND [--json] [...]\n\n{commands}\n\nMore: colossalai-env COMMAND --help\n"
    if words and words[0] in {"-h", "--help"}:
        sys.stdout.write(text)
        return 0
    found = f"there is no command {words[0]!r}" if words else "a command is missing"
    sys.stderr.write(f"{text}\ncolossalai-env: {found}: type one of {', '.join(COMMANDS)}\n")
    return 2
