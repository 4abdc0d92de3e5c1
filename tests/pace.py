"""How long things take on this machine now: bounds in tests are multiples of it, not seconds of an idle machine."""

import os
import subprocess
import sys
import threading
import time
from functools import cache

USUAL = 3.5
"""Seconds that a bare rank takes to import torch and connect, on two idle cores of a cloud's machine."""

AGE = 60.0
"""Seconds for which what was measured last counts as recent."""

RANK = """
import datetime, os, sys
from torch import distributed
store = distributed.TCPStore("127.0.0.1", 0, 1, True, datetime.timedelta(seconds=600))
distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
os._exit(0)
"""


def measured() -> float:
    """Return how many times longer than usual a bare rank takes now to start and to connect; at least 1."""
    began = time.monotonic()
    quiet = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", RANK], check=True, env=quiet, timeout=600)
    return max(1.0, (time.monotonic() - began) / USUAL)


@cache
def pace() -> float:
    """Return what was measured when it was first asked for, as sessions begin: for bounds that are wide anyway."""
    return measured()


class RecentPace:
    """What was measured within the last minute: for many short runs, while other work comes and goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at, self._last = float("-inf"), 1.0

    def __call__(self) -> float:
        with self._lock:
            if time.monotonic() - self._at > AGE:
                self._last = measured()
                self._at = time.monotonic()
            return self._last
