"""Job: this process's place in a job that has begun, and the end of it."""

import atexit
import inspect
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs

from ._addresses import Target
from ._calls import calls_under_way
from ._children import forget, refuse_import, remember
from ._config import Config
from ._devices import CPU, Accelerators
from ._gloo import GlooSettings
from ._locate import DIRECTORY
from ._process_group import destroy, is_made
from ._rendezvous.adopted import Adopted
from ._rendezvous.formed import Connected
from ._rendezvous.identity import Here, boot_id
from ._rendezvous.protocol.placement import Placement, placements
from ._rendezvous.protocol.report import RankReport
from .environ import Export
from .errors import AlreadyInitialized, ChildOfRank, NoGroup
from .spec import DistSpec, Origin, Source

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

log = logging.getLogger("colossalai_env")

PACKAGE = os.path.join(os.path.dirname(__file__), "")

SHORT = len("GPU-5ea2c0d1-7d2c")
"""How much of a UUID goes round: its 12 digits tell all devices of a job apart, and CUDA takes them for the whole."""


@attrs.frozen
class Peer:
    """One rank of the job as it said itself in the roll call."""

    rank: int
    """This rank among all, from 0."""
    host: str
    """The name of its host."""
    pid: int
    """Its process id on that host."""
    node_rank: int
    """Its node among all, from 0; under torchrun, its agent."""
    local_rank: int
    """This rank among those of its node, from 0."""
    device: str
    """Its accelerator: the beginning of its UUID, such as ``GPU-5ea2c0d1-7d2c``, or else ``cuda:0``; or ``cpu``."""


class Job:
    """This process's place in a job that has begun, and its process group.

    Use it as a context manager, or `close` it; at a normal exit it closes itself. A group that was adopted stays.
    """

    def __init__(
        self,
        spec: DistSpec,
        device: "torch.device",
        backend: str,
        config: Config,
        connected: Connected | Adopted | None = None,
        gloo: GlooSettings | None = None,
    ) -> None:
        self.spec = spec
        """Who this process is, with nothing left unsaid."""
        self.device = device
        """The accelerator of this process, or the CPU."""
        self.backend = backend
        """The process group's backend."""
        self.config = config
        """What the script is told to do; empty where no config was given."""
        self._connected = connected
        self._gloo = gloo
        self._topology: tuple[Peer, ...] | None = None
        self._exports: list[Export] = []
        self._closed = False

    @property
    def rank(self) -> int:
        """This process among all, from 0."""
        return self.spec.rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.spec.world_size

    @property
    def local_rank(self) -> int:
        """This process among those of its node, from 0."""
        return _number(self.spec.local_rank)

    @property
    def local_world_size(self) -> int:
        """How many processes this node has."""
        return _number(self.spec.local_world_size)

    @property
    def node_rank(self) -> int:
        """This node among all, from 0; under torchrun, this agent."""
        return _number(self.spec.node_rank)

    @property
    def num_nodes(self) -> int:
        """How many nodes there are; under torchrun, how many agents."""
        return _number(self.spec.num_nodes)

    @property
    def topology(self) -> tuple[Peer, ...]:
        """All ranks, as they said in the roll call; read from the store on first use."""
        if self._topology is None:
            connected = self._connected
            reports = connected.entered.reports() if connected else [describe_this_process(self.spec, self.backend)]
            placed = placements(reports)
            self._topology = tuple(
                Peer(
                    one.rank,
                    one.host,
                    one.pid,
                    placed[one.rank].node_rank,
                    placed[one.rank].local_rank,
                    one.device(placed[one.rank].device) if connected else str(self.device),
                )
                for one in sorted(reports[: self.world_size], key=lambda one: one.rank)
            )
        return self._topology

    def export(self) -> Export:
        """Set ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and all of `DistSpec.to_env` for libraries that read them.

        They are taken back at the end of a ``with`` block, by ``take_back()``, or when the job is closed; what the
        program has changed meanwhile stays.
        """
        export = Export(self.spec.to_env())
        self._exports.append(export)
        return export

    def close(self) -> None:
        """Destroy the process group and let go of the store; doing it again does nothing.

        A group that was adopted stays as it is.
        """
        if self._closed:
            return
        if not isinstance(self._connected, Adopted):
            if self._connected is not None:
                self._connected.settle()
            destroy()
        if self._connected is not None:
            self._connected.close()
        if self._gloo is not None:
            self._gloo.close()
        self._end()

    def _end(self) -> None:
        self._closed = True
        while self._exports:
            self._exports.pop().take_back()
        _running.clear()
        forget()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the job; after an error leave the group alone, since the others may not come to end it."""
        del error, trace
        if kind is None:
            self.close()
        else:
            self._end()

    def __repr__(self) -> str:
        """Show the spec and the device."""
        return f"<Job {self.spec}, {self.backend} on {self.device}>"


def _number(value: int | None) -> int:
    if value is None:  # the roll call fills every number; without it the launcher has to say them
        raise AttributeError(
            "the launcher does not say this number, and COLOSSALAI_ENV_ROLL_CALL=off keeps from asking"
        )
    return value


@attrs.frozen
class _Running:
    job: Job
    place: str
    pid: int = attrs.field(factory=os.getpid)


_running: list[_Running] = []


def run(job: Job) -> None:
    """Remember the job, for an orderly exit and for the error that a second one gets."""
    place = _caller()
    _running.append(_Running(job, place))
    remember(job.spec, place)


@atexit.register
def _close_at_exit() -> None:
    """Close what is open, unless the program ends by an error: the others may never come to end the group.

    After an error a call of torch may still be under way in a thread. Python would end that thread by force inside
    C++, which aborts the process now and then, so the process ends at once, with the status that errors have, or by
    the signal of Ctrl-C.
    """
    failed = hasattr(sys, "last_value")
    if _running and not failed and _running[0].pid == os.getpid():
        _running[0].job.close()
    if failed and calls_under_way():
        sys.stdout.flush()
        sys.stderr.flush()
        if isinstance(sys.last_value, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(1)


def _caller() -> str:
    """Name the file and line outside this package that called."""
    for frame, line in traceback.walk_stack(inspect.currentframe()):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return f"{frame.f_code.co_filename}:{line}"
    return "an unknown place"


_joining = threading.Lock()


@contextmanager
def one_call() -> Generator[None]:
    """Raise `AlreadyInitialized` while another call, of another thread or of a config, still joins."""
    if not _joining.acquire(blocking=False):
        remedy = "call init_from_env once, in one thread, and hand its Job on"
        raise AlreadyInitialized("joining its job, by a call of init_from_env that has not returned", remedy)
    try:
        yield
    finally:
        _joining.release()


def refuse_second(*, attach: bool = False) -> None:
    """Raise `AlreadyInitialized` where this process is in a group, `ChildOfRank` where the one that forked it is.

    A group that the program destroyed is the end of its job. With `attach` a group that others made is what is wanted:
    raise `NoGroup` where there is none.
    """
    refuse_import()
    grouped = is_made()
    for running in _running[:]:
        if running.pid != os.getpid():
            parent = f"was forked by pid {running.pid}, which is {running.job.spec}, since {running.place}"
            raise ChildOfRank(f"pid {os.getpid()}", parent, "call init_from_env in that process alone")
        if grouped:
            raise AlreadyInitialized(f"{running.job.spec}, since {running.place}", "close() that job first")
        running.job.close()
    if grouped and not attach:
        remedy = "adopt it with init_from_env(attach=True), or call torch.distributed.destroy_process_group() first"
        raise AlreadyInitialized("in a process group that was made without this library", remedy)
    if attach and not grouped:
        raise NoGroup(f"pid {os.getpid()}")


def describe_this_process(
    spec: DistSpec, backend: str, accelerators: Accelerators = CPU, index: int | None = None
) -> RankReport:
    """Return this process's report for the roll call; `index` is its device where that is settled before."""
    version = getattr(sys.modules.get("torch"), "__version__", "")  # none while a thread still imports it
    here = Here.now()
    return RankReport(
        rank=spec.rank,
        world_size=spec.world_size,
        host=here.host,
        boot=boot_id(),
        pid=here.pid,
        backend=backend,
        torch=str(version),
        resolver=spec.resolver,
        local_rank=spec.local_rank,
        local_world_size=spec.local_world_size,
        node_rank=spec.node_rank,
        num_nodes=spec.num_nodes,
        kind=accelerators.kind,
        visible=accelerators.visible,
        devices=tuple(device[:SHORT] for device in accelerators.ids),
        index=index,
        shares=accelerators.shareable,
        choice=accelerators.choice,
    )


def with_placement(spec: DistSpec, placement: Placement | None, rank0: Target | None = None) -> DistSpec:
    """Fill in what the launcher left unknown, and where rank 0 was found."""
    found: dict[str, Any] = {} if placement is None else placement.numbers()
    if rank0 is not None:
        found["host"], found["port"] = rank0
    unknown = {name: value for name, value in found.items() if getattr(spec, name) is None or name == "num_nodes"}
    sources = {
        name: DIRECTORY if name == "host" else ROLL_CALL for name in unknown if found[name] != getattr(spec, name)
    }
    unknown.setdefault("port", found.get("port", spec.port))
    return attrs.evolve(spec, **unknown, sources={**spec.sources, **sources})


ROLL_CALL = Source("roll call", Origin.RENDEZVOUS)
"""The source of a number that rank 0 found out."""
