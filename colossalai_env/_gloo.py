"""gloo: its settings, in the C library's environment alone, where it looks; its words; the rest of its threads."""

import os
import re
import time
from pathlib import Path

from ._addresses import is_loopback
from .environ import Environ, is_set

BATCHED = "GLOO_ENABLE_STORE_V2_API"
"""Has gloo ask the store for all ranks' addresses at once, and not for one after the other (gloo/common/utils.cc)."""

INTERFACE = "GLOO_SOCKET_IFNAME"
"""Names the interface whose address gloo publishes; by default it is the address of the host's own name."""

REMOTE = re.compile(r"remote=\[?([0-9a-f.:]+?)\]?:\d")
"""The address that gloo could not connect to, in its message (gloo/transport/tcp/pair.cc, torch 2.13)."""


class GlooSettings:
    """What is set for gloo unless the user has set it; made before threads run, since the variables' list moves then.

    A value may change later: that moves no list.
    """

    def __init__(self, environ: Environ) -> None:
        self._ours = {name for name in (BATCHED, INTERFACE) if name not in environ}
        for name in self._ours:
            os.putenv(name, "1" if name == BATCHED else "")

    def choose(self, interface: str | None) -> None:
        """Publish the address of this interface, in all groups of the job; None leaves the choice to gloo."""
        if INTERFACE in self._ours and interface is not None:
            os.putenv(INTERFACE, interface)
        else:
            self._unset(INTERFACE)

    def formed(self) -> None:
        """Take back what is for the making of the first group."""
        self._unset(BATCHED)

    def close(self) -> None:
        """Take back all that was set, but for what the program has set itself meanwhile."""
        for name in (BATCHED, INTERFACE):
            self._unset(name)

    def _unset(self, name: str) -> None:
        if name in self._ours and not is_set(name):
            os.unsetenv(name)
        self._ours.discard(name)


def meaning(message: str, environ: Environ) -> str:
    """Explain a message of gloo's that names a loopback address as another rank's; empty where it does not."""
    found = REMOTE.search(message)
    if found is None or not is_loopback(found.group(1)):
        return ""
    chosen = environ.get(INTERFACE)
    why = f"{INTERFACE} is {chosen!r} there" if chosen else "its host's own name leads there"
    return f"a rank published {found.group(1)}, at which only its own host reaches it: {why}"


def let_threads_rest(seconds: float) -> None:
    """Wait until the threads that work for gloo have slept while the GIL was free; Linux alone tells that."""
    until = time.monotonic() + seconds
    before: list[str] = []
    while time.monotonic() < until:
        now = [line for task in Path("/proc/self/task").glob("*") for line in _schedule(task)]
        if now == before and not any(line.startswith("State:\tR") for line in now):
            break
        before = now
        time.sleep(0.001)


def _schedule(task: Path) -> list[str]:
    """Return whether a thread that works for gloo runs or sleeps, and how often it has changed between the two."""
    try:
        status = (task / "status").read_text()
    except OSError:  # it has ended
        return []
    if not status.startswith("Name:\tpt_gloo_runloop"):
        return []
    return [line for line in status.splitlines() if line.startswith("State:") or "ctxt_switches" in line]
