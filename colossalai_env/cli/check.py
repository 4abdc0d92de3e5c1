"""Check a launch before the real job: meet all ranks, make the process group, sum over it, and draw the map of the job.

Type it in place of the training script. Every rank of a wrong setup ends with the error and code 1.

Examples:
  srun -N2 -n8 colossalai-env check
  torchrun --nproc-per-node=4 --no-python colossalai-env check --html job.html
  mpirun --hostfile hosts -np 8 colossalai-env check --largest 0

"""

import argparse
import os
import socket
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import attrs

from colossalai_env._addresses import OWN_NAME, addresses
from colossalai_env._devices import Accelerators
from colossalai_env._job import Job
from colossalai_env._join import init_from_env
from colossalai_env._launch import add_rank_options
from colossalai_env._nccl import Words
from colossalai_env._rendezvous.protocol.report import ranges_of
from colossalai_env.environ import Environ
from colossalai_env.errors import ColossalaiEnvError, listed, where

from . import picture
from .jobmap import JobMap, Member, Sample, amount, duration, rate
from .output import show_error, show_json, show_table, show_text

SMALLEST, STEP = 4, 8
"""Bytes of the first message, one number, and by how much each is larger than the one before."""

RUNS, RUN = 5, 0.01
"""How often one size is measured, and for how many seconds each time; the best counts."""

TOO_LONG = 2.0
"""Seconds that an all_reduce may be expected to take; larger ones are left out."""


class CollectiveFailed(ColossalaiEnvError):
    """The group was made, and then a collective failed or did not end."""

    rank: int
    here: str
    backend: str
    doing: str
    problem: str

    def __str__(self) -> str:
        return (
            f"{self.doing} over {self.backend} failed{where(self.rank, self.here)}: {self.problem}. "
            "The group had been made, so look first at ranks that say nothing or died before the others, then at the "
            "network between the nodes (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME; NCCL_DEBUG=INFO says what NCCL does)."
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    add_rank_options(parser)
    parser.add_argument("--backend", help="torch's backend; NCCL on GPUs and gloo on CPUs where it is left out")
    parser.add_argument(
        "--device",
        type=_device,
        help="cpu, or a device by torch's name; the one that fits each rank where it is left out",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long all ranks have to come, and each measurement to end (default 60)",
    )
    parser.add_argument(
        "--largest",
        type=_bytes,
        default=64 << 20,
        metavar="BYTES",
        help="largest message that is timed (default 64 MiB); 0 times none",
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the map there")
    parser.add_argument("--html", metavar="FILE", help="write the map there as a page of its own")


def _device(text: str) -> str | int:
    return int(text) if text.isascii() and text.isdecimal() else text


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < threading.TIMEOUT_MAX:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}, expected a number of seconds above 0")


def _bytes(text: str) -> int:
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of bytes, such as 1048576")


def run(options: argparse.Namespace) -> int:
    """Check; the code is 1 where ranks do not meet or a sum is wrong. Rank 0 alone prints the map."""
    try:
        with init_from_env(args=options, device=options.device, timeout=options.timeout) as job:
            with _within(job, options.timeout, "gathering what the ranks say of themselves"):
                members = _members(job)
            with _within(job, options.timeout, "a sum over all ranks"):
                failures = _sums(job)
            found = JobMap(
                backend=job.backend,
                resolver=job.spec.resolver,
                endpoint=f"{job.spec.host}:{job.spec.port}" if job.world_size > 1 else "none, one process",
                versions=_versions(),
                members=members,
                samples=tuple(samples(job, options.largest, options.timeout)),
                failures=failures,
            )
    except ColossalaiEnvError as error:
        show_error(error)
        return 1
    if job.rank == 0:
        _show(found, as_json=options.json)
        return max(1 if failures else 0, _write(options.svg, found, "svg"), _write(options.html, found, "html"))
    return 1 if failures else 0


@contextmanager
def _within(job: Job, seconds: float, doing: str) -> Generator[None]:
    """End the process with an error where the collectives of a block fail, or do not end in time.

    At once: a thread that waits in a backend is not ended otherwise, and a broken group is not taken down in order.
    """

    def end(problem: str) -> None:
        show_error(CollectiveFailed(job.rank, socket.gethostname(), job.backend, doing, problem))
        os._exit(1)

    timer = threading.Timer(seconds, end, [f"it did not end within {seconds:.1f} s"])
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeError as error:
        words = Words.of(str(error), Environ.snapshot())
        end(str(error).partition("\n")[0] if words is None else f"{words.problem}. {words.advice}")
    finally:
        timer.cancel()


def _versions() -> str:
    import torch

    return f"Python {sys.version.split()[0]}, torch {torch.__version__}"


def _members(job: Job) -> tuple[Member, ...]:
    """Gather what all ranks say of themselves, at one moment."""
    import torch
    from torch import distributed

    c10d: Any = distributed
    module: Any = torch.get_device_module(job.device)
    host, named = socket.gethostname(), tuple[str, ...]()
    with suppress(OSError):
        named = addresses(host, OWN_NAME)
    mine = Member(
        rank=job.rank,
        host=host,
        node_rank=job.node_rank,
        local_rank=job.local_rank,
        device=str(job.device),
        model=module.get_device_name(job.device) if job.device.type != "cpu" else "",
        accelerators=Accelerators.here().visible,
        cores=tuple(sorted(os.sched_getaffinity(0))),
        threads=torch.get_num_threads(),
        addresses=named,
        clock=0,
    )
    gathered: list[Any] = [None] * job.world_size
    c10d.barrier()
    c10d.all_gather_object(gathered, attrs.evolve(mine, clock=time.time()))
    return tuple(gathered)


def _sums(job: Job) -> tuple[str, ...]:
    """Sum over the group, and return which ranks got it wrong."""
    import torch
    from torch import distributed

    c10d: Any = distributed
    total: Any = torch.full((1024,), job.rank + 1, dtype=torch.int64, device=job.device)
    c10d.all_reduce(total)
    expected = job.world_size * (job.world_size + 1) // 2
    outcomes: list[Any] = [None] * job.world_size
    c10d.all_gather_object(outcomes, sorted(set(total.tolist())))
    return wrong_sums(outcomes, expected)


def wrong_sums(outcomes: Sequence[Sequence[int]], expected: int) -> tuple[str, ...]:
    """Return which ranks got something else than what was expected, by what they got."""
    wrong: dict[str, list[int]] = {}
    for rank, got in enumerate(outcomes):
        if list(got) != [expected]:
            wrong.setdefault(listed([str(value) for value in got[:3]]), []).append(rank)
    return tuple(
        f"rank(s) {ranges_of(ranks)} got {got} as the sum over all ranks, expected {expected}"
        for got, ranks in wrong.items()
    )


def samples(job: Job, largest: int, timeout: float) -> Iterator[Sample]:
    """Time all_reduce by size; rank 0's clock counts, and it says how often."""
    size, expected = SMALLEST, 0.0
    while job.world_size > 1 and size <= largest and expected < TOO_LONG:
        with _within(job, timeout, f"an all_reduce of {amount(size)}"):
            seconds = timed(job, size)
        yield Sample(size, seconds)
        size, expected = size * STEP, seconds * STEP


def timed(job: Job, size: int) -> float:
    """Return the seconds that one all_reduce of `size` bytes takes, the best of some runs; alike on all ranks."""
    import torch
    from torch import distributed

    c10d: Any = distributed
    message = torch.zeros(size // 4, device=job.device)

    def mean(times: int) -> float:
        c10d.barrier()
        began = time.perf_counter()
        for _ in range(times):
            c10d.all_reduce(message)
        if job.device.type != "cpu":
            torch.accelerator.synchronize()
        return (time.perf_counter() - began) / times

    def agreed(seconds: float) -> float:
        told: list[Any] = [seconds]
        c10d.broadcast_object_list(told, 0)
        return float(told[0])

    mean(1)  # connects, and touches the memory
    times = max(1, min(1000, round(RUN / agreed(mean(2)))))
    return agreed(min(mean(times) for _ in range(RUNS)))


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
