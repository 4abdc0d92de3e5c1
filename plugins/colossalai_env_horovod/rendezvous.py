"""Rank 0's host by horovodrun's rendezvous, a store of keys that speaks HTTP: rank 0 puts its address there.

Facts: the source of Horovod 0.28.1 (horovod/runner/http/http_server.py), and runs of its server: PUT and GET of
/SCOPE/KEY, 404 where there is none yet. It forgets all keys when an elastic job is started anew.
"""

import time
from http.client import HTTPConnection, HTTPException

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name, own_address

KEY = "/colossalai_env/rank0"

PAUSE = 0.05
"""Seconds between two looks at a key that is not there yet."""


def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Leave rank 0's address with the server, or wait for it; the reason where no server is named."""
    address, port = (environ.get(f"HOROVOD_GLOO_RENDEZVOUS_{name}") for name in ("ADDR", "PORT"))
    if address is None or port is None or not port.isdecimal():
        return "HOROVOD_GLOO_RENDEZVOUS_ADDR and HOROVOD_GLOO_RENDEZVOUS_PORT name no server"
    until = time.monotonic() + seconds
    try:
        if spec.rank == 0:
            host = own_address()
            _answered(spec, address, int(port), until, "PUT", host.encode())
        else:
            host = host_name(_awaited(spec, address, int(port), until))
    except (OSError, HTTPException) as error:
        raise _cannot(spec, f"{address}:{port} does not answer: {error}") from None
    except ValueError as expected:
        raise _cannot(spec, f"{address}:{port} holds another's value, expected {expected}") from None
    return HostAnswer(host, "horovodrun's rendezvous")


def _awaited(spec: DistSpec, address: str, port: int, until: float) -> str:
    while (value := _answered(spec, address, port, until, "GET")) is None:
        if time.monotonic() > until:
            raise _cannot(spec, f"rank 0 did not leave its address at {address}:{port} in time")
        time.sleep(PAUSE)
    return value.decode("ascii", "replace")


def _answered(
    spec: DistSpec, address: str, port: int, until: float, method: str, body: bytes | None = None
) -> bytes | None:
    """Make one request; None where the key is not there."""
    connection = HTTPConnection(address, port, timeout=max(until - time.monotonic(), 0.1))
    try:
        connection.request(method, KEY, body)
        answer = connection.getresponse()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _cannot(spec, f"{address}:{port} answered {answer.status} {answer.reason}")
        return answer.read()
    finally:
        connection.close()


def _cannot(spec: DistSpec, problem: str) -> CannotLocate:
    return CannotLocate(spec.resolver, "rendezvous", problem)
