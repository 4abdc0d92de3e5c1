"""Rank 0's host by PMI-1: the plain-text channel, inherited as PMI_FD, between each process and Hydra's proxy.

Facts: MPICH's sources of the PMI-1 wire protocol, and runs of MPICH 5.0 and Intel MPI 2021.18: an exchange leaves a
later MPI_Init intact unless PMI was finalized, and a process that ends without either a finalize or MPI makes Hydra
kill its neighbours.
"""

import atexit
import os
import select
import socket
import stat
import struct
import time

import attrs
from colossalai_env_mpi import ancestors, mpi_may_follow, mpi_runs

from colossalai_env import CannotLocate, DistSpec, Environ, Located, own_address

KEY = "colossalai_env"


@attrs.define
class Channel:
    """The channel to the proxy. Its descriptor stays blocking: libmpi shares it."""

    descriptor: int
    until: float

    def send(self, command: str, answer: str, **words: object) -> dict[str, str]:
        """Send one command and return the words of its answer; raise `CannotLocate`."""
        line = " ".join([f"cmd={command}", *(f"{name}={value}" for name, value in words.items())]) + "\n"
        try:
            os.write(self.descriptor, line.encode())
            told = self._line(command)
        except OSError as error:
            raise _cannot(f"the channel broke at {command}: {error.strerror}") from None
        pairs = (word.partition("=") for word in told.split())
        found = {name: value for name, _, value in pairs}
        if found.get("cmd") != answer or found.get("rc", "0") != "0":
            raise _cannot(f"{command} was answered by {told!r}")
        return found

    def _line(self, command: str) -> str:
        told = b""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        while not told.endswith(b"\n"):
            left = self.until - time.monotonic()
            if left <= 0 or not poll.poll(1000 * min(left, 0.5)):
                if left <= 0:
                    raise _cannot(f"{command} was not answered in time: some rank has not come this far")
                continue
            byte = os.read(self.descriptor, 1)  # never more than our own answer
            if not byte:
                raise _cannot(f"the proxy closed the channel at {command}")
            told += byte
        return told.decode("utf-8", "replace").strip()


def _cannot(problem: str) -> CannotLocate:
    return CannotLocate("hydra", "pmi", problem)


@attrs.define
class _Kept:
    """The one exchange of this process, and whether PMI was finalized after it."""

    pid: int
    located: Located
    channel: Channel
    finalized: bool = False


_kept: list[_Kept] = []


def ask(spec: DistSpec, environ: Environ, seconds: float) -> Located | None:
    """Let rank 0 publish its address, and all ranks read it; done once in a process."""
    if _kept and _kept[0].pid == os.getpid():
        return _kept[0].located
    descriptor = _descriptor(environ)
    if _kept or descriptor is None or mpi_runs():
        return None
    channel = Channel(descriptor, time.monotonic() + seconds)
    channel.send("init", "response_to_init", pmi_version=1, pmi_subversion=1)
    longest = int(channel.send("get_maxes", "maxes")["vallen_max"])
    name = channel.send("get_my_kvsname", "my_kvsname")["kvsname"]
    if spec.rank == 0:
        value = own_address()
        if len(value) >= longest:
            raise _cannot(f"{value!r} is longer than Hydra's {longest} characters")
        channel.send("put", "put_result", kvsname=name, key=KEY, value=value)
    channel.send("barrier_in", "barrier_out")
    host = channel.send("get", "get_result", kvsname=name, key=KEY)["value"]
    located = Located(host, "PMI-1 of Hydra", name)
    _kept.append(_Kept(os.getpid(), located, channel))
    if mpi_may_follow(spec.backend):
        atexit.register(_finalize)
    else:
        _finalize()
    return located


def _descriptor(environ: Environ) -> int | None:
    """Return the channel's descriptor, if it is a socket of one of our ancestors and no number that is left over."""
    text = environ.get("PMI_FD") or ""
    if not text.isdecimal() or environ.get("MPI_LOCALRANKID") is None:
        return None
    try:
        if not stat.S_ISSOCK(os.fstat(int(text)).st_mode):
            return None
        with socket.socket(fileno=os.dup(int(text))) as channel:
            credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except OSError:
        return None
    return int(text) if struct.unpack("3i", credentials)[0] in set(ancestors()) else None


def _finalize() -> None:
    """Say goodbye to the proxy, unless MPI has taken the channel over, which says it itself."""
    if not _kept or _kept[0].finalized or _kept[0].pid != os.getpid() or mpi_runs():
        return
    kept = _kept[0]
    kept.finalized = True
    kept.channel.until = time.monotonic() + 5
    try:
        kept.channel.send("finalize", "finalize_ack")
    except CannotLocate:
        return  # the proxy is gone, and its job with it
