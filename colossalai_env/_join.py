"""init_from_env(): from the environment to a Job; what fails on one rank is reported to all."""

import logging
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from . import _devices as devices
from . import _hardware as hardware
from . import _process_group as process_group
from ._addresses import Endpoint, Target
from ._arguments import Given, arguments
from ._candidates import Candidate
from ._children import doubt, refuse_child
from ._combination import MASTER
from ._config import ConfigLike, load_config
from ._gloo import GlooSettings
from ._job import Job, describe_this_process, refuse_second, run
from ._locate import DIRECTORY, locate, refuse_platform
from ._rendezvous.entered import Entered, Frame
from ._rendezvous.formed import Gathered
from ._rendezvous.identity import Here, Identity
from ._rendezvous.listener import check_file_descriptors
from ._rendezvous.protocol.placement import Placement
from ._rendezvous.protocol.report import RankReport
from ._rendezvous.protocol.requests import Deadline
from ._rendezvous.protocol.timing import REPORT_FAILURE
from ._rendezvous.rendezvous import Contender, Guest, Host, reserve
from ._rendezvous.torch_store import import_torch
from ._resolution import Resolution, examine
from ._rows import READERS
from ._signals import interruptible
from .environ import Environ
from .errors import ColossalaiEnvError, NotLaunched, SlowImport, ends_at_caller
from .resolver import Resolver, ResolverProtocol
from .spec import DistSpec, Origin, Source

if TYPE_CHECKING:
    import torch

log = logging.getLogger("colossalai_env")

TIMEOUT = 300.0
"""Seconds that all ranks have to come: image pulls take minutes, a forgotten rank takes for ever."""

ROLL_CALL = "COLOSSALAI_ENV_ROLL_CALL"
"""``off``, alike on all ranks, leaves the roll call out: missing ranks are not named, unknown numbers stay unknown."""


@ends_at_caller
def init_from_env(
    *,
    resolver: str | ResolverProtocol | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    local_rank: int | None = None,
    host: str | None = None,
    port: int | None = None,
    backend: str | None = None,
    device: "torch.device | str | int | None" = None,
    timeout: float | timedelta | None = None,
    args: object = None,
    config: ConfigLike | None = None,
    seed: int | None = None,
) -> Job:
    """Join the process group of the job in which this process was started.

    The launcher is found as `resolve` finds it; keywords and the parsed namespace `args` override.
    `timeout` bounds the wait for the other ranks, in seconds (default 300); collectives keep
    torch's own. `device` is an accelerator or ``cpu``; where no backend is named, the one that fits it is taken.
    `config`, a path or a mapping, is read by `load_config` and becomes `Job.config`. `seed` seeds random, numpy and
    torch.

    Raises a `ColossalaiEnvError`, within the timeout and two seconds, on every rank.
    """
    deadline = Deadline(time.monotonic, time.monotonic(), _seconds(timeout))
    refuse_second()
    environ = Environ.snapshot()
    given = arguments(
        args, rank=rank, world_size=world_size, local_rank=local_rank, host=host, port=port, backend=backend
    )
    resolution = examine(environ, given, resolver)
    outcome = resolution.outcome
    if isinstance(outcome, ColossalaiEnvError):
        report_failure(outcome, resolution, environ, given)
        raise outcome
    refuse_child(outcome)
    doubts = resolution.warnings or (() if resolution.chosen else doubt(outcome))
    for warning in doubts if outcome.rank == 0 else ():
        log.warning("%s", warning)
    settings: ConfigLike = {} if config is None else config
    if outcome.world_size == 1:
        job = _join_single(outcome, environ, device, settings)
    else:
        job = join_world(outcome, resolution.deciding, environ, deadline, device, settings)
    run(job)
    if seed is not None:
        process_group.seed_all(seed)
    return job


def _seconds(timeout: float | timedelta | None) -> float:
    if timeout is None:
        return TIMEOUT
    return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)


def _join_single(
    spec: DistSpec, environ: Environ, device: "torch.device | str | int | None", config: ConfigLike
) -> Job:
    """Make the group of a single process: no socket, no waiting."""
    settings = load_config(config)
    accelerators, backend = devices.choose(device, spec.backend, environ, spec.rank)
    chosen = devices.named(accelerators, devices.index_of(device, spec.local_rank or 0, accelerators, spec.rank))
    spec = attrs.evolve(spec, local_rank=0, local_world_size=1, node_rank=0, num_nodes=1)
    process_group.make_alone(environ, spec, backend, chosen)
    hardware.select(chosen)
    return Job(spec, chosen, backend, settings)


def join_world(
    spec: DistSpec,
    deciding: Candidate | None,
    environ: Environ,
    deadline: Deadline,
    device: "torch.device | str | int | None",
    config: ConfigLike,
) -> Job:
    """Meet the other ranks and make the group, or raise on all ranks."""
    refuse_platform()
    resolver = deciding.resolver if deciding else None
    ways, directory = getattr(resolver, "locate", ()), getattr(resolver, "directory", None)
    spec, endpoint = locate(spec, environ, ways, deadline.remaining, directory)
    identity = Identity(rank=spec.rank, world_size=spec.world_size, job=spec.job_id, agent_store=spec.agent_store)
    with ExitStack() as undo:
        gloo = GlooSettings(environ)
        undo.callback(gloo.close)
        frame = Frame(identity, endpoint, deadline, Here.now(), _job_end(resolver, environ, deadline))
        reserved = reserve(frame)
        joining = _Joining(reserved, describe_this_process(spec, spec.backend or ""))
        undo.callback(process_group.abandon)
        undo.callback(joining.close)
        with _interrupts_reported(joining):
            with _failures_reported(joining):
                if identity.hosts:
                    check_file_descriptors(spec.world_size)
                torch = import_torch()
                settings = load_config(config)
            with _failures_reported(joining, SlowImport, brief=True):
                entered = joining.phase = reserved.enter(torch)
                entered.wait_for(torch)
            with _failures_reported(joining):
                accelerators, backend = devices.choose(device, spec.backend, environ, spec.rank)
                index = devices.index_of(device, None, accelerators, spec.rank)
            report = describe_this_process(spec, backend, accelerators, index)
            joining.report = report = attrs.evolve(report, address=entered.own_address())
            placement = None if environ.get(ROLL_CALL) == "off" else entered.gather(report)
            gathered = joining.phase = Gathered(entered)
            spec = _with_placement(spec, placement, entered.rank0())
            if placement is not None:
                index = placement.device
            else:  # what is unsettled then, a launch without a roll call settles by itself
                with _failures_reported(joining):
                    index = devices.index_of(device, spec.local_rank, accelerators, spec.rank)
            chosen = devices.named(accelerators, index)
            spans_hosts = "gloo" in backend and spec.num_nodes != 1
            gloo.choose(gathered.interface(report.address) if spans_hosts else None)
            connected = gathered.connect(
                lambda store: process_group.make(store, entered.group_prefix, spec, backend, chosen),
                lambda error: process_group.explained(spec, environ, backend, error),
            )
            gloo.formed()
            hardware.select(chosen)
        undo.pop_all()
    return Job(spec, chosen, backend, settings, connected, gloo)


def _job_end(resolver: ResolverProtocol | None, environ: Environ, deadline: Deadline) -> float:
    """Return when the launcher ends the job, on the deadline's clock, where that is before the deadline."""
    end = resolver.job_end(environ) if isinstance(resolver, Resolver) else None
    remaining = 0.0 if end is None else end - time.time()
    return deadline.clock() + remaining if 0 < remaining < deadline.remaining else float("inf")


@attrs.define
class _Joining:
    """How far this rank has come, and what it would report if it failed now."""

    phase: Host | Contender | Guest | Entered | Gathered
    report: RankReport

    def close(self) -> None:
        """Let go of what the phase holds."""
        self.phase.close()


@contextmanager
def _failures_reported(
    joining: _Joining, kind: type[ColossalaiEnvError] = ColossalaiEnvError, *, brief: bool = False
) -> Generator[None]:
    """Report an error of this rank's own to the others; for a moment where the time is over."""
    try:
        yield
    except kind as failure:
        report = attrs.evolve(joining.report, error=str(failure))
        joining.phase.interrupt(report) if brief else joining.phase.fail(report)
        raise


@contextmanager
def _interrupts_reported(joining: _Joining) -> Generator[None]:
    """Report to the others, once, that this rank is interrupted."""
    reported: list[str] = []

    def tell(reason: str) -> None:
        if not reported:
            reported.append(reason)
            joining.phase.interrupt(attrs.evolve(joining.report, error=reason))

    try:
        with interruptible(tell):
            yield
    except ColossalaiEnvError:
        raise  # reported already
    except BaseException as stop:
        tell(f"left by {type(stop).__name__}: {stop}")
        raise


def report_failure(
    failure: ColossalaiEnvError, resolution: Resolution, environ: Environ, given: dict[str, Given]
) -> None:
    """Report to the others, as far as they can be met, an error in this rank's own environment."""
    deadline = Deadline(time.monotonic, time.monotonic(), REPORT_FAILURE)
    try:
        found = _partial_identity(resolution, environ, given, deadline)
        if found is None:
            return
        identity, endpoint = found
        here = Here.now()
        phase = reserve(Frame(identity, endpoint, deadline, here))
        report = RankReport.of_error(identity.rank, here.host, here.pid, str(failure), identity.world_size or 1)
        try:
            phase.fail(report)
        finally:
            phase.close()
    except ColossalaiEnvError as trouble:
        log.debug("the failure could not be reported: %s", trouble)


def _partial_identity(
    resolution: Resolution, environ: Environ, given: dict[str, Given], deadline: Deadline
) -> tuple[Identity, Endpoint] | None:
    """Put together what can be read in spite of an error; None where the others cannot be met."""
    deciding = resolution.deciding
    resolver = deciding.resolver if deciding else None
    if isinstance(resolution.outcome, NotLaunched):
        return None
    name = deciding.name if deciding else "unknown"
    spec = resolution.refused or _readable(resolver, name, environ, given)
    if spec is None:
        return None
    located, endpoint = locate(spec, environ, (), deadline.remaining, getattr(resolver, "directory", None))
    rank = spec.rank if "rank" in spec.sources else None
    size = spec.world_size if "world_size" in spec.sources else None
    return Identity(rank=rank, world_size=size, job=located.job_id, agent_store=spec.agent_store), endpoint


def _readable(
    resolver: ResolverProtocol | None, name: str, environ: Environ, given: dict[str, Given]
) -> DistSpec | None:
    """Return what can be read of where the others are; a rank and a world size without a source are only stand-ins."""
    found: dict[str, Any] = resolver.readable(environ) if isinstance(resolver, Resolver) else {}
    for field, variable in MASTER.items():
        with suppress(ValueError):
            found[field] = READERS[field](environ.get(variable) or "")
    found.update({field: item.value for field, item in given.items()})
    said = {
        field: found[field]
        for field in ("rank", "world_size", "host", "port", "job_id", "agent_store")
        if found.get(field) is not None
    }
    if not ("host" in said or getattr(resolver, "directory", None)) or not {"port", "job_id"} & said.keys():
        return None
    sources = {field: Source("MASTER_ADDR", Origin.CHOSEN) if field == "host" else Source(name) for field in said}
    rank = said.setdefault("rank", 1)
    said.setdefault("world_size", max(2, rank + 1))
    try:
        return DistSpec(**said, sources=sources, resolver=name)
    except (ColossalaiEnvError, TypeError):
        return None


def _with_placement(spec: DistSpec, placement: Placement | None, rank0: Target) -> DistSpec:
    """Fill in what the launcher left unknown."""
    found: dict[str, Any] = {} if placement is None else placement.numbers()
    found["host"], found["port"] = rank0
    miscounted = "num_nodes" if found.get("num_nodes") != spec.num_nodes else ""
    unknown = {name: value for name, value in found.items() if getattr(spec, name) is None or name == miscounted}
    sources = {name: DIRECTORY if name == "host" else ROLL_CALL_SOURCE for name in unknown}
    return attrs.evolve(spec, **{**unknown, "port": rank0[1]}, sources={**spec.sources, **sources})


ROLL_CALL_SOURCE = Source("roll call", Origin.RENDEZVOUS)
"""The source of a number that rank 0 found out."""
