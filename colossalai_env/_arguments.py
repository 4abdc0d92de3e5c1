"""What the caller gave: keywords, then the fields of a parsed namespace."""

from typing import Any, NamedTuple

from ._rows import READERS, text
from .environ import Environ
from .errors import MalformedVariable
from .spec import DistSpec

ARGUMENTS = ("rank", "world_size", "local_rank", "host", "port", "backend")
"""The fields that callers can give, by keyword or in a parsed namespace."""

NOT_GIVEN = (None, -1, "-1", "")
"""What stands for "not given": -1 is so in `torch.distributed.init_process_group` and in most training scripts."""


BACKENDS = frozenset({"ccl", "cncl", "gloo", "hccl", "mpi", "nccl", "ucc", "xccl"})
"""Values of ``--backend`` that mean torch.distributed's; other programs' options bear that name too."""


class Default(str):
    """What a parser holds where nothing was typed: a launch function takes it, and it overrides no choice."""

    __slots__ = ()


class Given(NamedTuple):
    """A value that the caller gave, and where."""

    value: Any
    source: str


def arguments(args: object = None, **keywords: Any) -> dict[str, Given]:  # noqa: ANN401 - fields of several types
    """Collect what the caller gave: keywords first, then the namespace `args`."""
    given = {
        name: Given(str(value) if isinstance(value, Default) else value, f"argument {name}")
        for name, value in keywords.items()
        if value not in NOT_GIVEN
    }
    for name in ARGUMENTS if args is not None else ():
        value = getattr(args, name, None)
        if name not in given and value not in NOT_GIVEN and not isinstance(value, Default):
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


def unread(environ: Environ, spec: DistSpec) -> tuple[str, ...]:
    """Return a warning where a backend was typed that nobody handed in: alone, the option may be another program's."""
    typed = environ.get("--backend") if spec.backend is None else None
    if typed is None or not BACKENDS.issuperset(pair.rpartition(":")[2] for pair in typed.lower().split(",")):
        return ()
    warning = f"--backend {typed} is not read, since nothing hands it in: call init_from_env(args=parser.parse_args())"
    return (f"{warning}, or init_from_env(backend=...)",)
