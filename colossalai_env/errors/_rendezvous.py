"""What keeps the ranks of a launch from each other; the verdicts of the roll call are the same on every rank."""

from collections.abc import Iterable

from . import ColossalaiEnvError, where


class RendezvousError(ColossalaiEnvError):
    """The ranks did not meet: it may do to try again."""


def ranges(runs: Iterable[tuple[int, int]]) -> str:
    """Write runs of ranks as people do: ``0-3, 7, 12-13``."""
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


class UnknownEndpoint(RendezvousError):
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


class CannotLocate(RendezvousError):
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


class UnresolvableHost(RendezvousError):
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


class NotMyAddress(RendezvousError):
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


class PortTaken(RendezvousError):
    """Somebody else listens where rank 0 should, or the system keeps the port."""

    host: str
    port: int
    source: str
    holder: str
    refused: str = ""
    """Why the system keeps it, where no process has it."""

    def __str__(self) -> str:
        taken = (f"it is taken by {self.holder}", "End that process, or give")
        why, remedy = (self.refused, "Give") if self.refused else taken
        return (
            f"rank 0 cannot listen on {self.host}:{self.port}, from {self.source}: {why}. "
            f"{remedy} every rank another port: export MASTER_PORT=ANOTHER."
        )


class TooFewFileDescriptors(RendezvousError):
    """Rank 0 cannot hold one connection for each rank."""

    limit: int
    needed: int

    def __str__(self) -> str:
        return (
            f"rank 0 needs about {self.needed} file descriptors and may open {self.limit}: "
            f"ulimit -n {self.needed} before the launch, or ask for a higher hard limit."
        )


class RankZeroUnreachable(RendezvousError):
    """No store of this job answered at host and port in time."""

    rank: int | None
    here: str
    endpoint: str
    source: str
    met: str
    seconds: float

    def __str__(self) -> str:
        return (
            f"rank 0 was not found at {self.endpoint}, from {self.source}, within {self.seconds:.1f} s"
            f"{where(self.rank, self.here)}: {self.met}. Look whether rank 0 was started and at its output, and "
            f"whether {self.endpoint} is right for all ranks."
        )


class SlowImport(RendezvousError):
    """This rank was still importing torch when its time was over."""

    seconds: float
    rank: int | None
    here: str

    def __str__(self) -> str:
        return (
            f"torch was not imported within {self.seconds:.1f} s{where(self.rank, self.here)}: the file system that "
            "holds it may be slow or busy. Give init_from_env a longer timeout=, on every rank alike, or import torch "
            "before that call."
        )


class AgentStoreUnreachable(RendezvousError):
    """The environment says that torchrun's agent, or its like, serves the store, but no process does."""

    rank: int | None
    here: str
    endpoint: str
    source: str
    met: str
    silent: bool = False
    """Whether a process listens there and does not answer."""

    def __str__(self) -> str:
        cause = (
            "if that is the agent, it is stopped, or its host is overloaded: look there, and start again. If another "
            "program has its port by now, these variables are"
            if self.silent
            else "these variables seem"
        )
        return (
            f"{self.source} says that the launcher's agent serves a store at {self.endpoint}, but {self.met}"
            f"{where(self.rank, self.here)}: {cause} left over from another launch. Unset {self.source}, "
            "or start the processes with their launcher."
        )


class ForeignStore(RendezvousError):
    """The store at host and port is another job's."""

    rank: int | None
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


class ExtraProcess(RendezvousError):
    """The group is complete, and another process holds this rank, or this one did before it replaced itself by exec."""

    rank: int
    here: str
    holder: str

    def __str__(self) -> str:
        if self.holder == self.here:
            return (
                f"rank {self.rank} has joined already: this process, {self.here}, did so before it replaced itself by "
                "exec, and left its group by that; call init_from_env after exec, and once."
            )
        return (
            f"rank {self.rank} is already held by {self.holder}, and the group is complete; this process, "
            f"{self.here}, is one too many, or of another job: start as many processes as the world size says, set "
            "COLOSSALAI_ENV_RESOLVER for processes that are started by a rank (to single-process, or to the launcher "
            "that starts them), and give another job another port (MASTER_PORT)."
        )


class OtherVersion(RendezvousError):
    """This rank's copy of the library speaks another version of the roll call than rank 0's."""

    rank: int | None
    here: str
    own: str
    rank0: str
    theirs: str

    def __str__(self) -> str:
        return (
            f"this process{where(self.rank, self.here)} has {self.own}, and rank 0 ({self.rank0}) has {self.theirs}: "
            "they do not understand each other; install one version on all nodes."
        )


class MissingRanks(RendezvousError):
    """Some ranks did not answer in time."""

    missing: tuple[tuple[int, int], ...]
    """Runs of ranks: the first and the last of each."""
    world_size: int
    seconds: float
    neighbours: tuple[tuple[int, str], ...] = ()
    """Ranks beside them that answered, with their hosts."""
    hosts: tuple[tuple[str, int], ...] = ()
    """The hosts that were heard from, each with its number of ranks; of many the first ones."""
    more_hosts: int = 0
    lost: tuple[str, ...] = ()
    """Processes that answered and were then lost."""
    importing: tuple[str, ...] = ()
    """Processes that came and still imported torch."""
    hint: str = ""

    @property
    def ranks(self) -> tuple[int, ...]:
        """All missing ranks, one by one."""
        return tuple(rank for low, high in self.missing for rank in range(low, high + 1))

    def __str__(self) -> str:
        neighbours = ", ".join(f"rank {rank} on {host}" for rank, host in self.neighbours) or "none"
        heard = ", ".join(f"{host} ({count})" for host, count in self.hosts) or "no host"
        heard += f" and {self.more_hosts} more" if self.more_hosts else ""
        lost = f"; answered and then lost: {', '.join(self.lost)}" if self.lost else ""
        busy = f"; still importing torch: {', '.join(self.importing)}" if self.importing else ""
        hint = f"; {self.hint}" if self.hint else ""
        return (
            f"rank(s) {ranges(self.missing)} of {self.world_size} did not come within {self.seconds:.1f} s; "
            f"neighbours: {neighbours}; heard from: {heard}{lost}{busy}: look at what the missing rank(s) said, and "
            f"whether they were started{hint}"
        )


class DuplicateRank(RendezvousError):
    """Two processes hold one rank."""

    rank: int
    first: str
    second: str

    def __str__(self) -> str:
        return (
            f"rank {self.rank} is held by two processes, {self.first} and {self.second}: "
            "start each rank once; if these are two jobs, give one of them another port (MASTER_PORT)"
        )


class InconsistentRanks(RendezvousError):
    """The ranks do not agree on the world size, the backend, a version or the resolver."""

    subject: str
    """What they do not agree on."""
    odd: tuple[tuple[str, str], ...]
    """Processes, each with its value; of many the first ones."""
    more: int
    others: tuple[tuple[int, int], ...]
    """Runs of the ranks that agree."""
    usual: str
    """Their value."""
    sights: tuple[str, ...] = ()
    """Where the devices are the cause: what each of the odd processes sees, and last what one of the others does."""

    def __str__(self) -> str:
        more = f" and {self.more} more" if self.more else ""
        others = ranges(self.others)
        if self.sights:
            odd = "; ".join(
                f"{process} {sight} and takes {value}"
                for (process, value), sight in zip(self.odd, self.sights, strict=False)
            )
            return (
                f"the ranks see different devices, and so they disagree on the backend: {odd}{more}; rank(s) "
                f"{others} take {self.usual}, since {self.sights[-1]}: show every rank its device, or use none "
                "on any with device='cpu'"
            )
        odd = "; ".join(f"{process} says {value}" for process, value in self.odd)
        return (
            f"the ranks disagree on the {self.subject}: {odd}{more}; rank(s) {others} say {self.usual}: "
            f"start all ranks with one {self.subject}"
        )


class PartialEndpoint(RendezvousError):
    """Rank 0's host and port are given to some ranks, and the launcher leads the others elsewhere."""

    process: str
    """One that has them."""
    endpoint: str
    """What it has, and from where."""
    given: tuple[tuple[int, int], ...]
    """Runs of the ranks that have them."""
    others: tuple[tuple[int, int], ...]
    """Runs of the ranks that do not, as far as they had come."""

    def __str__(self) -> str:
        return (
            f"rank 0's place is given to rank(s) {ranges(self.given)}, {self.endpoint} for {self.process}, and not to "
            f"rank(s) {ranges(self.others)}: set MASTER_ADDR and MASTER_PORT on all ranks or on none; a launcher may "
            "pass variables on to other hosts only where an option of it says so"
        )


class RankFailed(RendezvousError):
    """One rank could not go on; the reason is in its own words."""

    reason: str
    process: str | None = None

    def __str__(self) -> str:
        return f"{self.process} failed: {self.reason}" if self.process else self.reason


class LostRanks(RendezvousError):
    """Some ranks answered and then died or froze, or did not connect."""

    processes: tuple[str, ...]
    what: str
    """What they did, and since when nothing is heard of them."""
    reason: str = ""

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{', '.join(self.processes)} {self.what}{reason}: look at the output there"
