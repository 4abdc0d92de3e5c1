"""Every deliberate error: what was found, what was expected, and what to type next.

    ColossalaiEnvError
      ResolutionError      who is this process? Mend the script or the launch, and start anew.
        InvalidSpec  MalformedVariable  MissingVariable  NotAsked  ContradictoryVariables  PartialEnvironment
        NotLaunched  ConflictingResolvers  ResolverDoesNotMatch  InvalidArgument  IncompleteArguments
      PluginError          what is installed cannot be used.
        NoPlugins  BrokenPlugin  RivalPlugins  UnknownResolver
      ConfigError          the config of the program is wrong.
        InvalidConfig  UnknownConfigEntry  ReadOnlyConfig
      RendezvousError      the ranks did not meet: it may do to try again.
        UnknownEndpoint  CannotLocate  UnresolvableHost  NotMyAddress  PortTaken  TooFewFileDescriptors
        RankZeroUnreachable  AgentStoreUnreachable  SlowImport  ForeignStore  OtherVersion  ExtraProcess
        MissingRanks  DuplicateRank  InconsistentRanks  PartialEndpoint  RankFailed  LostRanks
      DeviceError          this process has no accelerator, or not one of its own.
        UnknownBackend  NoSuchDevice  UnusableDevices  SharedDevice  NodeLevelRanks
        GroupError         the ranks met, and the process group was not made.
          GroupFailed
      LaunchError          the call is in the wrong place.
        WrongLauncher  AlreadyInitialized  NoGroup  WrongGroup  NotYetKnown  WrongDevices  ChildOfRank
        UnsupportedPlatform  UnsupportedTorch

Those of the first two kinds are here; the others are imported when they are first named.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    from ._config import *  # noqa: F403 - lists nothing twice
    from ._devices import *  # noqa: F403 - lists nothing twice
    from ._launch import *  # noqa: F403 - lists nothing twice
    from ._rendezvous import *  # noqa: F403 - lists nothing twice
else:
    dataclass_transform = lambda **_: lambda cls: cls  # noqa: E731 - for type checkers alone, and not in Python 3.10


def where(rank: int | None, host: str | None = None) -> str:
    """Return ``" (rank 3 on gpu-a02)"``, or as much of it as is known."""
    words = [f"rank {rank}" if rank is not None else "", f"on {host}" if host else ""]
    known = " ".join(word for word in words if word)
    return f" ({known})" if known else ""


LONGEST = 200
"""Characters of a value that a sentence shows: the ranks hand their errors on, and a value may be a whole file."""


def quoted(value: object) -> str:
    """Return the value as Python writes it, or its beginning and how long it is."""
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]!r}... ({len(value)} characters)"
    shown = repr(value)
    return shown if isinstance(value, str) or len(shown) <= LONGEST else f"{shown[:LONGEST]}..."


UNEXPANDED = ("$", "%", "{{", "<")
"""Beginnings of what a shell, a launcher or a template should have put a value in the place of."""


def _signature(error: type[Exception]) -> Signature:
    """Return what makes an error: the fields of its parent, then its own annotations."""
    if not issubclass(error, ColossalaiEnvError):
        return Signature()
    own = vars(error)
    fields = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=own.get(name, Parameter.empty), annotation=kind)
        for name, kind in own.get("__annotations__", {}).items()
        if name != "__signature__"
    ]
    return Signature([*_signature(error.__bases__[0]).parameters.values(), *fields])


class _Fields:
    """The signature of an error's class, found out when it is first asked for: few processes ever raise one."""

    def __init__(self) -> None:
        self._found: dict[type[Exception], Signature] = {}

    def __get__(self, error: object, kind: type[Exception]) -> Signature:
        if kind not in self._found:
            self._found[kind] = _signature(kind)
        return self._found[kind]


@dataclass_transform(frozen_default=True)
class ColossalaiEnvError(Exception):
    """The parent of every deliberate error of this library; catch it to catch them all."""

    # attrs would compile methods for each of these classes in every process, though few processes ever raise one.
    __signature__: ClassVar[_Fields] = _Fields()

    def __init_subclass__(cls) -> None:
        if cls.__module__.startswith(f"{__name__}."):  # the rooms of this package are its own business
            cls.__module__ = __name__

    def __init__(self, *values: object, **named: object) -> None:
        found = self.__signature__.bind(*values, **named)
        found.apply_defaults()
        super().__init__(*found.args)  # what pickle hands over
        vars(self).update(found.arguments)

    def values(self) -> dict[str, Any]:
        """Return the values of the error's fields, by name."""
        return {name: getattr(self, name) for name in self.__signature__.parameters}


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def ends_at_caller(call: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Raise this library's errors without the frames in between: users see their own line, then the sentence.

    The whole traceback is logged at level DEBUG.
    """

    @wraps(call)
    def called(*args: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        try:
            return call(*args, **keywords)
        except ColossalaiEnvError as error:
            import logging

            logging.getLogger("colossalai_env").debug("%s failed", call.__name__, exc_info=True)
            error.__suppress_context__ = True
            raise error.with_traceback(None)  # noqa: B904 - the error itself, as it was raised

    return called


class ResolutionError(ColossalaiEnvError):
    """Who this process is cannot be said: mend the script or the launch."""


class InvalidSpec(ResolutionError, ValueError):
    """A `DistSpec` that cannot be: its values are malformed or contradict each other."""

    problem: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"DistSpec: {self.problem}"


class MalformedVariable(ResolutionError, ValueError):
    """A variable or option that is set, but not to what its launcher sets it to."""

    resolver: str
    variable: str
    value: str
    expected: str
    rank: int | None = None

    def __str__(self) -> str:
        remedy = "correct" if self.variable.startswith("-") else "correct or unset"
        left = " (nothing has put a value in its place)" if self.value.startswith(UNEXPANDED) else ""
        return (
            f"{self.resolver}: {self.variable} is {quoted(self.value)}{left}, expected {self.expected}"
            f"{where(self.rank)}: {remedy} it where the process is started."
        )


class MissingVariable(ResolutionError):
    """A launcher is recognised, but a variable that it always sets is not there."""

    resolver: str
    variable: str
    marks: tuple[str, ...]
    rank: int | None = None

    def __str__(self) -> str:
        return (
            f"{self.resolver}: {' and '.join(self.marks)} set but {self.variable} is not"
            f"{where(self.rank)}: set {self.variable}, or remove what is left over from {self.resolver}."
        )


class NotAsked(ResolutionError):
    """A launcher is recognised, and what its variables do not say it was not asked for, or did not answer."""

    resolver: str
    variable: str
    found: tuple[tuple[str, str], ...]
    rank: int | None = None
    problem: str = "init_from_env() asks the launcher, and resolve() reads variables alone"

    def __str__(self) -> str:
        values = " and ".join(f"{name}={quoted(value)}" for name, value in self.found)
        return (
            f"{self.resolver}: {values} set, and the launcher alone knows {self.variable}{where(self.rank)}: "
            f"{self.problem}. Pass rank= and world_size=, which are 0 and 1 for a process alone."
        )


class ContradictoryVariables(ResolutionError):
    """Each value is well-formed, but together they describe no process."""

    resolver: str
    problem: str
    found: tuple[tuple[str, str], ...]
    rank: int | None = None

    def __str__(self) -> str:
        values = ", ".join(f"{name}={quoted(value)}" for name, value in self.found)
        return (
            f"{self.resolver}: {self.problem}{where(self.rank)}; found {values}: "
            "correct these where the process is started."
        )


class PartialEnvironment(ResolutionError):
    """No resolver claims this process, yet some of a launcher's variables are set: rank 0 of 1 would be a guess."""

    traces: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]

    def __str__(self) -> str:
        traces = "; ".join(
            f"{resolver}: {', '.join(found)} set but {', '.join(missing)} not"
            for resolver, found, missing in self.traces
        )
        names = ",".join(resolver for resolver, _, _ in self.traces)
        return (
            f"{traces}: set what is missing, or for a single process unset what is set "
            f"or export COLOSSALAI_ENV_DISABLE={names}."
        )


ALONE = (
    "for one process alone, in a notebook too, export COLOSSALAI_ENV_RESOLVER=single-process or pass "
    'resolver="single-process"'
)


class NotLaunched(ResolutionError):
    """A place where this process is neither a single process nor a known rank: to wait or to go on would be wrong.

    The sentence ends with the way to a single process, so `advice` need not show it.
    """

    resolver: str
    place: str
    found: tuple[tuple[str, str], ...]
    advice: str

    def __str__(self) -> str:
        values = ", ".join(f"{name}={quoted(value)}" for name, value in self.found)
        return f"{self.resolver}: {self.place} ({values}): {self.advice}; {ALONE}."


class ConflictingResolvers(ResolutionError):
    """Two launchers, or a launcher and the arguments, say who this process is, and both cannot be right."""

    claims: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        return f"{', '.join(self.claims)}: {self.remedy}."


class ResolverDoesNotMatch(ResolutionError):
    """One resolver alone was asked for, and this is not its launcher."""

    name: str
    reason: str
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        seems = f" The process seems to run under {' and '.join(self.others)}." if self.others else ""
        return (
            f"{self.name} was asked for alone and does not match: {self.reason}.{seems} "
            f"Start the process with that launcher, or leave out the choice of {self.name}."
        )


class InvalidArgument(ResolutionError, ValueError):
    """A call was handed a value that its argument cannot have."""

    argument: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.argument} is {self.value}, expected {self.expected}: mend the call."


class IncompleteArguments(ResolutionError):
    """Some of rank and world size were given as arguments, and nothing says the other."""

    given: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        given = f"{' and '.join(self.given)} given, but " if self.given else ""
        return f"{given}nothing says {' and '.join(self.missing)}: give {' and '.join(self.missing)} too."


class PluginError(ColossalaiEnvError):
    """What is installed cannot be used."""


class NoPlugins(PluginError):
    """Not even this library's own plugins are found, so that every rank would be taken for a process alone."""

    package: str
    python: str

    def __str__(self) -> str:
        return (
            f"no plugin is found, not even those of colossalai-env: {self.package} is here, and no metadata with entry "
            f"points (colossalai_env-*.dist-info) on the path of {self.python}: {self.python} -m pip install the "
            "distribution where its folder was copied; a frozen program or an archive has to collect its metadata and "
            "the packages colossalai_env_* too."
        )


class UnknownResolver(PluginError):
    """A name was asked for that no plugin provides."""

    origin: str
    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.origin} is {self.name!r}, but no installed plugin provides a resolver of that name: use one of "
            f"{', '.join(self.known)}, or install the plugin that provides it."
        )


class BrokenPlugin(PluginError):
    """A plugin that is installed but cannot be used."""

    plugin: str
    distribution: str
    problem: str

    def __str__(self) -> str:
        return (
            f"plugin {self.plugin!r} of {self.distribution}: {self.problem}. Repair or uninstall it, "
            f"or go on without it, on every node alike, with COLOSSALAI_ENV_DISABLE={self.plugin}."
        )


class RivalPlugins(PluginError):
    """Two plugins, or two resolvers, of one name."""

    kind: str
    name: str
    owners: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.name!r} comes from {' and from '.join(self.owners)}: uninstall one of them, "
            f"or go on without both with COLOSSALAI_ENV_DISABLE={self.name}."
        )


def listed(names: Sequence[str], conjunction: str = "and") -> str:
    """Join names as English does: ``a, b and c``."""
    return f" {conjunction} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


ROOMS = ("_rendezvous", "_devices", "_launch", "_config")
"""Where the errors are that most processes never raise."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:  # noqa: ANN401 - each name has its own type
        for room in ROOMS if not name.startswith("_") else ():
            found = getattr(import_module(f".{room}", __name__), name, None)
            if found is not None:
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
