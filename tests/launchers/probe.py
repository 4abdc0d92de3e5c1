"""Runs on every rank: writes down who `resolve()` says it is, and what it was started with."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

LAUNCHERS = (
    "RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "SLURM", "OMPI_", "PMI", "PRTE_",
    "MPI_", "HYDRA_", "I_MPI_", "MPIR_", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
)  # fmt: skip
"""Beginnings of the names of variables that launchers set."""

SECRET = ("precondition_transports", "TOKEN", "KEY", "SECRET", "PASSWORD")


def resolved() -> dict[str, Any]:
    """Return the spec, or the error, as plain values."""
    import colossalai_env

    try:
        spec = colossalai_env.resolve()
    except colossalai_env.ColossalaiEnvError as error:
        return {"error": type(error).__name__, "text": str(error)}
    names = ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "host", "port", "job_id")
    told = {"resolver": spec.resolver, **{name: getattr(spec, name) for name in names}}
    return {**told, **open_host(spec)} if spec.resolver == "slurm" and spec.host is None else told


def open_host(spec: Any) -> dict[str, Any]:
    """Return where rank 0's host would be told."""
    from colossalai_env_slurm import SLURM

    from colossalai_env.resolver import Environ

    place = SLURM.directory and SLURM.directory(spec, Environ.snapshot())
    return {"directory": place.host, "serves": place.serves} if place else {}


def layout() -> str:
    """Return Slurm's own word on the step; it has none on a heterogeneous job's later components."""
    step = f"{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
    return subprocess.run(["sattach", "--layout", step], check=False, capture_output=True, text=True, timeout=20).stdout


def main(folder: Path, *, ask_layout: bool) -> None:
    """Write one file for this task, and print its name, which the launcher labels with the rank."""
    variables = {
        name: "<redacted>" if any(word in name for word in SECRET) else value
        for name, value in sorted(os.environ.items())
        if name.startswith(LAUNCHERS)
    }
    told = {
        "hostname": socket.gethostname(),
        "argv": sys.argv[1:],
        "rank_env": variables,
        "resolved": resolved(),
        "layout": layout() if ask_layout and os.environ.get("SLURM_LOCALID") == "0" else "",
    }
    path = folder / f"{socket.gethostname()}-{os.getpid()}.json"
    path.write_text(json.dumps(told))
    sys.stdout.write(f"PROBE {path.name}\n")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    main(Path(words[0]), ask_layout="--layout" in sys.argv)
    if "--fail-once" in sys.argv and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        sys.exit(3)
