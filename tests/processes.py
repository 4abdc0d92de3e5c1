"""Real processes for tests: start them, wait for them within a bound, leave none behind."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from colossalai_env._registry import resolvers
from colossalai_env._unknown_launchers import MARKS
from colossalai_env.resolver import Environ, Resolver
from tests.pace import pace

if TYPE_CHECKING:
    from typing_extensions import Self

TELL = """
def tell(*words):
    print("TOLD " + " ".join(map(str, words)) + "\\n", end="", flush=True)
"""
"""The beginning of a program that tells what it found: a line is written at once, and no other's comes into it."""

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

TABLES = [item.resolver for item in resolvers(Environ()) if isinstance(item.resolver, Resolver)]

LAUNCHERS = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_",
    "GROUP_",
    "MASTER_",
    "TORCHELASTIC_",
    "SLURM_",
    "OMPI_",
    "PMI",
    "COLOSSALAI_",
    *(name for table in TABLES for name in table.variables() if not name.startswith("-")),
    *(mark for row in MARKS for mark in row.marks),
)


def clean_environment(extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return this process's variables without any launcher's, and one thread a process; None in `extra` unsets."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    found = {**kept, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(extra or {})}
    return {name: value for name, value in found.items() if value is not None}


WORKER, WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")), 32
"""Which of the processes that run tests at once this one is, and how many share the ports."""


def free_port() -> int:
    """Return a port that was free a moment ago, and that no other process that runs tests is given."""
    with ExitStack() as held:
        while True:
            probe = held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port // 2 % WORKERS == WORKER % WORKERS:  # the kernel likes odd ones better
                return port


def wait_until_listening(port: int) -> None:
    """Wait until a connection to a port on loopback is taken; raise `TimeoutError` after a minute."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nobody listens on port {port}")


@attrs.frozen
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str

    def lines(self, prefix: str) -> list[str]:
        """Return what follows `prefix` on the lines that begin with it."""
        return [line.removeprefix(prefix) for line in self.out.splitlines() if line.startswith(prefix)]


@attrs.define
class Processes:
    """Processes that are ended, with all that they started, when the block is left."""

    started: list[subprocess.Popen[str]] = attrs.field(factory=list[subprocess.Popen[str]])

    def __enter__(self) -> "Self":
        return self

    def start(
        self, command: Sequence[str | Path], env: Mapping[str, str | None] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in a session of its own."""
        process = subprocess.Popen(
            [str(word) for word in command],
            env=clean_environment(env),
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def wait(self, seconds: float = 90) -> list[Ended]:
        """Wait for all, one after the other, and return what they said; the seconds are longer on a slow machine."""
        ended: list[Ended] = []
        for process in self.started:
            out, err = process.communicate(timeout=seconds * pace())
            ended.append(Ended(process.returncode, out, err))
        return ended

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def run(command: Sequence[str | Path], env: Mapping[str, str | None] | None = None, seconds: float = 90) -> Ended:
    """Run one command to its end."""
    with Processes() as processes:
        processes.start(command, env)
        return processes.wait(seconds)[0]
