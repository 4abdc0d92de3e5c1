"""init_from_env(attach=True): the process group that others have made becomes a Job, and stays as it is."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from . import _devices as devices
from . import _hardware as hardware
from . import _process_group as process_group
from ._addresses import Endpoint
from ._config import Config
from ._job import Job, describe_this_process, with_placement
from ._rendezvous.adopted import Adopted, Adopting
from ._rendezvous.entered import Frame
from ._rendezvous.identity import Here, Identity
from ._rendezvous.protocol.requests import Deadline
from ._reporting import Joining, failures_reported, interrupts_reported
from .environ import Environ
from .errors import ColossalaiEnvError, NotLaunched, PartialEnvironment, WrongGroup
from .spec import DistSpec, Origin, Source

if TYPE_CHECKING:
    import torch

log = logging.getLogger("colossalai_env")

GROUP = "process-group"
"""Who says who this process is, where no launcher does."""

SOURCE = Source("torch.distributed", Origin.RENDEZVOUS)
"""The source of what the group says."""


def adopt(
    outcome: DistSpec | ColossalaiEnvError,
    environ: Environ,
    deadline: Deadline,
    device: "torch.device | str | int | None",
    settled: Callable[[], Config],
) -> Job:
    """Make a job of the group in which this process is, together with its other ranks, or raise on all of them."""
    group = process_group.current()
    place = group.place or ("its store", 0)
    endpoint = Endpoint(place[0], place[:1], place[1:], str(SOURCE))
    identity = Identity(rank=group.rank, world_size=group.world_size, job=None)
    frame = Frame(identity, endpoint, deadline, Here.now(), server="the process group's store")
    adopting = Adopting.of(frame, group.store)
    numbers = DistSpec(rank=group.rank, world_size=group.world_size)
    joining = Joining(adopting, describe_this_process(numbers, group.backend))
    try:
        with interrupts_reported(joining):
            with failures_reported(joining):
                spec = _said_alike(outcome, group)
                settings = settled()
                device = group.device if device is None else device
                accelerators, backend = devices.choose(device, group.backend, environ, spec.rank)
                index = devices.index_of(device, None, accelerators, spec.rank)
            report = joining.report = describe_this_process(spec, backend, accelerators, index)
            entered = joining.phase = adopting.enter()
            placement = entered.gather(report)
    except BaseException:
        joining.close()
        raise
    finally:
        adopting.close()
    chosen = devices.named(accelerators, None if placement is None else placement.device)
    hardware.select(chosen)
    return Job(with_placement(spec, placement), chosen, backend, settings, Adopted(entered))


def _said_alike(outcome: DistSpec | ColossalaiEnvError, group: process_group.Group) -> DistSpec:
    """Return who this process is by its launcher, which must say as the group does, or else by the group alone.

    Raises `WrongGroup`, or what keeps the launcher's variables from being read.
    """
    if isinstance(outcome, ColossalaiEnvError) and not isinstance(outcome, (NotLaunched, PartialEnvironment)):
        raise outcome
    known: dict[str, Any] = dict(zip(("host", "port"), group.place or (), strict=False))
    if isinstance(outcome, ColossalaiEnvError) or outcome.origin("rank") is Origin.RULE:
        sources = dict.fromkeys(("rank", "world_size", *known), SOURCE)
        return DistSpec(rank=group.rank, world_size=group.world_size, resolver=GROUP, sources=sources, **known)
    if (outcome.rank, outcome.world_size) != (group.rank, group.world_size):
        named = dict.fromkeys(str(outcome.sources.get(name, name)) for name in ("rank", "world_size"))
        raise WrongGroup(group.rank, group.world_size, str(outcome), ", ".join(named))
    if outcome.host is not None:
        known.pop("host", None)  # rank 0's own store is on loopback
    changes = {name: value for name, value in known.items() if getattr(outcome, name) != value}
    return attrs.evolve(outcome, **changes, sources={**outcome.sources, **dict.fromkeys(changes, SOURCE)})
