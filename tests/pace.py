"""How long things take on this machine now: bounds in tests are multiples of it, not seconds of an idle machine."""

import os
import subprocess
import sys
import time
from functools import cache

USUAL = 3.5
"""Seconds that a bare rank takes to import torch and connect, on two idle cores of a cloud's machine."""

RANK = """
import datetime, os, sys
from torch import distributed
store = distributed.TCPStore("127.0.0.1", 0, 1, True, datetime.timedelta(seconds=600))
distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
os._exit(0)
"""


@cache
def pace() -> float:
    """Return how many times longer than usual a bare rank takes to start and to connect; at least 1.

    It is measured once a session, when it is first asked for.
    """
    began = time.monotonic()
    quiet = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", RANK], check=True, env=quiet, timeout=600)
    return max(1.0, (time.monotonic() - began) / USUAL)
