"""Rank 0's host from a file that lists a job's hosts: rank 0 makes sure that it is there."""

import socket

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name


def listed_host(way: str, variable: str, line: int, spec: DistSpec, environ: Environ) -> HostAnswer | str:
    """Return the host on this line of the file that `variable` names, or the last where there are fewer.

    Return the reason where the variable is not set. Raises `CannotLocate` on rank 0 where that is on another host: the
    others will look for it there.
    """
    path = environ.get(variable)
    if path is None:
        return f"{variable} is not set"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            hosts = [name for name in (text.strip() for text in file) if name]
        host = host_name(hosts[min(line, len(hosts) - 1)] if hosts else "")
    except OSError as error:
        raise CannotLocate(spec.resolver, way, f"{variable} is {path!r}: {error.strerror}") from None
    except ValueError as expected:
        raise CannotLocate(spec.resolver, way, f"{variable}, {path!r}: expected {expected} on each line") from None
    if spec.rank == 0 and not _is_here(host):
        problem = f"{variable} begins with {host!r}, and rank 0 is on {socket.gethostname()!r}"
        raise CannotLocate(spec.resolver, way, problem)
    return HostAnswer(host, f"the file of {variable}")


def _is_here(host: str) -> bool:
    """Return whether a name is this host's: its own, or one that leads to an address of it."""
    if host.partition(".")[0] == socket.gethostname().partition(".")[0]:
        return True
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as asking:
            try:
                asking.bind(address)
            except OSError:
                continue
            return True
    return False
