"""Rank 0's host from the job's description, the file that _CONDOR_JOB_AD names.

Facts: runs of HTCondor 25.14: AllRemoteHosts lists the slots of all nodes in the order of their numbers, such as
``slot1@n1,slot2@n1,slot1@n3``, and the file is there before the job begins.
"""

import re

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name


def read(spec: DistSpec, environ: Environ) -> HostAnswer | str:
    """Return the host of node 0, with the job's id where the variables have none; the reason where no file is named."""
    path = environ.get("_CONDOR_JOB_AD")
    if path is None:
        return "_CONDOR_JOB_AD is not set"
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError as error:
        raise _cannot(spec, f"_CONDOR_JOB_AD is {path!r}: {error.strerror}") from None
    slots, job = (_attribute(name, text) for name in ("AllRemoteHosts", "GlobalJobId"))
    if slots is None:
        raise _cannot(spec, f"AllRemoteHosts is not in _CONDOR_JOB_AD, {path!r}")
    try:
        host = host_name(slots.partition(",")[0].rpartition("@")[2])
    except ValueError as expected:
        raise _cannot(spec, f"AllRemoteHosts begins with {slots[:80]!r}, expected a slot of {expected}") from None
    return HostAnswer(host, "AllRemoteHosts in the file of _CONDOR_JOB_AD", job)


def _attribute(name: str, text: str) -> str | None:
    found = re.search(rf'^\s*{name}\s*=\s*"([^"]+)"', text, re.MULTILINE)
    return found[1] if found else None


def _cannot(spec: DistSpec, problem: str) -> CannotLocate:
    return CannotLocate(spec.resolver, "job-ad", problem)
