"""Every deliberate error: what was found, what was expected, and what to type next."""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, ClassVar, ParamSpec, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:
    dataclass_transform = lambda **_: lambda cls: cls  # noqa: E731 - for type checkers alone, and not in Python 3.10


def where(rank: int | None, host: str | None = None) -> str:
    """Say ``" (rank 3 on gpu-a02)"``, or as much of it as is known."""
    words = [f"rank {rank}" if rank is not None else "", f"on {host}" if host else ""]
    known = " ".join(word for word in words if word)
    return f" ({known})" if known else ""


@dataclass_transform(frozen_default=True)
class ColossalaiEnvError(Exception):
    """The parent of every deliberate error of this library; catch it to catch them all."""

    # The fields of a child are its annotations. attrs would compile methods for each of these classes in every process,
    # though few processes ever raise one.
    __signature__: ClassVar[Signature] = Signature()

    def __init_subclass__(cls) -> None:
        fields = [
            Parameter(
                name, Parameter.POSITIONAL_OR_KEYWORD, default=vars(cls).get(name, Parameter.empty), annotation=kind
            )
            for name, kind in cls.__annotations__.items()
        ]
        cls.__signature__ = Signature([*cls.__signature__.parameters.values(), *fields])

    def __init__(self, *values: object, **named: object) -> None:
        found = self.__signature__.bind(*values, **named)
        found.apply_defaults()
        super().__init__(*found.args)  # what pickle hands over
        vars(self).update(found.arguments)


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


class InvalidSpec(ColossalaiEnvError, ValueError):
    """A `DistSpec` that cannot be: its values are malformed or contradict each other."""

    problem: str
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"DistSpec: {self.problem}"


class MalformedVariable(ColossalaiEnvError, ValueError):
    """A variable or option that is set, but not to what its launcher sets it to."""

    resolver: str
    variable: str
    value: str
    expected: str
    rank: int | None = None

    def __str__(self) -> str:
        remedy = "correct" if self.variable.startswith("-") else "correct or unset"
        return (
            f"{self.resolver}: {self.variable} is {self.value!r}, expected {self.expected}"
            f"{where(self.rank)}: {remedy} it where the process is started."
        )


class MissingVariable(ColossalaiEnvError):
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


class ContradictoryVariables(ColossalaiEnvError):
    """Each value is well-formed, but together they describe no process."""

    resolver: str
    problem: str
    found: tuple[tuple[str, str], ...]
    rank: int | None = None

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.found)
        return (
            f"{self.resolver}: {self.problem}{where(self.rank)}; found {values}: "
            "correct these where the process is started."
        )


class PartialEnvironment(ColossalaiEnvError):
    """Nobody claims this process, yet some of a launcher's marks are set: rank 0 of 1 would be a guess."""

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


class NotAWorld(ColossalaiEnvError):
    """A place where this process is neither alone nor a known rank: to wait for others, or to go on, would be wrong."""

    resolver: str
    place: str
    found: tuple[tuple[str, str], ...]
    advice: str

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.found)
        return f"{self.resolver}: {self.place} ({values}): {self.advice}."


class ConflictingResolvers(ColossalaiEnvError):
    """Two launchers, or a launcher and the arguments, say who this process is, and both cannot be right."""

    claims: tuple[str, ...]
    remedy: str

    def __str__(self) -> str:
        return f"{', '.join(self.claims)}: {self.remedy}."


class UnknownResolver(ColossalaiEnvError):
    """A name was asked for that no plugin bears."""

    origin: str
    name: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.origin} names {self.name!r}, which no plugin bears: use one of {', '.join(self.known)}, "
            "or install the plugin that brings it."
        )


class ResolverDoesNotMatch(ColossalaiEnvError):
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


class IncompleteArguments(ColossalaiEnvError):
    """Some of rank and world size were given as arguments, and nothing says the other."""

    given: tuple[str, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        given = f"{' and '.join(self.given)} given, but " if self.given else ""
        return f"{given}nothing says {' and '.join(self.missing)}: give {' and '.join(self.missing)} too."


class BrokenPlugin(ColossalaiEnvError):
    """A plugin that is installed but cannot be used."""

    plugin: str
    distribution: str
    problem: str

    def __str__(self) -> str:
        return (
            f"plugin {self.plugin!r} of {self.distribution}: {self.problem}. Repair or uninstall it, "
            f"or go on without it, on every node alike, with COLOSSALAI_ENV_DISABLE={self.plugin}."
        )


class RivalPlugins(ColossalaiEnvError):
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


class UnknownEndpoint(ColossalaiEnvError):
    """Neither the launcher's variables nor the launcher itself say where rank 0 is reached."""

    resolver: str
    missing: tuple[str, ...]
    asked: tuple[str, ...] = ()
    rank: int | None = None

    def __str__(self) -> str:
        tried = f" (asked: {'; '.join(self.asked)})" if self.asked else ""
        variables = " and ".join({"host": "MASTER_ADDR", "port": "MASTER_PORT"}[name] for name in self.missing)
        options = " ".join(
            {"host": "--host NAME_OF_RANK_0S_HOST", "port": "--port 29500"}[name] for name in self.missing
        )
        return (
            f"{self.resolver} does not say rank 0's {' and '.join(self.missing)}{where(self.rank)}{tried}: "
            f"export {variables} on every rank, or add {options} to the command line and hand its parsed "
            "arguments over as args=."
        )


class CannotLocate(ColossalaiEnvError):
    """The launcher was asked for rank 0's address and did not tell it."""

    resolver: str
    way: str
    problem: str

    def __str__(self) -> str:
        return (
            f"{self.resolver}: asking for rank 0's host by {self.way} failed: {self.problem}. Export MASTER_ADDR "
            "and MASTER_PORT on every rank, or add --host and --port to the command line and hand its parsed "
            f"arguments over as args=; COLOSSALAI_ENV_LOCATE lists the ways that are allowed, without {self.way}."
        )


class UnresolvableHost(ColossalaiEnvError):
    """Rank 0's host has no address here."""

    host: str
    source: str
    problem: str
    rank: int | None = None
    advice: str | None = None

    def __str__(self) -> str:
        return (
            f"host {self.host!r}, from {self.source}, has no address here{where(self.rank)}: {self.problem}. "
            f"Give rank 0's IP address instead: {self.advice or 'export MASTER_ADDR=ADDRESS on every rank'}."
        )


class NotMyAddress(ColossalaiEnvError):
    """Rank 0 was told to listen at an address that is another machine's, and no forwarder's to this one."""

    host: str
    source: str
    address: str
    here: str
    own: str

    def __str__(self) -> str:
        return (
            f"rank 0 runs on {self.here} ({self.own}), but host {self.host!r}, from {self.source}, is {self.address}, "
            "which is not one of its own addresses, and a connection to it does not come back to this process: "
            f"export MASTER_ADDR={self.own} on every rank."
        )


class PortTaken(ColossalaiEnvError):
    """Somebody else listens where rank 0 should."""

    host: str
    port: int
    source: str
    holder: str

    def __str__(self) -> str:
        return (
            f"rank 0 cannot listen on {self.host}:{self.port}, from {self.source}: it is taken by {self.holder}. "
            "End that process, or give every rank another port: export MASTER_PORT=ANOTHER."
        )


class TooFewFileDescriptors(ColossalaiEnvError):
    """Rank 0 cannot hold one connection for each rank."""

    limit: int
    needed: int

    def __str__(self) -> str:
        return (
            f"rank 0 needs about {self.needed} file descriptors and may open {self.limit}: "
            f"ulimit -n {self.needed} before the launch, or ask for a higher hard limit."
        )


class RankZeroUnreachable(ColossalaiEnvError):
    """No store of this job answered at host and port in time."""

    rank: int
    here: str
    endpoint: str
    source: str
    met: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"rank 0 was not found at {self.endpoint}, from {self.source}, within {self.seconds:.1f} s"
            f"{where(self.rank, self.here)}: {self.met}. Look whether rank 0 was started and what it said, and "
            f"whether {self.endpoint} is right for all ranks."
        )


class SlowImport(ColossalaiEnvError):
    """This rank was still importing torch when its time was over."""

    seconds: float
    rank: int
    here: str

    def __str__(self) -> str:
        return (
            f"torch was not imported within {self.seconds:.1f} s{where(self.rank, self.here)}: the file system that "
            "holds it may be slow or busy. Give init_from_env a longer timeout=, on every rank alike, or import torch "
            "before that call."
        )


class NoAgent(ColossalaiEnvError):
    """The environment says that torchrun's agent, or its like, serves the store, but nobody does."""

    rank: int
    here: str
    endpoint: str
    source: str
    met: str

    def __str__(self) -> str:
        return (
            f"{self.source} says that the launcher's agent serves a store at {self.endpoint}, but {self.met}"
            f"{where(self.rank, self.here)}: these variables seem left over from another launch. Unset {self.source}, "
            "or start the processes with their launcher."
        )


class Stranger(ColossalaiEnvError):
    """The store at host and port is another job's."""

    rank: int
    here: str
    endpoint: str
    job: str
    other_job: str
    other_host: str
    other_pid: int

    def __str__(self) -> str:
        return (
            f"{self.endpoint} is the store of job {self.other_job!r}, whose rank 0 is pid {self.other_pid} on "
            f"{self.other_host}; this is job {self.job!r}{where(self.rank, self.here)}: give every rank of one of "
            "them another port: export MASTER_PORT=ANOTHER."
        )


class Surplus(ColossalaiEnvError):
    """The group is complete, and another process holds this rank."""

    rank: int
    here: str
    holder: str

    def __str__(self) -> str:
        return (
            f"rank {self.rank} is already held by {self.holder}, and the group is complete; this process, "
            f"{self.here}, is one too many, or of another job: start as many processes as the world size says, unset "
            "RANK, WORLD_SIZE and MASTER_PORT in processes that are started by a rank, and give another job another "
            "port (MASTER_PORT)."
        )


class RollCallFailed(ColossalaiEnvError):
    """The parent of the verdicts of a roll call, which are the same on every rank."""

    sentence: str

    def __str__(self) -> str:
        return self.sentence


class MissingRanks(RollCallFailed):
    """Some ranks did not answer in time."""


class DuplicateRank(RollCallFailed):
    """Two processes hold one rank."""


class Disagreement(RollCallFailed):
    """The ranks disagree on the world size, the backend, torch's version or the resolver."""


class RankFailed(RollCallFailed):
    """One rank could not go on; the sentence is its own."""


class LostRanks(RollCallFailed):
    """Some ranks answered and then died or froze."""


class SharedDevice(RollCallFailed):
    """Two processes hold one accelerator."""


class NodeLevelRanks(RollCallFailed):
    """Ranks count nodes, each with several accelerators and one process: one process would use one of them."""


class AlreadyInitialised(ColossalaiEnvError):
    """A process is in one job at a time."""

    first: str
    remedy: str

    def __str__(self) -> str:
        return f"this process is already {self.first}: {self.remedy}."


class ChildOfRank(ColossalaiEnvError):
    """A process that a rank started, such as a worker of a data loader: it is no rank itself."""

    child: str
    parent: str
    remedy: str

    def __str__(self) -> str:
        return f"this process, {self.child}, {self.parent}, and is no rank itself: {self.remedy}."


class UnsupportedPlatform(ColossalaiEnvError):
    """The operating system lacks what the meeting of several ranks needs."""

    platform: str
    absent: str

    def __str__(self) -> str:
        return (
            f"several ranks cannot meet on {self.platform}, which has no {self.absent}: start them on Linux. "
            "resolve() and explain() work here, and init_from_env() does for a process alone."
        )


class UnknownBackend(ColossalaiEnvError):
    """The backend that was asked for is not there, or has no device to run on."""

    backend: str
    problem: str
    advice: str

    def __str__(self) -> str:
        named = f"backend {self.backend!r}" if self.backend else "no backend was named"
        return f"{named}: {self.problem}: {self.advice}."


class NoSuchDevice(ColossalaiEnvError):
    """There is no accelerator for this process."""

    kind: str
    wanted: str
    visible: int
    rank: int
    advice: str

    def __str__(self) -> str:
        return f"{self.wanted}, but {self.visible} {self.kind} device(s) are visible{where(self.rank)}: {self.advice}."


class UnusableDevices(ColossalaiEnvError):
    """Accelerators are here, torch can use none of them, and nobody said that none should be used."""

    torch: str
    machine: str
    reason: str
    advice: str
    rank: int | None = None
    built: bool = True
    """Whether this torch was built for accelerators at all."""

    def __str__(self) -> str:
        return (
            f"{self.torch} sees no accelerator{where(self.rank)}, though this machine has {self.machine}: "
            f"{self.reason}: {self.advice}; for a job on CPUs say device='cpu' or export CUDA_VISIBLE_DEVICES= (empty)."
        )


class GroupFailed(ColossalaiEnvError):
    """The backend could not make the process group; where there are several ranks, all had answered the roll call."""

    rank: int
    here: str
    backend: str
    problem: str
    advice: str = (
        "All ranks had answered, so host and port are right: look at the network interfaces "
        "(GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME) and at firewalls between the nodes"
    )

    def __str__(self) -> str:
        return (
            f"the process group's backend {self.backend} did not connect{where(self.rank, self.here)}: {self.problem}. "
            f"{self.advice}."
        )


class WrongLauncher(ColossalaiEnvError):
    """A `launch_from_*` function was called in a process that another launcher started, or none."""

    call: str
    starter: str
    reason: str
    seems: str
    fits: str

    def __str__(self) -> str:
        return (
            f"{self.call}() is for processes that {self.starter} starts: {self.reason}. "
            f"This one seems to be started by {self.seems}: start it with {self.starter}, or call {self.fits}."
        )


class InvalidConfig(ColossalaiEnvError, ValueError):
    """A config that cannot be read, or that has an entry that cannot be."""

    source: str
    problem: str
    line: int | None = None

    def __str__(self) -> str:
        place = self.source if self.line is None else f"{self.source}, line {self.line}"
        return f"config: {place}: {self.problem}."


class UnknownConfigEntry(ColossalaiEnvError, KeyError):
    """The config has no entry of this name."""

    key: str
    known: tuple[str, ...]
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        near = f", did you mean {self.near[0]!r}?" if self.near else ""
        entries = f"its entries are {', '.join(self.known)}" if self.known else "it is empty"
        return f"the config has no entry {self.key!r}{near or ':'} {entries}."


class ReadOnlyConfig(ColossalaiEnvError, AttributeError, TypeError):
    """A config is not changed once it is read: all ranks and all parts of a program see the same."""

    key: str

    def __str__(self) -> str:
        return (
            f"the config is read-only, so {self.key!r} cannot be changed: change it in the file, or make another "
            "config from a changed config.to_dict()."
        )
