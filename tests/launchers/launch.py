"""How each launcher is typed on the bed, and how it says which rank printed a line."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.warm import warm

from .testbed import HEAD, Bed, Ran, wait_until

MPI = Path(sys.prefix) / "mpi"
"""Where the MPIs of PyPI live, each in a place of its own since their programs bear the same names."""

TAGGED = r"^\[[^\]]*,(\d+)\]<stdout>: *PROBE (\S+)"

LABELS = {
    "srun": r"^ *(\d+): PROBE (\S+)",
    "openmpi4": TAGGED,
    "openmpi418": TAGGED,
    "openmpi5": TAGGED,
    "openmpi6": TAGGED,
    "mpich": r"^\[(\d+)\] PROBE (\S+)",
    "mpich43": r"^\[(\d+)\] PROBE (\S+)",
    "impi": r"^\[(\d+)\] PROBE (\S+)",
    "gforker": r"^(\d+)>PROBE (\S+)",
}
"""What a line of a rank looks like. Open MPI 4.1.4 is the installed one, and 6 that of another suite's root."""

PROGRAMS = {
    "openmpi4": "mpirun.openmpi",
    "openmpi418": str(MPI / "openmpi4/bin/mpirun"),
    "openmpi5": str(MPI / "openmpi/bin/mpirun"),
    "openmpi6": "mpirun.openmpi",
    "prterun": str(MPI / "openmpi/bin/prterun"),
    "mpich": str(MPI / "mpich/bin/mpiexec"),
    "mpich43": str(MPI / "mpich4/bin/mpiexec"),
    "impi": str(MPI / "impi-rt/bin/mpiexec.hydra"),
    "gforker": str(MPI / "mpich/bin/mpiexec.gforker"),
}


PREFIXES = {"openmpi418": MPI / "openmpi4", "prterun": MPI / "openmpi"}


def command(bed: Bed, kind: str, options: str, program: Sequence[str | Path], more: str = "") -> list[str]:
    """Return the words that start `program` by a launcher; its own label comes before each line.

    `more` are the options of a second program, the same one, in the same world.
    """
    ssh = str(bed.ssh())
    how = {
        "srun": ["srun", "--label"],
        "openmpi4": ["--allow-run-as-root", "--tag-output", "--mca", "plm_rsh_agent", ssh],
        "openmpi5": [
            "--allow-run-as-root", "--output", "tag", "--bind-to", "none", "--prtemca", "plm_ssh_agent", ssh,
        ],
        "mpich": ["-l", *([] if "-launcher" in options else ["-launcher", "rsh", "-launcher-exec", ssh])],
        "impi": ["-l", *([] if "-bootstrap" in options else ["-bootstrap", "rsh", "-bootstrap-exec", ssh])],
        "gforker": ["-l"],
    }  # fmt: skip
    like = {"openmpi418": "openmpi4", "openmpi6": "openmpi5", "prterun": "openmpi5", "mpich43": "mpich"}
    start = [*([PROGRAMS[kind]] if kind in PROGRAMS else []), *how[like.get(kind, kind)]]
    if kind in PREFIXES:  # its daemons look for themselves where they are installed
        start += ["--prefix", str(PREFIXES[kind])]
    words = [*start, *shlex.split(options), *map(str, program)]
    return [*words, ":", *shlex.split(more), *map(str, program)] if more else words


def within(bed: Bed, outer: str, inner: Sequence[str], folder: Path) -> Ran:
    """Run a command as the body of ``sbatch`` or ``salloc`` with these options, and return what it printed."""
    kind, _, options = outer.partition(" ")
    if kind == "salloc":
        return bed.run(HEAD, ["salloc", *shlex.split(options), *inner])
    script, out = folder / "job.sh", folder / "job.out"
    script.write_text(f"#!/bin/sh\n{shlex.join(inner)}\necho $? > {folder}/job.code.$SLURM_JOB_ID\n")
    ran = bed.run(HEAD, ["sbatch", "--parsable", "-o", str(out), *shlex.split(options), str(script)])
    if ran.code:
        return ran
    queued = ["squeue", "--noheader", "--job", ran.out.strip()]
    wait_until(  # sbatch --wait looks each 10 s
        lambda: any(folder.glob("job.code.*")) and not bed.run(HEAD, queued).out.strip(),
        f"job {ran.out.strip()} ends",
        60,
    )
    codes = [int(path.read_text()) for path in folder.glob("job.code.*")]
    return Ran(max(codes, default=1), out.read_text() if out.exists() else "", ran.err)


def labelled(kind: str, out: str) -> dict[int, str]:
    """Return which rank printed which file's name."""
    return {int(rank): name for rank, name in re.findall(LABELS[kind], out, re.MULTILINE)}


def version(bed: Bed, kind: str) -> str:
    """Return what the launcher says of itself."""
    words = {
        "srun": ["srun", "--version"],
        "gforker": [PROGRAMS["mpich"], "--version"],
        "torchrun": [sys.executable, "-c", "from importlib.metadata import version; print('torch', version('torch'))"],
    }.get(kind) or [PROGRAMS[kind], "--version"]
    lines = [line.strip() for line in bed.run(HEAD, words).out.splitlines() if line.strip()]
    if kind in {"mpich", "mpich43", "gforker"}:
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
        (host, bed.start(host, [warm(), "-m", module, *shlex.split(words), *program], env)) for host, words in pairs
    ]
    ended: list[tuple[str, Ran]] = []
    for host, process in started:
        out, err = process.communicate()
        ended.append((host, Ran(process.returncode, out, err)))
    return ended
