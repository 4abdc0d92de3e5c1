"""Real processes on this machine, started with the environment that a launcher would set on a cluster."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import IO

import attrs

from colossalai_env._combination import MASTER
from colossalai_env._registry import resolvers
from colossalai_env._resolution import examine
from colossalai_env.resolver import Claim, Environ, Resolver, ResolverProtocol

from .environments import environ_of
from .layouts import Layout

LOOPBACK = "127.0.0.1"


@attrs.frozen
class Ended:
    """A process of a launch that has ended."""

    rank: int
    code: int | None
    """Its exit code, negative for a signal; None where it had not ended in time and was killed."""
    out: str
    err: str


def launch_as(
    resolver: ResolverProtocol,
    layout: Layout,
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> tuple[Ended, ...]:
    """Start one process for each rank of a layout, as the resolver's launcher would, and wait until all have ended.

    All run on this machine: the layout's hosts are names in the variables, but for rank 0's, which is loopback in
    all that the processes see, so that they meet. Where the launcher does not say rank 0's host or port,
    MASTER_ADDR and MASTER_PORT are exported, as its users must. `argv` is the command; options that the launcher
    is read from are added to it. `env` is added to this process's variables; those of other launchers are left out.

    After `seconds`, or when this call is interrupted, the processes that are left are killed, with what they started.
    Raises ``ValueError`` for a layout with an agent's store, which no process here would serve, ``InvalidSpec`` for one
    that the launcher cannot do, and ``RuntimeError`` where other variables of this process would hide the launcher's.
    """
    if layout.agent_store:
        msg = "agent_store is True: no agent serves a store here, start the processes with torchrun itself"
        raise ValueError(msg)
    here = tuple(LOOPBACK if node == layout.nodes[0] else host for node, host in enumerate(layout.hosts))
    met = attrs.evolve(layout, hosts=here)
    around = {**_plain_variables(), **(env or {})}
    environs = [_environ(resolver, met, rank, around) for rank in range(met.world_size)]
    deadline = time.monotonic() + seconds
    with ExitStack() as stack:
        started = [_start(argv, environ, stack) for environ in environs]
        codes = [_code(process, deadline) for process, _, _ in started]
        texts = [(_text(out), _text(err)) for _, out, err in started]
        return tuple(Ended(rank, code, *text) for rank, (code, text) in enumerate(zip(codes, texts, strict=True)))


_Started = tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]


def _start(argv: Sequence[str], environ: Environ, stack: ExitStack) -> _Started:
    """Start one process in a session of its own, which ends with the stack."""
    out = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    err = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    process = subprocess.Popen(  # noqa: S603 - the caller's own command
        [*argv, *environ.argv],
        env=dict(environ.variables),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
    )
    stack.callback(_kill, process)
    return process, out, err


def _plain_variables() -> dict[str, str]:
    """Return this process's variables without any that the installed tables read."""
    tables = [item.resolver for item in resolvers(Environ()) if isinstance(item.resolver, Resolver)]
    read = {name for table in tables for name in table.variables()} | set(MASTER.values())
    return {name: text for name, text in Environ.snapshot().variables.items() if name not in read}


def _environ(resolver: ResolverProtocol, layout: Layout, rank: int, around: Mapping[str, str]) -> Environ:
    """Return what one process finds, and make sure that it is taken for who it is."""
    spec, emulated = layout.spec(rank), environ_of(resolver, layout, rank)
    answer = resolver.resolve(emulated)
    if not isinstance(answer, Claim):
        msg = f"{resolver.name} does not know its own launch of {spec}: {answer}"
        raise RuntimeError(msg)  # noqa: TRY004 - no wrong type but a wrong resolver
    needed = {
        MASTER[field]: str(getattr(spec, field))
        for field in MASTER
        if getattr(answer.spec, field) is None and (field == "host" or answer.spec.job_id is None)
    }
    environ = Environ({**around, **needed, **emulated.variables}, emulated.argv)
    others = [item.resolver for item in resolvers(environ) if item.resolver.name != resolver.name]
    found = examine(environ, {}, among=[resolver, *others])
    if found.deciding is None or found.deciding.resolver is not resolver:
        msg = (
            f"variables around this process hide {resolver.name}'s: found {found.outcome}; unset them, or use env={{}}"
        )
        raise RuntimeError(msg)
    return environ


def _code(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """Wait until a process ends or the time does; its pid stays its own until what it left behind is killed too."""
    late = False
    while not late and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        late = time.monotonic() >= deadline
        time.sleep(0.01)
    _kill(process)
    return None if late else process.returncode


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process's session, unless that is done."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
