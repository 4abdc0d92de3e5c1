"""Rank 0's host from the file that PALS_APINFO names, which describes the whole application.

Facts: HPE's header pals.h of 2023 (version 5 of the file) and Slurm's apinfo.h (version 1). The header says where the
processes and the nodes begin and how large each is; a process has its node's index as its third number, a node its
name after one.
"""

import struct

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name

HEADER = struct.Struct("@iNNNiNNiNNiNNi")
"""Its version; sizes, offsets and counts of what is described; those of processes and nodes are the last six."""

NAME = 64
"""Bytes of a node's name."""


def read(spec: DistSpec, environ: Environ) -> HostAnswer | str:
    """Return the host of rank 0; the reason where no file is named."""
    path = environ.get("PALS_APINFO")
    if path is None:
        return "PALS_APINFO is not set"
    try:
        with open(path, "rb") as file:
            host = _host_of_rank_0(file.read())
    except OSError as error:
        raise _cannot(spec, f"PALS_APINFO is {path!r}: {error.strerror}") from None
    except (struct.error, ValueError) as problem:
        raise _cannot(spec, f"PALS_APINFO, {path!r}, is no description of an application: {problem}") from None
    return HostAnswer(host, "the file of PALS_APINFO")


def _host_of_rank_0(content: bytes) -> str:
    pe_offset, processes, node_size, node_offset, nodes = HEADER.unpack_from(content)[-5:]
    _, _, node = struct.unpack_from("@iii", content, pe_offset)
    if processes < 1 or not 0 <= node < nodes:
        msg = f"rank 0 of {processes} is on node {node} of {nodes}"
        raise ValueError(msg)
    start = node_offset + node * node_size + struct.calcsize("@i")
    return host_name(content[start : start + NAME].partition(b"\0")[0].decode("ascii"))


def _cannot(spec: DistSpec, problem: str) -> CannotLocate:
    return CannotLocate(spec.resolver, "apinfo", problem)
