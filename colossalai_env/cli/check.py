"""Check a launch before the real job: meet all ranks, make the process group, sum over it, and draw the map of the job.

Type it in place of the training script. Every rank of a wrong setup ends with the error and code 1.

Examples:
  srun -N2 -n8 colossalai-env check
  torchrun --nproc-per-node=4 --no-python colossalai-env check --html job.html
  mpirun --hostfile hosts -np 8 colossalai-env check --largest 0

"""

import argparse
import os
import sys
import time
from typing import Any

from colossalai_env.colossal import add_rank_options
from colossalai_env.init import init_from_env
from colossalai_env.job import Job

from . import picture
from .jobmap import JobMap, Member, Sample, amount, duration, rate
from .output import show_json, show_table, show_text

SMALLEST, STEP = 8, 8
"""Bytes of the first message, and by how much each is larger than the one before."""

LONG_ENOUGH = 0.05
"""Seconds for which one size is measured."""

TOO_LONG = 1.0
"""Seconds that one all_reduce may take for a larger one to be tried."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_rank_options(parser)
    parser.add_argument("--backend", help="torch's backend; NCCL on GPUs and gloo on CPUs where it is left out")
    parser.add_argument("--timeout", type=float, default=60, help="seconds that all ranks have to come (default 60)")
    parser.add_argument(
        "--largest", type=int, default=64 << 20, metavar="BYTES", help="largest message that is timed (default 64 MiB)"
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the map there")
    parser.add_argument("--html", metavar="FILE", help="write the map there as a page of its own")


def run(options: argparse.Namespace) -> int:
    """Check; the code is 1 where a sum is wrong. Rank 0 prints."""
    with init_from_env(args=options, timeout=options.timeout) as job:
        members = _members(job)
        failures = _sums(job)
        found = JobMap(
            backend=job.backend,
            resolver=job.spec.resolver,
            endpoint=f"{job.spec.host}:{job.spec.port}" if job.world_size > 1 else "none, one process",
            versions=_versions(),
            members=members,
            samples=tuple(_samples(job, options.largest)),
            failures=failures,
        )
    if job.rank == 0:
        _show(found, as_json=options.json)
        return max(1 if failures else 0, _write(options.svg, found, "svg"), _write(options.html, found, "html"))
    return 1 if failures else 0


def _versions() -> str:
    import torch

    return f"Python {sys.version.split()[0]}, torch {torch.__version__}"


def _members(job: Job) -> tuple[Member, ...]:
    """Gather what all ranks say of themselves, at one moment."""
    import socket

    import torch
    from torch import distributed

    c10d: Any = distributed
    gathered: list[Any] = [None] * job.world_size
    c10d.barrier()
    module: Any = torch.get_device_module(job.device)
    mine = Member(
        rank=job.rank,
        host=socket.gethostname(),
        node_rank=job.node_rank,
        local_rank=job.local_rank,
        device=str(job.device),
        model=module.get_device_name(job.device) if job.device.type != "cpu" else "",
        accelerators=torch.accelerator.device_count(),
        cpus=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        clock=time.time(),
    )
    c10d.all_gather_object(gathered, mine)
    return tuple(gathered)


def _sums(job: Job) -> tuple[str, ...]:
    """Sum over the group, and return which ranks got it wrong."""
    import torch
    from torch import distributed

    c10d: Any = distributed
    total = torch.full((1024,), float(job.rank + 1), device=job.device)
    c10d.all_reduce(total)
    expected = job.world_size * (job.world_size + 1) / 2
    outcomes: list[Any] = [None] * job.world_size
    c10d.all_gather_object(outcomes, [total.min().item(), total.max().item()])
    return tuple(
        f"rank {rank} got {low if low != expected else high} for a sum over all ranks, expected {expected}"
        for rank, (low, high) in enumerate(outcomes)
        if {low, high} != {expected}
    )


def _samples(job: Job, largest: int) -> list[Sample]:
    """Time all_reduce by size; rank 0's clock counts, and it says how often."""
    samples: list[Sample] = []
    sizes = [size for size in (SMALLEST * STEP**power for power in range(12)) if size < largest]
    for size in [*sizes, largest] if largest >= SMALLEST and job.world_size > 1 else []:
        if samples and samples[-1].seconds > TOO_LONG:
            break
        once = _timed(job, size, 3)
        samples.append(Sample(size, _timed(job, size, max(1, min(1000, round(LONG_ENOUGH / once))))))
    return samples


def _timed(job: Job, size: int, times: int) -> float:
    """Return the seconds that one all_reduce of `size` bytes takes, as rank 0 found; alike on all ranks."""
    import torch
    from torch import distributed

    c10d: Any = distributed
    message = torch.zeros(size // 4, device=job.device)
    c10d.barrier()
    began = time.perf_counter()
    for _ in range(times):
        c10d.all_reduce(message)
    if job.device.type != "cpu":
        torch.accelerator.synchronize()
    took = torch.tensor([(time.perf_counter() - began) / times], dtype=torch.float64, device=job.device)
    c10d.broadcast(took, 0)
    return float(took.item())


def _show(found: JobMap, *, as_json: bool) -> None:
    if as_json:
        show_json(found.to_dict())
        return
    show_text(f"{found.title}, met at {found.endpoint}; {found.versions}\n")
    show_table(
        ["node", "host", "ranks", "devices", "worth a look"],
        [[str(node.number), node.host, node.ranks, node.devices, "; ".join(node.marks)] for node in found.nodes()],
    )
    if found.samples:
        show_table(
            ["all_reduce of", "takes", "bandwidth", "bus bandwidth"],
            [
                [
                    amount(sample.size),
                    duration(sample.seconds),
                    rate(sample.bandwidth),
                    rate(sample.bus_bandwidth(found.world_size)),
                ]
                for sample in found.samples
            ],
        )
    show_text("\n".join(found.failures) or "All ranks met, and their sums are right.")


def _write(path: str | None, found: JobMap, kind: str) -> int:
    if path is None:
        return 0
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(picture.svg(found) if kind == "svg" else picture.html(found))
    except OSError as error:
        sys.stderr.write(
            f"--{kind} {path} cannot be written: {error.strerror}: name a file in a folder that is there\n"
        )
        return 1
    return 0
