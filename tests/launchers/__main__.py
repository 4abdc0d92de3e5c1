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

import attrs

from colossalai_env.testing.captures import RECORDED

from .clusters import CLUSTERS, RELEASES, Cluster
from .launch import version
from .record import Launch, lacking, record
from .roots import unpack
from .scenarios import SCENARIOS
from .slurm import Slurm
from .test_launchers import agree
from .testbed import HEAD, Bed


@contextmanager
def terminable() -> Generator[None]:
    """Let SIGTERM end us as an exception does, so that what is up is taken down."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def up(cluster: Cluster) -> Generator[Bed]:
    """Bring hosts and Slurm up, and take them down at the end, also when terminated."""
    with terminable(), Bed(cluster.release.root) as bed:
        Slurm(bed, cluster).start()
        yield bed


def run(cluster: Cluster, host: str, words: list[str]) -> int:
    """Run a command on a host, with this terminal."""
    with up(cluster) as bed:
        env = bed.environment({"BED_SSH": str(bed.ssh()), "TERM": os.environ.get("TERM", "dumb")})
        return subprocess.run(bed.command(host, words, 24 * 3600), env=env, check=False).returncode


def capture(cluster: Cluster, folder: Path, only: str) -> int:
    """Run all scenarios and keep each launch's environment and truth as a file of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    with up(cluster) as bed:
        versions: dict[str, str] = {}
        for scenario in SCENARIOS:
            if only not in scenario.name or lacking(bed, scenario):
                continue
            said = versions.setdefault(scenario.kind, version(bed, scenario.kind))
            for launch in record(bed, scenario):
                agree(launch, cluster)
                name = launch.name.replace("slurm", cluster.prefix, 1)
                text = json.dumps(_kept(attrs.evolve(launch, name=name), said), indent=0, sort_keys=True)
                for path, shown in ((bed.folder, "BED"), (Path(sys.prefix), "BED/venv"), (Path.cwd(), "BED")):
                    text = text.replace(str(path), shown)
                (folder / f"{name}.json").write_text(text + "\n")
                sys.stdout.write(f"{name}: {len(launch.tasks)} tasks\n")
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
    parser.add_argument(
        "--cluster", choices=CLUSTERS, default="installed", help="which Slurm, and how it is configured"
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    shell = verbs.add_parser("shell", help="a shell on a host; type srun there, or mpirun with $BED_SSH as its agent")
    shell.add_argument("host", nargs="?", default=HEAD)
    running = verbs.add_parser("run", help="one command on a host")
    running.add_argument("host")
    running.add_argument("words", nargs=argparse.REMAINDER)
    capturing = verbs.add_parser("capture", help="record the environments of all launches")
    capturing.add_argument("--only", default="", help="those alone whose names hold this")
    capturing.add_argument("folder", nargs="?", type=Path, default=RECORDED)
    rooting = verbs.add_parser("root", help="unpack a release of Slurm from another Debian suite")
    rooting.add_argument("release", choices=RELEASES)
    asked = parser.parse_args()
    if asked.verb == "root":
        return unpack(RELEASES[asked.release])
    cluster = CLUSTERS[asked.cluster]
    if asked.verb == "capture":
        return capture(cluster, asked.folder, asked.only)
    return run(cluster, asked.host, asked.words if asked.verb == "run" else shlex.split("sh -i"))


if __name__ == "__main__":
    sys.exit(main())
