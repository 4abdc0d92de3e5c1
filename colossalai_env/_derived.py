"""What follows from a spec by a rule: the port from the job's id, and loopback for a world on one node."""

import zlib

import attrs

from .spec import DistSpec, Origin, Source

LOWEST_PORT, PORT_LIMIT = 10000, 32768
"""Derived ports lie above the well-known ones and below the kernel's ephemeral range, where any client may sit."""

ATTEMPTS = 8
"""How many derived ports are tried when some are taken."""


def derived_port(job_id: str, attempt: int = 0) -> int:
    """Return a port that every rank of a launch derives alike, and two launches rarely share."""
    digest = zlib.crc32(job_id.encode())
    return LOWEST_PORT + (digest + 7919 * attempt) % (PORT_LIMIT - LOWEST_PORT)


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


def on_loopback(spec: DistSpec) -> DistSpec:
    """Let the ranks of one node meet on loopback, where no other host can reach them."""
    return attrs.evolve(spec, host="127.0.0.1", sources={**spec.sources, "host": ONE_NODE})


ONE_NODE = Source("rule: all ranks are on one node", Origin.RULE)
