"""How long a cold script takes on GPUs, from the interpreter's start to the first finished sum, beside plain torch.

python -m benchmarks.gpu [--rounds 7] [--cpu]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

from benchmarks.measure import ROOT, Figure, ratio, turns, written
from tests.processes import clean_environment, free_port

OURS, NCCL_ALONE, PLAIN, PLAIN_BOTH = "colossalai-env", "colossalai-env, nccl alone", "plain torch", "plain torch, both"

SUM = """
total = torch.ones(1, device=device)
torch.distributed.all_reduce(total)
assert total.item() == torch.distributed.get_world_size()
import os, sys, time
sys.stdout.write(f"{time.monotonic()}\\n")
sys.stdout.flush()
os._exit(0)
"""
"""The first sum; `item` waits for it, and nothing is torn down."""

PROGRAMS: Mapping[str, str] = {
    OURS: "import colossalai_env, torch; device = colossalai_env.init_from_env({ours}).device",
    NCCL_ALONE: "import colossalai_env, torch; device = colossalai_env.init_from_env(backend={alone!r}).device",
    PLAIN: """
import os, torch
device = torch.device({kind!r}, int(os.environ["LOCAL_RANK"]))
{select}
torch.distributed.init_process_group({alone!r}{bound})
""",
    PLAIN_BOTH: """
import os, torch
device = torch.device({kind!r}, int(os.environ["LOCAL_RANK"]))
{select}
torch.distributed.init_process_group({both!r}{bound})
""",
}
"""What each does before the sum: a rank of plain torch chooses its device as scripts do."""

ON_GPU = {
    "kind": "cuda",
    "select": "torch.cuda.set_device(device)",
    "alone": "nccl",
    "both": "cpu:gloo,cuda:nccl",
    "bound": ", device_id=device",
    "ours": "",
}
ON_CPU = {"kind": "cpu", "select": "", "alone": "gloo", "both": "gloo", "bound": "", "ours": "device='cpu'"}

GOAL = 0.95
"""The ratio to plain torch that is wanted."""


def took(program: str, size: int) -> float:
    """Start the ranks of one world at once, and return the seconds until the last has its sum."""
    shared = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    env = {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)), "LOCAL_WORLD_SIZE": str(size), **shared}
    began = time.monotonic()
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=clean_environment({**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}),
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    return max(map(float, said)) - began


def measure(size: int, rounds: int, words: Mapping[str, str]) -> Figure:
    """Let all take turns, and set ours beside the others."""
    programs = {name: code.format(**words) + SUM for name, code in PROGRAMS.items()}
    for program in programs.values():
        took(program, size)  # what is read once lies in memory then
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for name in turns(programs, rounds):
        seconds[name].append(took(programs[name], size))
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    print(json.dumps({name: [round(one, 3) for one in taken] for name, taken in seconds.items()}))
    return Figure(
        "gpu",
        f"{size} rank(s), cold",
        f"until the first sum, {written(medians[OURS])} s, ratio to plain torch",
        ratio(seconds[OURS], seconds[PLAIN]),
        "x",
        most=GOAL,
        beside={f"{name}, s": value for name, value in medians.items() if name != OURS},
    )


def main() -> None:
    """Measure worlds of one rank and, where there are two GPUs, of two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cpu", action="store_true", help="measure gloo on CPUs instead, to try this out")
    asked = parser.parse_args()
    import torch

    gpus = 2 if asked.cpu else torch.cuda.device_count()
    if not gpus:
        print("No GPU here: nothing is measured.")
        return
    device = "CPU" if asked.cpu else torch.cuda.get_device_name(0)
    print(f"{device}, torch {torch.__version__}, Python {sys.version.split()[0]}; medians of {asked.rounds} rounds")
    for size in (1, 2)[:gpus]:
        one = measure(size, asked.rounds, ON_CPU if asked.cpu else ON_GPU)
        beside = "; ".join(f"{name} {written(float(value))}" for name, value in one.beside.items())
        print(f"{one.case}: {one.what}: {written(one.value)} {one.unit} [{one.goal}]  beside: {beside}", flush=True)


if __name__ == "__main__":
    main()
