"""The bed as a tool: ``python -m tests.launchers shell [HOST]``, ``run HOST COMMAND...`` and ``capture [FOLDER]``."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from colossalai_env.testing.captures import RECORDED

from .bed import HEAD, Bed
from .launch import version
from .record import Launch, record
from .scenarios import SCENARIOS
from .slurm import Slurm
from .test_launchers import agree


@contextmanager
def terminable() -> Generator[None]:
    """Let SIGTERM end us as an exception does, so that what is up is taken down."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def up() -> Generator[Bed]:
    """Bring hosts and Slurm up, and take them down at the end, also when terminated."""
    with terminable(), Bed() as bed:
        Slurm(bed).start()
        yield bed


def run(host: str, words: list[str]) -> int:
    """Run a command on a host, with this terminal."""
    with up() as bed:
        env = bed.environment({"BED_SSH": str(bed.ssh()), "TERM": os.environ.get("TERM", "dumb")})
        return subprocess.run(bed.command(host, words, 24 * 3600), env=env, check=False).returncode


def capture(folder: Path) -> int:
    """Run all scenarios and keep each launch's environment and truth as a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with up() as bed:
        versions: dict[str, str] = {}
        for scenario in SCENARIOS:
            said = versions.setdefault(scenario.kind, version(bed, scenario.kind))
            for launch in record(bed, scenario):
                agree(launch)
                text = json.dumps(_kept(launch, said), indent=0, sort_keys=True)
                for path, name in ((bed.folder, "BED"), (Path(sys.prefix), "BED/venv"), (Path.cwd(), "BED")):
                    text = text.replace(str(path), name)
                (folder / f"{launch.name}.json").write_text(text + "\n")
                sys.stdout.write(f"{launch.name}: {len(launch.tasks)} tasks\n")
    return 0


def _kept(launch: Launch, said: str) -> dict[str, object]:
    tasks = [
        {"hostname": task.hostname, "argv": task.argv, "rank_env": task.rank_env, "truth": task.truth}
        for task in launch.tasks
    ]
    names = {"scenario": launch.name, "launcher": launch.scenario.kind, "launcher_version": said}
    return {**names, "command": launch.command, "tasks": tasks}


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.launchers", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    shell = verbs.add_parser("shell", help="a shell on a host; type srun there, or mpirun with $BED_SSH as its agent")
    shell.add_argument("host", nargs="?", default=HEAD)
    running = verbs.add_parser("run", help="one command on a host")
    running.add_argument("host")
    running.add_argument("words", nargs=argparse.REMAINDER)
    capturing = verbs.add_parser("capture", help="record the environments of all launches")
    capturing.add_argument("folder", nargs="?", type=Path, default=RECORDED)
    asked = parser.parse_args()
    if asked.verb == "capture":
        return capture(asked.folder)
    return run(asked.host, asked.words if asked.verb == "run" else shlex.split("sh -i"))


if __name__ == "__main__":
    sys.exit(main())
