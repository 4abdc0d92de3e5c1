"""init_from_env(): from the environment to a Job; what fails on one rank is told to all."""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import attrs

from . import device as devices
from . import hardware
from .addresses import Target
from .arguments import Given, arguments
from .candidates import Candidate
from .combination import MASTER
from .config import ConfigLike, load_config
from .endpoint import DIRECTORY, Endpoint, locate, refuse_platform
from .environ import Environ
from .errors import ColossalaiEnvError, NotAWorld, SlowImport, ends_at_caller
from .gloo import GlooSettings
from .group import abandon, connect, make_alone, seed_all
from .interrupts import interruptible
from .job import Job, refuse_second, reply_of, run
from .kinship import doubt, refuse_child
from .listener import check_file_descriptors
from .meeting import Meeting
from .reply import Place, Reply
from .resolution import Resolution, examine
from .resolver import Resolver, ResolverProtocol
from .rollcall import Watch
from .rows import READERS
from .spec import LARGEST, DistSpec
from .store import importing_torch

if TYPE_CHECKING:
    import torch

log = logging.getLogger("colossalai_env")

TIMEOUT = 300.0
"""Seconds that all ranks have to come: image pulls take minutes, a forgotten rank takes for ever."""


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
    watch = Watch(time.monotonic, time.monotonic(), _seconds(timeout))
    refuse_second()
    environ = Environ.snapshot()
    given = arguments(
        args, rank=rank, world_size=world_size, local_rank=local_rank, host=host, port=port, backend=backend
    )
    resolution = examine(environ, given, resolver)
    outcome = resolution.outcome
    if isinstance(outcome, DistSpec):
        refuse_child(outcome)
        doubts = resolution.warnings or (() if resolution.chosen else doubt(outcome))
        for warning in doubts if outcome.rank == 0 else ():
            log.warning("%s", warning)
    if isinstance(outcome, DistSpec) and outcome.world_size == 1:
        job = _alone(outcome, environ, device, {} if config is None else config)
    else:
        job = _together(resolution, environ, given, watch, device, {} if config is None else config)
    run(job)
    if seed is not None:
        seed_all(seed)
    return job


def _seconds(timeout: float | timedelta | None) -> float:
    if timeout is None:
        return TIMEOUT
    return timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)


ROLL_CALL = "COLOSSALAI_ENV_ROLL_CALL"
"""``off``, alike on all ranks, leaves the roll call out: nobody is missed by name, nothing unsaid is found out."""

TELLING = 5.0
"""Seconds that a rank with an error of its own takes to reach the others before it goes."""


def _locate(
    spec: DistSpec, environ: Environ, resolver: ResolverProtocol | None, seconds: float
) -> tuple[DistSpec, Endpoint]:
    """Find rank 0's endpoint, with what the resolver offers where its variables do not say it."""
    return locate(spec, environ, getattr(resolver, "locate", ()), seconds, getattr(resolver, "directory", None))


def early_end(resolver: ResolverProtocol | None, environ: Environ, watch: Watch) -> float | None:
    """Return when the launcher ends the job, by the watch's clock, where that is before the wait is over."""
    end = resolver.job_end(environ) if isinstance(resolver, Resolver) else None
    left = 0.0 if end is None else end - time.time()
    return watch.clock() + left if 0 < left < watch.left else None


def _sketch(resolution: Resolution, environ: Environ, given: dict[str, Given]) -> DistSpec | None:
    """Put together what can be read in spite of an error, to tell the other ranks; None where they cannot be met."""
    if resolution.refused is not None:
        return resolution.refused
    deciding = resolution.deciding
    said: dict[str, Any] = {}
    if deciding is not None and isinstance(deciding.resolver, Resolver):
        said = deciding.resolver.readable(environ)
    for field, variable in MASTER.items():
        with suppress(ValueError):
            said[field] = READERS[field](environ.get(variable) or "")
    said.update({name: item.value for name, item in given.items()})
    rank, size = said.pop("rank", None), said.pop("world_size", None)
    met: dict[str, Any] = {
        name: said.get(name) for name in ("host", "port", "job_id", "agent_store") if said.get(name) is not None
    }
    told = "host" in met or getattr(deciding and deciding.resolver, "directory", None) is not None
    if not told or not {"port", "job_id"} & met.keys() or isinstance(resolution.outcome, NotAWorld):
        return None
    rank = 1 if rank is None else rank
    try:
        return DistSpec(
            rank=rank,
            world_size=max(size or LARGEST, rank + 1),
            resolver=deciding.name if deciding else "unknown",
            sources={"host": "MASTER_ADDR"} if "host" in met else {},
            **met,
        )
    except (ColossalaiEnvError, TypeError):
        return None


def _together(
    resolution: Resolution,
    environ: Environ,
    given: dict[str, Given],
    watch: Watch,
    device: "torch.device | str | int | None",
    config: ConfigLike,
) -> Job:
    """Meet the others and make the group, or raise on all ranks."""
    if isinstance(resolution.outcome, ColossalaiEnvError):
        raise _told(resolution.outcome, _sketch(resolution, environ, given), environ, resolution.deciding)
    refuse_platform()
    deciding = resolution.deciding
    spec, endpoint = _locate(resolution.outcome, environ, deciding.resolver if deciding else None, watch.left)
    ends = early_end(deciding.resolver if deciding else None, environ, watch)
    meeting = Meeting(spec=spec, endpoint=endpoint, watch=watch, ends=ends)
    reply = reply_of(spec, spec.backend or "")
    gloo = GlooSettings(environ)
    try:
        with _telling(meeting, lambda: reply):
            meeting.reserve()
            with _failing_together(meeting, spec):
                if meeting.serves:
                    check_file_descriptors(spec.world_size)
                torch = importing_torch()
                settings = load_config(config)
            try:
                meeting.enter(torch)
            except SlowImport as failure:
                meeting.abort(attrs.evolve(reply, error=str(failure)))
                raise
            with _failing_together(meeting, spec):
                accelerators, backend = devices.choose(device, spec.backend, environ, spec.rank)
                index = devices.index_of(device, None, accelerators, spec.rank)
            address = meeting.own_address()
            reply = attrs.evolve(reply_of(spec, backend, accelerators, index), address=address)
            place = meeting.hold(reply, roll_call=environ.get(ROLL_CALL) != "off")
            spec = _filled(spec, place, meeting.rank0())
            try:
                if place is None:  # what is unsettled then, a launch without a roll call settles by itself
                    index = devices.index_of(device, spec.local_rank, accelerators, spec.rank)
            except ColossalaiEnvError as failure:
                meeting.post("broken", f"{reply} failed: {failure}")
                raise
            chosen = devices.named(accelerators, index if place is None else place.device)
            spans_hosts = "gloo" in backend and spec.num_nodes != 1
            gloo.choose(meeting.interface(address) if spans_hosts else None)
            connect(meeting, environ, spec, backend, chosen)
            gloo.formed()
            hardware.select(chosen)
    except BaseException:
        meeting.close()
        abandon()
        gloo.close()
        raise
    return Job(spec, chosen, backend, meeting, settings, gloo)


@contextmanager
def _failing_together(meeting: Meeting, spec: DistSpec) -> Generator[None]:
    """Tell the others of an error of this rank's own."""
    try:
        yield
    except ColossalaiEnvError as failure:
        meeting.fail(reply_of(spec, spec.backend or "", error=str(failure)), TELLING)
        raise


@contextmanager
def _telling(meeting: Meeting, reply: Callable[[], Reply]) -> Generator[None]:
    """Tell the others when this rank is interrupted."""

    def tell(reason: str) -> None:
        meeting.abort(attrs.evolve(reply(), error=reason))

    try:
        with interruptible(tell):
            yield
    except ColossalaiEnvError:
        raise  # told already
    except BaseException as stop:
        tell(f"left by {type(stop).__name__}: {stop}")
        raise


def _told(
    failure: ColossalaiEnvError, sketch: DistSpec | None, environ: Environ, deciding: Candidate | None
) -> ColossalaiEnvError:
    """Tell the others, as far as they can be met, of an error in this rank's own environment; return it."""
    if sketch is None:
        return failure
    rank = sketch.rank if sketch.world_size < LARGEST or sketch.rank != 1 else -1
    directory = getattr(deciding and deciding.resolver, "directory", None)
    try:
        sketch, endpoint = locate(sketch, environ, (), TELLING, directory)
    except ColossalaiEnvError:
        return failure
    watch = Watch(time.monotonic, time.monotonic(), TELLING)
    meeting = Meeting(spec=sketch, endpoint=endpoint, watch=watch)
    try:
        meeting.reserve()
        meeting.fail(attrs.evolve(reply_of(sketch, "", error=str(failure)), rank=rank), TELLING)
    except ColossalaiEnvError:
        log.debug("the other ranks could not be told")
    finally:
        meeting.close()
    return failure


def _filled(spec: DistSpec, place: Place | None, rank0: Target) -> DistSpec:
    """Fill in what the launcher left unknown."""
    found: dict[str, Any] = {} if place is None else place.numbers()
    found["host"], found["port"] = rank0
    miscounted = "num_nodes" if found.get("num_nodes") != spec.num_nodes else ""
    unknown = {name: value for name, value in found.items() if getattr(spec, name) is None or name == miscounted}
    sources = {name: DIRECTORY if name == "host" else "roll call" for name in unknown}
    return attrs.evolve(spec, **{**unknown, "port": rank0[1]}, sources={**spec.sources, **sources})


def _alone(
    spec: DistSpec,
    environ: Environ,
    device: "torch.device | str | int | None",
    config: ConfigLike,
) -> Job:
    """Make the group of a single process: no socket, no waiting."""
    settings = load_config(config)
    accelerators, backend = devices.choose(device, spec.backend, environ, spec.rank)
    chosen = devices.named(accelerators, devices.index_of(device, spec.local_rank or 0, accelerators, spec.rank))
    spec = attrs.evolve(spec, local_rank=0, local_world_size=1, node_rank=0, num_nodes=1)
    make_alone(environ, spec, backend, chosen)
    hardware.select(chosen)
    return Job(spec, chosen, backend, None, settings, None)
