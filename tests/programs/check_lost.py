"""colossalai-env check, whose rank 1 gets the signal of the first argument before its second measurement."""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from colossalai_env import cli
from colossalai_env.cli import check
from colossalai_env.cli.jobmap import Sample

samples, timed = check.samples, check.timed
which = signal.Signals[f"SIG{sys.argv[1]}"]


def quick(job: Any, largest: int, timeout: float) -> Iterator[Sample]:
    return samples(job, largest, min(timeout, 5.0))


def lost(job: Any, size: int) -> float:
    if job.rank == 1 and size > check.SMALLEST:
        os.kill(os.getpid(), which)
    return timed(job, size)


check.samples, check.timed = quick, lost
sys.exit(cli.main(["check", *sys.argv[2:]]))
