"""What the caller gave: keywords, then the fields of a parsed namespace."""

from typing import Any, NamedTuple

from ._rows import READERS, text
from .errors import MalformedVariable

ARGUMENTS = ("rank", "world_size", "local_rank", "host", "port", "backend")
"""The fields that callers can give, by keyword or in a parsed namespace."""

NOT_GIVEN = (None, -1, "-1", "")
"""What stands for "not given": -1 is so in `torch.distributed.init_process_group` and in most training scripts."""


class Given(NamedTuple):
    """A value that the caller gave, and where."""

    value: Any
    source: str


def arguments(args: object = None, **keywords: Any) -> dict[str, Given]:  # noqa: ANN401 - fields of several types
    """Collect what the caller gave: keywords first, then the namespace `args`."""
    given = {name: Given(value, f"argument {name}") for name, value in keywords.items() if value not in NOT_GIVEN}
    for name in ARGUMENTS if args is not None else ():
        value = getattr(args, name, None)
        if name not in given and value not in NOT_GIVEN:
            given[name] = Given(parsed(name, value, f"--{name}"), f"args.{name}")
    return given


def parsed(field: str, value: object, option: str) -> object:
    """Read a field's text as its option would be read; raise `MalformedVariable`."""
    if not isinstance(value, str):
        return value
    try:
        return READERS.get(field, text)(value)
    except ValueError as expected:
        raise MalformedVariable("arguments", option, value, str(expected)) from None
