"""The one translator from launchers' environments to "who am I in this job?".

Importing it imports neither torch nor a plugin.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .environ import Environ
from .errors import (
    AlreadyInitialised,
    BrokenPlugin,
    CannotLocate,
    ChildOfRank,
    ColossalaiEnvError,
    ConflictingResolvers,
    ContradictoryVariables,
    Disagreement,
    DuplicateRank,
    GroupFailed,
    IncompleteArguments,
    InvalidConfig,
    InvalidSpec,
    LostRanks,
    MalformedVariable,
    MissingRanks,
    MissingVariable,
    NoAgent,
    NodeLevelRanks,
    NoSuchDevice,
    NotAWorld,
    NotMyAddress,
    PartialEnvironment,
    PortTaken,
    RankFailed,
    RankZeroUnreachable,
    ReadOnlyConfig,
    ResolverDoesNotMatch,
    RivalPlugins,
    RollCallFailed,
    SharedDevice,
    SlowImport,
    Stranger,
    Surplus,
    TooFewFileDescriptors,
    UnknownBackend,
    UnknownConfigEntry,
    UnknownEndpoint,
    UnknownResolver,
    UnresolvableHost,
    UnsupportedPlatform,
    UnusableDevices,
    WrongLauncher,
)
from .hookspecs import hookimpl
from .resolution import resolve
from .resolver import (
    Answer,
    Claim,
    Directory,
    Layer,
    Located,
    NotMine,
    Resolver,
    ResolverProtocol,
    Unusable,
    Way,
    all_of,
    any_of,
)
from .rows import derive, either, var
from .spec import DistSpec, host_name, port_number, size, whole_number

if TYPE_CHECKING:
    from .addresses import own_address
    from .colossal import get_default_parser, launch, launch_from_openmpi, launch_from_slurm, launch_from_torch
    from .config import Config, load_config
    from .init import init_from_env
    from .job import Job, Peer
    from .report import Explanation, explain

_LATE = {
    "Config": "config",
    "Explanation": "report",
    "Job": "job",
    "Peer": "job",
    "explain": "report",
    "get_default_parser": "colossal",
    "init_from_env": "init",
    "launch": "colossal",
    "launch_from_openmpi": "colossal",
    "launch_from_slurm": "colossal",
    "launch_from_torch": "colossal",
    "load_config": "config",
    "own_address": "addresses",
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
    "AlreadyInitialised",
    "Answer",
    "BrokenPlugin",
    "CannotLocate",
    "ChildOfRank",
    "Claim",
    "ColossalaiEnvError",
    "Config",
    "ConflictingResolvers",
    "ContradictoryVariables",
    "Directory",
    "Disagreement",
    "DistSpec",
    "DuplicateRank",
    "Environ",
    "Explanation",
    "GroupFailed",
    "IncompleteArguments",
    "InvalidConfig",
    "InvalidSpec",
    "Job",
    "Layer",
    "Located",
    "LostRanks",
    "MalformedVariable",
    "MissingRanks",
    "MissingVariable",
    "NoAgent",
    "NoSuchDevice",
    "NodeLevelRanks",
    "NotAWorld",
    "NotMine",
    "NotMyAddress",
    "PartialEnvironment",
    "Peer",
    "PortTaken",
    "RankFailed",
    "RankZeroUnreachable",
    "ReadOnlyConfig",
    "Resolver",
    "ResolverDoesNotMatch",
    "ResolverProtocol",
    "RivalPlugins",
    "RollCallFailed",
    "SharedDevice",
    "SlowImport",
    "Stranger",
    "Surplus",
    "TooFewFileDescriptors",
    "UnknownBackend",
    "UnknownConfigEntry",
    "UnknownEndpoint",
    "UnknownResolver",
    "UnresolvableHost",
    "UnsupportedPlatform",
    "Unusable",
    "UnusableDevices",
    "Way",
    "WrongLauncher",
    "all_of",
    "any_of",
    "derive",
    "either",
    "explain",
    "get_default_parser",
    "hookimpl",
    "host_name",
    "init_from_env",
    "launch",
    "launch_from_openmpi",
    "launch_from_slurm",
    "launch_from_torch",
    "load_config",
    "own_address",
    "port_number",
    "resolve",
    "size",
    "var",
    "whole_number",
]
