"""What the caller gave: keywords, then the fields of a parsed namespace."""

from typing import Any, NamedTuple

from ._rows import READERS, text
from .environ import Environ
from .errors import ColossalaiEnvError, InvalidArgument, MalformedVariable, quoted
from .spec import DistSpec

ARGUMENTS = ("rank", "world_size", "local_rank", "host", "port", "backend")
"""The fields that callers can give, by keyword or in a parsed namespace."""

TEXTS = frozenset({"host", "backend"})
"""Those whose values are texts; the others are whole numbers."""

NO_NAMESPACES = frozenset({bool, bytes, dict, float, int, list, set, str, tuple})
"""What is handed in as `args` by mistake: `vars(args)`, or the pair that `parse_known_args()` returns."""

NOT_GIVEN = (None, -1, "-1", "")
"""What stands for "not given": -1 is so in `torch.distributed.init_process_group` and in most training scripts."""


BACKENDS = frozenset({"ccl", "cncl", "gloo", "hccl", "mpi", "nccl", "ucc", "xccl"})
"""Values of ``--backend`` that mean torch.distributed's; other programs' options bear that name too."""


OURS = tuple(f"COLOSSALAI_ENV_{name}" for name in ("DISABLE", "JOB_ID", "LOCATE", "RESOLVER", "ROLL_CALL"))
"""This library's own variables."""


class Default(str):
    """What a parser holds where nothing was typed: a launch function takes it, and it overrides no choice."""

    __slots__ = ()


class Given(NamedTuple):
    """A value that the caller gave, and where."""

    value: Any
    source: str


def arguments(args: object = None, **keywords: Any) -> dict[str, Given]:  # noqa: ANN401 - fields of several types
    """Collect what the caller gave: keywords first, then the namespace `args`; `misfit` tells what cannot be meant."""
    given = {
        name: Given(str(value) if isinstance(value, Default) else value, f"argument {name}")
        for name, value in keywords.items()
        if value not in NOT_GIVEN
    }
    for name in ARGUMENTS if args is not None else ():
        value = getattr(args, name, None)
        if name not in given and value not in NOT_GIVEN and not isinstance(value, Default):
            given[name] = Given(read(name, value), f"args.{name}")
    if type(args) in NO_NAMESPACES:
        given["args"] = Given(args, "argument args")
    return given


def read(field: str, value: object) -> object:
    """Read a field's text as its option would be read; return what cannot be read as it is."""
    try:
        return READERS.get(field, text)(value) if isinstance(value, str) else value
    except ValueError:
        return value


def misfit(field: str, item: Given) -> ColossalaiEnvError | None:
    """Return the error where the caller gave a field what it cannot be."""
    if field == "args":
        return InvalidArgument(item.source, quoted(item.value), "a namespace, as parser.parse_args() returns it")
    value, kind = item.value, str if field in TEXTS else int
    try:
        READERS.get(field, text)(str(value) if type(value) is kind else "")
    except ValueError as expected:
        if isinstance(value, str) and not item.source.startswith("argument "):
            return MalformedVariable("arguments", f"--{field}", value, str(expected))
        meaning = str(expected).removesuffix(" in plain digits")
        return InvalidArgument(item.source, quoted(value), f"{'an int' if kind is int else 'a str'}, {meaning}")
    return None


def unread(environ: Environ, spec: DistSpec) -> tuple[str, ...]:
    """Return a warning where a backend was typed that nobody handed in: alone, the option may be another program's."""
    typed = environ.get("--backend") if spec.backend is None else None
    if typed is None or not BACKENDS.issuperset(pair.rpartition(":")[2] for pair in typed.lower().split(",")):
        return ()
    warning = f"--backend {typed} is not read, since nothing hands it in: call init_from_env(args=parser.parse_args())"
    return (f"{warning}, or init_from_env(backend=...)",)


def mistyped(environ: Environ) -> tuple[str, ...]:
    """Return a warning for each variable that is named as this library's own are, and is none of them."""
    names = [name for name in environ.variables if name.startswith("COLOSSALAI_ENV_") and name not in OURS]
    if not names:
        return ()
    from difflib import get_close_matches

    return tuple(
        f"{name} is set, which nothing reads: {get_close_matches(name, OURS, 1, 0)[0]} may be meant" for name in names
    )
