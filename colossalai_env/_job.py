"""Job: this process's place in a job that has begun, and the end of it."""

import atexit
import inspect
import logging
import os
import signal
import sys
import traceback
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from ._calls import calls_under_way
from ._children import forget, refuse_import, remember
from ._config import Config
from ._devices import CPU, Accelerators
from ._gloo import GlooSettings
from ._process_group import destroy, is_made
from ._rendezvous.formed import Connected
from ._rendezvous.identity import Here, boot_id
from ._rendezvous.protocol.placement import placements
from ._rendezvous.protocol.report import RankReport
from .errors import AlreadyInitialized, ChildOfRank
from .spec import DistSpec

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
    host: str
    pid: int
    node_rank: int
    local_rank: int
    device: str
    """Its accelerator: the beginning of its UUID, such as ``GPU-5ea2c0d1-7d2c``, or else ``cuda:0``; or ``cpu``."""


class Job:
    """This process's place in a job that has begun, and its process group.

    Use it as a context manager, or `close` it; at a normal exit it closes itself.
    """

    def __init__(
        self,
        spec: DistSpec,
        device: "torch.device",
        backend: str,
        config: Config,
        connected: Connected | None = None,
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
            reports = connected.reports() if connected else [describe_this_process(self.spec, self.backend)]
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

    def close(self) -> None:
        """Destroy the process group and let go of the store; doing it again does nothing."""
        if self._closed:
            return
        destroy()
        if self._connected is not None:
            self._connected.close()
        if self._gloo is not None:
            self._gloo.close()
        self._end()

    def _end(self) -> None:
        self._closed = True
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


def refuse_second() -> None:
    """Raise `AlreadyInitialized` where this process is in a group, `ChildOfRank` where the one that forked it is.

    A group that the program destroyed is the end of its job.
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
    if grouped:
        remedy = "use it as it is, or call torch.distributed.destroy_process_group() first"
        raise AlreadyInitialized("in a process group that was made without this library", remedy)


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
