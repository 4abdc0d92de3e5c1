"""A client of PMIx that learns where rank 0 is: in a process whose MPI has PMIx already, or as a program of its own.

Facts: pmix_common.h of PMIx 3.2 to 7.0, where pmix_proc_t has 260 bytes, an info's key 512, and a value's data
begin at byte 8; runs of Open MPI 4.1.4, 4.1.8, 5.0.11 and 6.0.0rc2. The name of rank 0's host needs no exchange. It
is cut at its first dot by 4.1, and is the host's own word for itself in 5 and 6, which know its other names and its
addresses too. What rank 0 puts is had by all after a fence that collects it. Without that fence daemons of 4.1.8
died of the question in 7 of 18 jobs of 6 ranks on 3 hosts, and those of 5.0.11 never answer once rank 0 has ended
its PMIx.
"""

import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any


class Type(IntEnum):
    """PMIX_BOOL and its kin."""

    BOOL = 1
    STRING = 3
    UINT16 = 13
    UINT32 = 14


NUMBERS = {"pmix.job.size": True, "pmix.lrank": False, "pmix.local.size": True}
"""Keys of numbers, with whether each belongs to the whole namespace or to this rank."""

GLOBAL = 3
"""PMIX_GLOBAL: all ranks may read what is put, on any host."""

ALL_RANKS = 2**32 - 2
"""PMIX_RANK_WILDCARD: what belongs to the whole namespace."""

NOT_FOUND = -46
"""PMIX_ERR_NOT_FOUND: the answer of 4.1 to what it does not know."""

PREFIXES = ("", "OPAL_MCA_PMIX3X_")
"""Before the names of PMIx's functions: Open MPI 4.0 that was built with a PMIx of its own has the second."""

KEY = b"colossalai_env.address"

PATIENCE = 20
"""Seconds that the daemon on this host has to name rank 0's host."""


class Proc(ctypes.Structure):
    """pmix_proc_t: a namespace and a rank."""

    _fields_ = (("nspace", ctypes.c_char * 256), ("rank", ctypes.c_uint32))


class Data(ctypes.Union):
    """What a value holds; the longest of its alternatives has 24 bytes."""

    _fields_ = (
        ("string", ctypes.c_char_p),
        ("flag", ctypes.c_bool),
        ("short", ctypes.c_uint16),
        ("number", ctypes.c_uint32),
        ("longest", ctypes.c_char * 24),
    )


class Value(ctypes.Structure):
    """pmix_value_t, as far as strings, flags and numbers need it."""

    _fields_ = (("type", ctypes.c_uint16), ("data", Data))


class Info(ctypes.Structure):
    """pmix_info_t: one directive."""

    _fields_ = (("key", ctypes.c_char * 512), ("flags", ctypes.c_uint32), ("value", Value))


class PmixError(Exception):
    """A function of PMIx failed."""

    def __init__(self, call: str, status: int) -> None:
        super().__init__(f"{call} failed with PMIx status {status}")
        self.status = status


class Client:
    """The functions of a PMIx library, each with the check of its status."""

    def __init__(self, library: Any) -> None:  # noqa: ANN401 - ctypes' library
        self.library = library
        self.prefix = next((prefix for prefix in PREFIXES if hasattr(library, f"{prefix}PMIx_Get")), "")

    def call(self, name: str, *words: Any) -> None:  # noqa: ANN401 - a function of C
        """Call a function; raise `PmixError` where its status is not 0."""
        status = getattr(self.library, f"{self.prefix}{name}")(*words)
        if status:
            raise PmixError(name, status)

    def get(self, namespace: bytes, rank: int, key: bytes) -> str:
        """Return what belongs to a process or, with `ALL_RANKS`, to the namespace, if it is a text or a number."""
        proc, value = Proc(namespace, rank), ctypes.POINTER(Value)()
        self.call("PMIx_Get", ctypes.byref(proc), key, None, ctypes.c_size_t(0), ctypes.byref(value))
        data = value.contents.data
        match value.contents.type:
            case Type.STRING:
                return (data.string or b"").decode()
            case Type.UINT16:
                return str(data.short)
            case Type.UINT32:
                return str(data.number)
            case _:
                return ""

    def numbers(self, me: Proc) -> dict[str, str]:
        """Return how many processes there are, and this one's place on its host."""
        return {
            key: self.get(me.nspace, ALL_RANKS if common else me.rank, key.encode()) for key, common in NUMBERS.items()
        }

    def exchanged(self, namespace: bytes, own: str) -> str:
        """Let rank 0 put its address, `own`, and return it on all ranks, when all have come."""
        if own:
            value = Value(Type.STRING, Data(own.encode()))
            self.call("PMIx_Put", ctypes.c_uint8(GLOBAL), KEY, ctypes.byref(value))
            self.call("PMIx_Commit")
        collect = Info(b"pmix.collect", 0, Value(Type.BOOL, Data(flag=True)))
        self.call("PMIx_Fence", None, ctypes.c_size_t(0), ctypes.byref(collect), ctypes.c_size_t(1))
        return self.get(namespace, 0, KEY)

    def names(self, namespace: bytes) -> list[str]:
        """Return the other names of rank 0's host and then its addresses, where mpirun knows them."""
        try:
            found = self.get(namespace, 0, b"pmix.alias").split(",")
        except PmixError as error:
            if error.status != NOT_FOUND:
                raise
            return []
        return sorted(filter(None, found), key=is_address)


def host_of_rank_zero(client: Client, namespace: bytes, tell: Callable[[str, str], object]) -> None:
    """Pass on the name of rank 0's host, and then what leads there, or that this is the host itself.

    From another host, a name that leads back to the asking one, as loopback does, counts only where none leads away.
    """
    name = client.get(namespace, 0, b"pmix.hname")
    tell("name", name)
    if "0" in client.get(namespace, ALL_RANKS, b"pmix.lpeers").split(","):
        tell("host" if addresses(name) else "home", name)
        return
    led = {host: addresses(host) for host in (name, *client.names(namespace))}
    away = [host for host, found in led.items() if found and not any(map(is_here, found))]
    for host in [*away, *(host for host, found in led.items() if found)][:1]:
        tell("host", host)


def addresses(host: str) -> list[str]:
    """Return the addresses of a name, or nothing where it has none here."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def is_address(text: str) -> bool:
    """Return whether a text is an address and no name."""
    try:
        socket.getaddrinfo(text.encode(), None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def is_here(address: str) -> bool:
    """Return whether an address is this host's own, such as loopback: no other host is reached by it."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as own:
            own.bind((address, 0))
    except OSError:
        return False
    return True


def main(path: str, question: str = "") -> None:
    """Ask for the numbers, if that is the question, and for rank 0's host; print what is told, two words a line."""
    signal.alarm(PATIENCE)

    def tell(kind: str, text: str) -> None:
        signal.alarm(0)
        sys.stdout.write(f"\n{kind} {text}\n")
        sys.stdout.flush()

    # The components that Open MPI 4's own PMIx loads look for its symbols among the global ones.
    client, me = Client(ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)), Proc()
    client.call("PMIx_Init", ctypes.byref(me), None, ctypes.c_size_t(0))
    for key, text in client.numbers(me).items() if question == "numbers" else ():
        tell(key, text)
    host_of_rank_zero(client, me.nspace, tell)
    client.call("PMIx_Finalize", None, ctypes.c_size_t(0))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])  # noqa: TID251 - a program of its own
    except (PmixError, OSError, AttributeError) as failed:
        sys.exit(str(failed))
