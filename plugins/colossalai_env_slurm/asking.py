"""Rank 0's host by Slurm's own commands, where the step's variables do not lead to it.

Facts: the manuals of sattach and scontrol, and runs of Slurm 22.05, 24.11 and 26.05.
"""

import re
import socket

from colossalai_env.errors import CannotLocate
from colossalai_env.resolver import DistSpec, Environ, HostAnswer

from . import JOB, STEP
from .hostlist import HostList

SECONDS = 5.0
"""How long one of Slurm's commands may take."""


def ask_layout(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | None:
    """Ask for the step's layout, or read the host file, where the variables leave task 0's node open."""
    arbitrary = (environ.get("SLURM_DISTRIBUTION") or "").partition(",")[0] == "arbitrary"
    if spec.host is not None or not (arbitrary or "SLURM_STEP_NODELIST" in environ):
        return None
    return _told(environ, seconds) or (_first_line(environ, seconds) if arbitrary else None)


def _told(environ: Environ, seconds: float) -> HostAnswer | None:
    """Ask Slurm for the node of task 0; None where its command is not installed."""
    job, number = (next((value for _, value in environ.found(names)), None) for names in (JOB, (STEP,)))
    step = f"{job}.{number}"
    told = _run("layout", ["sattach", "--layout", step], seconds) if job and number else None
    if told is None:
        return None
    for name, ranks in re.findall(r"Node \d+ \(([^)]+)\), \d+ task\(s\): ([\d ]+)", told):
        if "0" in ranks.split():
            return HostAnswer(_address(name, seconds), f"sattach --layout {step}")
    raise CannotLocate("slurm", "layout", f"sattach --layout {step} names no node of task 0: {told[:200]!r}")


def _first_line(environ: Environ, seconds: float) -> HostAnswer | None:
    path = environ.get("SLURM_HOSTFILE")
    if path is None:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            lines = (line.partition("#")[0].strip() for line in file)
            first = next((line for line in lines if line), "")
        name = HostList.parse(first.partition("*")[0])[0]  # NAME*COUNT
        return HostAnswer(_address(name, seconds), f"the first line of SLURM_HOSTFILE, {path}")
    except OSError as error:
        problem = error.strerror or str(error)
    except ValueError as expected:
        problem = f"expected a host on its first line: {expected}"
    raise CannotLocate("slurm", "layout", f"SLURM_HOSTFILE is {path!r}: {problem}")


def ask_node(spec: DistSpec, environ: Environ, seconds: float) -> HostAnswer | None:
    """Ask for the address of a node whose name resolves nowhere: NodeName and NodeAddr may differ."""
    if spec.host is None or environ.get("SLURM_STEP_ID") is None:
        return None
    address = _node_address(spec.host, seconds)
    return None if address is None else HostAnswer(address, f"scontrol show node {spec.host}: NodeAddr")


def _address(name: str, seconds: float) -> str:
    """Return a node's name where it resolves, or else its address as Slurm knows it."""
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return _node_address(name, seconds) or name
    return name


def _node_address(name: str, seconds: float) -> str | None:
    told = _run("node", ["scontrol", "show", "node", "-o", name], seconds)
    found = re.search(r"\bNodeAddr=(\S+)", told or "")
    return found.group(1) if found else None


def _run(way: str, command: list[str], seconds: float) -> str | None:
    """Run a command of Slurm's; None where it is not installed, as in many containers."""
    import subprocess

    try:
        ran = subprocess.run(  # noqa: S603 - Slurm's own commands
            command, capture_output=True, text=True, timeout=min(seconds, SECONDS), check=False
        )
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        raise CannotLocate("slurm", way, f"{' '.join(command)} did not answer within {SECONDS:.0f} s") from None
    if ran.returncode:
        raise CannotLocate("slurm", way, f"{' '.join(command)} failed: {(ran.stderr or ran.stdout).strip()[:200]}")
    return ran.stdout
