"""Who is missing, shown on rank 0 while it waits: a bar on a terminal, a line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

import attrs

from .protocol.report import RankReport, ranges_of

log = logging.getLogger("colossalai_env")

FIRST = 3.0
"""Seconds of waiting before anything is shown."""


@attrs.define
class Waiting:
    """Shows the state of a roll call of `world_size` ranks."""

    world_size: int
    ends: float = float("inf")
    """When the launcher ends the job, on `clock`."""
    stream: TextIO = attrs.field(factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.monotonic
    began: float = attrs.field(init=False)
    due: float = attrs.field(init=False, default=FIRST)
    drawn: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        """Start the clock."""
        self.began = self.clock()

    def show(self, reports: Sequence[RankReport]) -> None:
        """Draw the bar anew, or log a line when one is due: after 3 s, then each time twice as late."""
        here = {one.rank for one in reports}
        waited = self.clock() - self.began
        if waited < self.due:
            return
        missing = ranges_of(rank for rank in range(self.world_size) if rank not in here)
        told = f"{len(here)}/{self.world_size} ranks are here after {waited:.0f} s, missing {missing or 'none'}"
        if self.ends != float("inf"):
            told += f"; the job ends in {max(0.0, self.ends - self.clock()):.0f} s, before this wait does"
        if self.stream.isatty():
            filled = 24 * len(here) // self.world_size
            self.stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (24 - filled)}] {told}")
            self.stream.flush()
            self.drawn = True
        else:
            log.warning("%s", told)
            self.due = 2 * waited

    def close(self) -> None:
        """Leave the bar behind on a line of its own."""
        if self.drawn:
            self.stream.write("\n")
            self.stream.flush()
