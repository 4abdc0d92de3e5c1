"""init_from_env(): from the environment to a Job; what fails on one rank is reported to all."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import timedelta
from operator import index
from typing import TYPE_CHECKING, SupportsFloat, SupportsIndex, cast

import attrs

from . import _devices as devices
from . import _hardware as hardware
from . import _process_group as process_group
from ._addresses import Endpoint, own_address
from ._adopt import adopt
from ._arguments import Given, arguments, mistyped, unread
from ._candidates import Candidate
from ._children import doubt, refuse_child, refuse_import
from ._config import Config, ConfigLike, load_config
from ._derived import derived_ports
from ._gloo import GlooSettings, loopback
from ._job import Job, describe_this_process, one_call, refuse_second, run, with_placement
from ._libraries import overlooked
from ._locate import locate, refuse_platform
from ._node_level import refuse_visible
from ._rendezvous.entered import Entered, Frame
from ._rendezvous.formed import Gathered
from ._rendezvous.identity import Here, Identity
from ._rendezvous.listener import check_file_descriptors
from ._rendezvous.protocol.requests import Deadline
from ._rendezvous.rendezvous import Contender, Guest, Host, reserve
from ._rendezvous.torch_store import Store, import_torch, load_torch
from ._reporting import Joining, failures_reported, interrupts_reported, report_failure
from ._resolution import Resolution, examine
from .environ import Environ
from .errors import (
    ColossalaiEnvError,
    InvalidArgument,
    NotAsked,
    SlowImport,
    UnsupportedTorch,
    ends_at_caller,
    quoted,
)
from .resolver import Claim, Invalid, Resolver, ResolverProtocol
from .spec import DistSpec, Origin, Source

if TYPE_CHECKING:
    import torch

log = logging.getLogger("colossalai_env")

TIMEOUT = 300.0
"""Seconds that all ranks have to come: image pulls take minutes, a forgotten rank takes for ever."""

LONGEST_TIMEOUT = 1e9
"""Seconds, 30 years: no clock and no wait of Python's or torch's breaks before."""

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
    export: bool = False,
    attach: bool = False,
) -> Job:
    """Join the process group of the job in which this process was started.

    The launcher is found as `resolve` finds it, by `resolver` alone where one is named. `rank`, `world_size`,
    `local_rank`, `host`, `port` and `backend` override what it says, and so do those of the parsed namespace `args`.

    `timeout` bounds the wait for the other ranks, in seconds (default 300); collectives keep torch's own. `device` is
    ``cpu``, an accelerator such as ``cuda:1``, or its number; where it is left out, each process takes one of its own.
    Where no backend is named, the one that fits the device is taken.

    `config`, a path or a mapping, is read by `load_config` and becomes `Job.config`. `seed` seeds random, numpy and
    torch, alike on all ranks. `export` sets ``RANK`` and its kin for libraries that read them, until the job is closed
    (`Job.export`). `attach` makes a job of the process group in which this process is already, made by others: all its
    ranks call, and the group stays when the job is closed.

    Raises a `ColossalaiEnvError`, within the timeout and two seconds, on every rank.
    """
    deadline = Deadline(time.monotonic, time.monotonic(), _seconds(timeout) or TIMEOUT)
    with one_call():
        refuse_second(attach=attach)
        environ = Environ.snapshot()
        given = arguments(
            args, rank=rank, world_size=world_size, local_rank=local_rank, host=host, port=port, backend=backend
        )
        environ, resolution = _examined(environ, given, resolver, deadline)

        def settled() -> Config:
            _refuse_misfits(timeout, device, seed)
            return load_config({} if config is None else config)

        if attach:
            job = adopt(resolution.outcome, environ, deadline, device, settled)
        else:
            spec = _believed(resolution, environ, given)
            if spec.world_size == 1:
                job = _join_single(spec, environ, device, settled())
            else:
                job = join_world(spec, resolution.deciding, environ, deadline, device, settled)
        run(job)
    if export:
        job.export()
    for warning in overlooked(job.spec, environ, sys.modules) if job.rank == 0 and not export else ():
        log.warning("%s", warning)
    if seed is not None:
        process_group.seed_all(index(seed))
    return job


def _examined(
    environ: Environ, given: dict[str, Given], resolver: str | ResolverProtocol | None, deadline: Deadline
) -> tuple[Environ, Resolution]:
    """Examine the environment, with what the launcher says when asked where no variable does."""
    resolution = examine(environ, given, resolver)
    missing, deciding = resolution.outcome, resolution.deciding
    launcher = deciding.resolver if deciding is not None else None
    if not isinstance(missing, NotAsked) or not isinstance(launcher, Resolver) or launcher.complete is None:
        return environ, resolution
    answer = launcher.complete(environ, deadline.remaining)
    if isinstance(answer, str):
        failed = NotAsked(missing.resolver, missing.variable, missing.found, missing.rank, answer)
        asked = tuple(one._replace(answer=Invalid(failed)) if one is deciding else one for one in resolution.candidates)
        return environ, resolution._replace(candidates=asked, outcome=failed)
    environ = environ.plus(answer)
    return environ, examine(environ, given, resolver)


def _believed(resolution: Resolution, environ: Environ, given: dict[str, Given]) -> DistSpec:
    """Return who this process is, with rank 0's warnings, or raise why that is not known, on all ranks."""
    outcome = resolution.outcome
    if isinstance(outcome, ColossalaiEnvError):
        report_failure(outcome, resolution, environ, given)
        raise outcome
    refuse_child(outcome)
    if outcome.rank == 0:
        for warning in (*_doubts(resolution, outcome, environ), *unread(environ, outcome), *mistyped(environ)):
            log.warning("%s", warning)
    return outcome


def _doubts(resolution: Resolution, spec: DistSpec, environ: Environ) -> tuple[str, ...]:
    """Return what may be meant otherwise; raise `NotLaunched` where a file states that a single process is not."""
    if not resolution.warnings:
        return () if resolution.chosen else doubt(spec)
    from ._listed_hosts import refuse_listed

    return () if spec.world_size == 1 and refuse_listed(environ) else resolution.warnings


def _seconds(timeout: object) -> float | None:
    """Return a timeout in seconds; None for what cannot be one."""
    if timeout is None:
        return TIMEOUT
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    number = float(seconds) if isinstance(seconds, SupportsFloat) and type(seconds) is not bool else 0.0
    return number if 0 < number <= LONGEST_TIMEOUT else None


def _is_device(device: object) -> bool:
    torch = sys.modules.get("torch")  # who has a torch.device has imported it
    return isinstance(device, (str, int) if torch is None else (str, int, torch.device)) and type(device) is not bool


def _is_seed(seed: object) -> bool:
    try:
        return type(seed) is not bool and -(2**63) <= index(cast("SupportsIndex", seed)) < 2**64
    except TypeError:
        return False


def _refuse_misfits(timeout: object, device: object, seed: object) -> None:
    """Raise `InvalidArgument` where the caller gave one of these what it cannot be."""
    seconds = f"a positive number of seconds, {LONGEST_TIMEOUT:.0f} at most, or a timedelta"
    for name, value, fits, expected in (
        ("timeout", timeout, _seconds(timeout) is not None, seconds),
        ("device", device, device is None or _is_device(device), "cpu, cuda, cuda:1, a number or a torch.device"),
        ("seed", seed, seed is None or _is_seed(seed), "a whole number from -2**63 to 2**64 - 1"),
    ):
        if not fits:
            raise InvalidArgument(f"argument {name}", quoted(value), expected)


def _join_single(spec: DistSpec, environ: Environ, device: "torch.device | str | int | None", settings: Config) -> Job:
    """Make the group of a single process: no waiting, not for a name server either."""
    with closing(GlooSettings(environ, agreed=False)) as gloo:
        load_torch()
        accelerators, backend = devices.choose(device, spec.backend, environ, spec.rank)
        chosen = devices.named(accelerators, devices.index_of(device, spec.local_rank or 0, accelerators, spec.rank))
        spec = attrs.evolve(spec, local_rank=0, local_world_size=1, node_rank=0, num_nodes=1)
        gloo.choose(loopback() if "gloo" in backend else None)
        process_group.make_alone(environ, spec, backend, chosen)
    hardware.select(chosen)
    return Job(spec, chosen, backend, settings)


def join_world(
    spec: DistSpec,
    deciding: Candidate | None,
    environ: Environ,
    deadline: Deadline,
    device: "torch.device | str | int | None",
    settled: Callable[[], Config],
) -> Job:
    """Meet the other ranks and make the group, or raise on all ranks."""
    spec, frame = _framed(spec, deciding, environ, deadline)
    with ExitStack() as undo:
        gloo = GlooSettings(environ, agreed=environ.get(ROLL_CALL) != "off")
        undo.callback(gloo.close)
        reserved = reserve(frame)
        joining = Joining(reserved, describe_this_process(spec, spec.backend or ""))
        undo.callback(process_group.abandon)
        undo.callback(joining.close)
        with interrupts_reported(joining):
            with failures_reported(joining):
                settings = settled()
            entered = _entered(joining, reserved)
            with failures_reported(joining):
                accelerators, backend = devices.choose(device, spec.backend, environ, spec.rank)
                refuse_visible(spec, environ, accelerators.visible if device is None else 1)
                index = devices.index_of(device, None, accelerators, spec.rank)
            report = describe_this_process(spec, backend, accelerators, index)
            joining.report = report = attrs.evolve(report, address=entered.own_address(), given=frame.given)
            placement = None if environ.get(ROLL_CALL) == "off" else entered.gather(report)
            gathered = joining.phase = Gathered(entered)
            spec = with_placement(spec, placement, entered.rank0())
            if placement is not None:
                index = placement.device
            else:  # what is unsettled then, a launch without a roll call settles by itself
                with failures_reported(joining):
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


@ends_at_caller
def meet(timeout: float, rank: int | None = None, world_size: int | None = None) -> "tuple[Store, int, int]":
    """Meet the other ranks, and return the store on which torch makes the group itself, the rank and the world size.

    Raises a `ColossalaiEnvError`, within the timeout and two seconds, on every rank.
    """
    deadline = Deadline(time.monotonic, time.monotonic(), timeout)
    refuse_import()
    environ = Environ.snapshot()
    given = arguments(rank=rank, world_size=world_size)
    environ, resolution = _examined(environ, given, None, deadline)
    spec = _believed(resolution, environ, given)
    if spec.world_size == 1:
        return process_group.single_store(), 0, 1
    spec, frame = _framed(spec, resolution.deciding, environ, deadline)
    reserved = reserve(frame)
    joining = Joining(reserved, describe_this_process(spec, ""))
    try:
        with interrupts_reported(joining):
            entered = _entered(joining, reserved)
            joining.report = attrs.evolve(describe_this_process(spec, ""), given=frame.given)
            if environ.get(ROLL_CALL) != "off":
                entered.gather(joining.report)
            store = Gathered(entered).store()
    finally:
        joining.close()
    return process_group.prefixed(store, entered.group_prefix), spec.rank, spec.world_size


def _framed(spec: DistSpec, deciding: Candidate | None, environ: Environ, deadline: Deadline) -> tuple[DistSpec, Frame]:
    """Find rank 0's endpoint, and return it with all that stays the same while the ranks meet."""
    refuse_platform()
    resolver = deciding.resolver if deciding else None
    spec, endpoint = _locate(spec, environ, resolver, deadline.remaining)
    if spec.job_id is not None and _is_given(spec, deciding):
        endpoint = attrs.evolve(endpoint, otherwise=derived_ports(spec.job_id))
    identity = Identity(rank=spec.rank, world_size=spec.world_size, job=spec.job_id, agent_store=spec.agent_store)
    return spec, Frame(identity, endpoint, deadline, Here.now(), _job_end(resolver, environ, deadline))


def _is_given(spec: DistSpec, deciding: Candidate | None) -> bool:
    """Return whether a person or script gave rank 0's place, where the launcher would lead elsewhere."""
    answer = deciding.answer if deciding is not None else None
    chosen = Origin.CHOSEN in {spec.origin("host"), spec.origin("port")}
    return chosen and isinstance(answer, Claim) and answer.spec.port is None


def _entered(joining: Joining, reserved: Host | Contender | Guest) -> Entered:
    """Import torch, and enter the store of this launch meanwhile."""
    with failures_reported(joining):
        identity = reserved.frame.identity
        if identity.hosts:
            check_file_descriptors(identity.others + 1)
        torch = import_torch()
    with failures_reported(joining, UnsupportedTorch), failures_reported(joining, SlowImport, brief=True):
        entered = joining.phase = reserved.enter(torch)
        entered.wait_for(torch)
    return entered


def _locate(
    spec: DistSpec, environ: Environ, resolver: ResolverProtocol | None, seconds: float
) -> tuple[DistSpec, Endpoint]:
    """Find rank 0's endpoint, with what the resolver offers where its variables do not say it."""
    if spec.rank == 0 and spec.host is None and isinstance(resolver, Resolver) and resolver.tells_others_alone:
        spec = attrs.evolve(spec, host=own_address(), sources={**spec.sources, "host": OWN_ADDRESS})
    return locate(spec, environ, getattr(resolver, "locate", ()), seconds, getattr(resolver, "directory", None))


OWN_ADDRESS = Source("rule: rank 0's own address, which the others are told", Origin.RULE)
"""The source of a host that the launcher tells all ranks but rank 0."""


def _job_end(resolver: ResolverProtocol | None, environ: Environ, deadline: Deadline) -> float:
    """Return when the launcher ends the job, on the deadline's clock, where that is before the deadline."""
    end = resolver.job_end(environ) if isinstance(resolver, Resolver) else None
    remaining = 0.0 if end is None else end - time.time()
    return deadline.clock() + remaining if 0 < remaining < deadline.remaining else float("inf")
