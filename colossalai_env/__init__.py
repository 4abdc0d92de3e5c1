"""The one translator from launchers' environments to "who am I in this job?".

Importing it imports neither torch nor a plugin. Authors of resolvers import from `colossalai_env.resolver`; the errors
are in `colossalai_env.errors`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._resolution import resolve
from .errors import ColossalaiEnvError
from .spec import DistSpec

if TYPE_CHECKING:
    from ._config import Config, load_config
    from ._explain import Explanation, explain
    from ._job import Job, Peer
    from ._join import init_from_env
    from ._launch import get_default_parser, launch, launch_from_openmpi, launch_from_slurm, launch_from_torch
    from ._version import __version__

_LATE = {
    "Config": "_config",
    "Explanation": "_explain",
    "Job": "_job",
    "Peer": "_job",
    "explain": "_explain",
    "get_default_parser": "_launch",
    "init_from_env": "_join",
    "launch": "_launch",
    "launch_from_openmpi": "_launch",
    "launch_from_slurm": "_launch",
    "launch_from_torch": "_launch",
    "load_config": "_config",
    "__version__": "_version",
}
"""Names whose modules are imported when they are first used."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - each name has its own type
    if name not in _LATE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f".{_LATE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})


__all__ = [
    "ColossalaiEnvError",
    "Config",
    "DistSpec",
    "Explanation",
    "Job",
    "Peer",
    "__version__",
    "explain",
    "get_default_parser",
    "init_from_env",
    "launch",
    "launch_from_openmpi",
    "launch_from_slurm",
    "launch_from_torch",
    "load_config",
    "resolve",
]
