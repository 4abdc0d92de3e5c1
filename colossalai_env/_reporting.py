"""A rank's own failures and interrupts are reported to the others, by the phase that it has reached."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import attrs

from ._addresses import Endpoint
from ._arguments import Given
from ._combination import MASTER
from ._locate import locate
from ._rendezvous.adopted import Adopting
from ._rendezvous.entered import Entered, Frame
from ._rendezvous.formed import Gathered
from ._rendezvous.identity import Here, Identity
from ._rendezvous.protocol.report import RankReport
from ._rendezvous.protocol.requests import Deadline
from ._rendezvous.protocol.timing import REPORT_FAILURE
from ._rendezvous.rendezvous import Contender, Guest, Host, reserve
from ._resolution import Resolution
from ._rows import READERS
from ._signals import interruptible
from .environ import Environ
from .errors import ColossalaiEnvError, NotLaunched
from .resolver import Resolver, ResolverProtocol
from .spec import DistSpec, Origin, Source

log = logging.getLogger("colossalai_env")


@attrs.define
class Joining:
    """How far this rank has come, and what it would report if it failed now."""

    phase: Host | Contender | Guest | Adopting | Entered | Gathered
    report: RankReport

    def close(self) -> None:
        """Let go of what the phase holds."""
        self.phase.close()


@contextmanager
def failures_reported(
    joining: Joining,
    kind: type[ColossalaiEnvError] = ColossalaiEnvError,
    *,
    brief: bool = False,
) -> Generator[None]:
    """Report an error of this rank's own to the others; for a moment where the time is over."""
    try:
        yield
    except kind as failure:
        report = attrs.evolve(joining.report, error=str(failure))
        joining.phase.interrupt(report) if brief else joining.phase.fail(report)
        raise


@contextmanager
def interrupts_reported(joining: Joining) -> Generator[None]:
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
    for field, item in given.items():
        with suppress(KeyError, ValueError):
            found[field] = READERS[field](str(item.value))
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
