"""Runs on every rank: writes down what it was started with. It needs the standard library alone, and starts at once."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path


def layout() -> str:
    """Return Slurm's own word on the step; it has none on a heterogeneous job's later components."""
    step = f"{os.environ['SLURM_JOB_ID']}.{os.environ['SLURM_STEP_ID']}"
    return subprocess.run(["sattach", "--layout", step], check=False, capture_output=True, text=True, timeout=90).stdout


def main(folder: Path, *, ask_layout: bool) -> None:
    """Write one file for this task, and print its name, which the launcher labels with the rank."""
    told = {
        "hostname": socket.gethostname(),
        "argv": sys.argv[1:],
        "environment": dict(os.environ),
        "layout": layout() if ask_layout and os.environ.get("SLURM_PROCID") == "0" else "",
    }
    path = folder / f"{socket.gethostname()}-{os.getpid()}.json"
    path.write_text(json.dumps(told))
    sys.stdout.write(f"PROBE {path.name}\n")


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    main(Path(words[0]), ask_layout="--layout" in sys.argv)
    if "--fail-once" in sys.argv and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
        sys.exit(3)
