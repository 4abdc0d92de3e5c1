"""What mpirun told an earlier program of this task: kept in the directory of its daemon, which mpirun removes.

Facts: runs of Open MPI 4.1.4, 4.1.8, 5.0.11 and 6.0.0rc2. PMIX_SERVER_TMPDIR is a directory of mpirun's daemon on
this host, which no other user may write to, and goes with the daemon and all that lies in it; OMPI_FILE_LOCATION
goes with 4.1 as soon as one task of this host has ended. 4.1 lets PMIx begin once in a task, and MPI_Init of 5.0.11
hangs in the second program of one. A namespace's rank 0 has one host.
"""

import logging
import os
import stat
from pathlib import Path

from colossalai_env.resolver import Environ, HostAnswer, host_name

log = logging.getLogger("colossalai_env")

TOLD_BEFORE = ", told to an earlier program of this task"


def keep(environ: Environ, found: HostAnswer) -> None:
    """Leave what was told for the next program of this task, if the daemon's directory is there and ours alone."""
    path = _place(environ)
    if path is None or found.source.endswith(TOLD_BEFORE):
        return
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        beside.write_text(f"{found.host}\n{found.source}\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:  # a full disk is no reason to end the first program
        log.debug("could not leave rank 0's host for a later program of this task: %s", error)


def recall(environ: Environ) -> HostAnswer | None:
    """Return what an earlier program of this task was told."""
    path = _place(environ)
    if path is None or not path.exists():
        return None
    host, _, source = path.read_text(encoding="utf-8").strip().partition("\n")
    return HostAnswer(host_name(host), f"{source}{TOLD_BEFORE}")


def _place(environ: Environ) -> Path | None:
    folder = environ.get("PMIX_SERVER_TMPDIR")
    task = [environ.get(name) for name in ("PMIX_NAMESPACE", "PMIX_RANK")]
    if not folder or None in task or any("/" in str(word) for word in task):
        return None
    try:
        found = os.stat(folder, follow_symlinks=False)
    except OSError:  # a container does not see it
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return Path(folder, f"colossalai-env.{'.'.join(map(str, task))}") if ours else None
