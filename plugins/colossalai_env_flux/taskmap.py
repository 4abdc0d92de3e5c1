"""Rank 0's host by ``flux job taskmap``, which names the tasks of each host of a job.

Facts: the source of flux-core 0.88 (src/cmd/job/taskmap.c), and runs of it with ``-o pmi=off``: 0.11 s.
"""

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer, host_name

SECONDS = 10.0
"""How long the command may take."""


def ask(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | str:
    """Return the host that has task 0, or the reason why Flux cannot be asked."""
    import subprocess

    job = environ.get("FLUX_JOB_ID")
    if job is None:
        return "FLUX_JOB_ID is not set"
    command = ["flux", "job", "taskmap", "--to=hosts", job]
    try:
        ran = subprocess.run(  # noqa: S603 - Flux's own command
            command, capture_output=True, text=True, errors="replace", timeout=min(seconds, SECONDS), check=False
        )
    except FileNotFoundError:
        return "the command flux is not installed here"
    except subprocess.TimeoutExpired as late:
        raise _cannot(spec, f"flux job taskmap did not answer within {late.timeout:.0f} s") from None
    if ran.returncode:
        raise _cannot(spec, f"flux job taskmap failed: {(ran.stderr or ran.stdout).strip()[:200]}")
    for line in ran.stdout.splitlines():
        host, colon, tasks = line.rpartition(":")
        if colon and _first(tasks) == "0":  # a host's tasks are listed from the lowest
            return _located(spec, host.strip())
    raise _cannot(spec, f"flux job taskmap names no host of task 0: {ran.stdout[:200]!r}")


def _first(tasks: str) -> str:
    """Return the lowest of an id set such as ``0-3,8``."""
    return tasks.strip().strip("[]").partition(",")[0].partition("-")[0]


def _located(spec: DistSpec, host: str) -> HostAnswer:
    try:
        return HostAnswer(host_name(host), "flux job taskmap --to=hosts")
    except ValueError as expected:
        raise _cannot(spec, f"flux job taskmap said {host!r}, expected {expected}") from None


def _cannot(spec: DistSpec, problem: str) -> CannotLocate:
    return CannotLocate(spec.resolver, "taskmap", problem)
