"""The child of pmix.py: asks mpirun's daemon for the host of rank 0 and prints it; ctypes and nothing else."""

import ctypes
import sys

STRING = 3
"""PMIX_STRING, the type of a host's name."""


class Proc(ctypes.Structure):
    """pmix_proc_t: a namespace and a rank."""

    _fields_ = (("nspace", ctypes.c_char * 256), ("rank", ctypes.c_uint32))


class Value(ctypes.Structure):
    """pmix_value_t, as far as strings need it."""

    _fields_ = (("type", ctypes.c_uint16), ("string", ctypes.c_char_p))


def check(call: str, code: int) -> None:
    """End with a sentence where a call failed."""
    if code:
        raise SystemExit(f"{call} failed with PMIx status {code}")


def host_of_rank_zero(library: str) -> str:
    """Return ``pmix.hname`` of rank 0 in this process's namespace."""
    pmix = ctypes.CDLL(library)
    me, value = Proc(), ctypes.POINTER(Value)()
    check("PMIx_Init", pmix.PMIx_Init(ctypes.byref(me), None, ctypes.c_size_t(0)))
    zero = Proc(me.nspace, 0)
    code = pmix.PMIx_Get(ctypes.byref(zero), b"pmix.hname", None, ctypes.c_size_t(0), ctypes.byref(value))
    check("PMIx_Get of pmix.hname", code)
    if value.contents.type != STRING:
        raise SystemExit(f"pmix.hname has type {value.contents.type}, expected {STRING}")
    host = (value.contents.string or b"").decode()
    pmix.PMIx_Finalize(None, ctypes.c_size_t(0))
    return host


if __name__ == "__main__":
    sys.stdout.write(f"\nhost {host_of_rank_zero(sys.argv[1])}\n")  # noqa: TID251 - a program of its own
