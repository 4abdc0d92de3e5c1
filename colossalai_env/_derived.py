"""What follows from a spec by a rule: port, loopback, and whether the launcher will be asked for rank 0's host."""

from collections.abc import Sequence

import attr as attrs

from .environ import Environ
from .spec import DistSpec, Origin, Source

LOCATE = "COLOSSALAI_ENV_LOCATE"
"""Names the ways, separated by commas, in which launchers may be asked for rank 0's host; ``none`` forbids all."""

LOWEST_PORT, PORT_LIMIT = 10000, 32751
"""Derived ports lie above the well-known ones and below the kernel's ephemeral range, where any client may sit.

There are 22,751 of them, a prime number, so that every letter of a job's id counts.
"""

ATTEMPTS = 8
"""How many derived ports are tried when some are taken."""


def derived_port(job_id: str, attempt: int = 0) -> int:
    """Return a port that every rank of a launch derives alike, and two launches rarely share."""
    number = int.from_bytes(job_id.encode(), "big")
    return LOWEST_PORT + (number + 7919 * attempt) % (PORT_LIMIT - LOWEST_PORT)


def derived_ports(job_id: str) -> tuple[int, ...]:
    """Return the ports that are tried in turn where some are taken."""
    return tuple(derived_port(job_id, attempt) for attempt in range(ATTEMPTS))


def with_port(spec: DistSpec) -> DistSpec:
    """Derive the port from the job id, where there is an id and no port."""
    if spec.port is not None or spec.job_id is None:
        return spec
    rule = Source(f"rule: from job id ({spec.sources.get('job_id', 'given')})", Origin.RULE)
    sources = {**spec.sources, "port": rule}
    return attrs.evolve(spec, port=derived_port(spec.job_id), sources=sources)


def is_asked_for(spec: DistSpec) -> bool:
    """Return whether something is missing of where rank 0 is, so that its launcher has to be asked."""
    return spec.world_size > 1 and (spec.host is None or (spec.port is None and spec.job_id is None))


def allowed(ways: Sequence[str], environ: Environ) -> tuple[str, ...]:
    """Return those names of ways to ask that the user allows."""
    listed = environ.get(LOCATE)
    names = ways if listed is None else [name.strip() for name in listed.split(",")]
    return tuple(way for way in ways if way in names)


def on_loopback(spec: DistSpec) -> DistSpec:
    """Let the ranks of one node meet on loopback, where no other host can reach them."""
    return attrs.evolve(spec, host="127.0.0.1", sources={**spec.sources, "host": ONE_NODE})


ONE_NODE = Source("rule: all ranks are on one node", Origin.RULE)
