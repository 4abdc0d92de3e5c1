"""gloo: its settings, in the C library's environment alone, where it looks; its words; the rest of its threads."""

import os
import re
import time
from pathlib import Path

from ._addresses import interface_names, interface_of, is_loopback, platform_lacks
from .environ import Environ, value_now

BATCHED = "GLOO_ENABLE_STORE_V2_API"
"""Has gloo ask the store for all ranks' addresses at once, and not for one after the other (gloo/common/utils.cc)."""

NUMBERED = "GLOO_ENABLE_RANK_AS_SEQUENCE_NUMBER"
"""Has gloo take the rank of who connects for the number of the connection, so an address holds no number for each rank.

gloo knows it from torch 2.7 on (gloo/transport/tcp/context.cc). All ranks have to agree on it, so a value of the
user's, which may be one rank's alone, does not count.
"""

INTERFACE = "GLOO_SOCKET_IFNAME"
"""Names the interface whose address gloo publishes; by default it is the address of the host's own name."""

REMOTE = re.compile(r"remote=\[?([0-9a-f.:]+?)\]?:\d")
"""The address that gloo could not connect to, in its message (gloo/transport/tcp/pair.cc, torch 2.13)."""

ABSENT = "Unable to find address for: "
"""What gloo says before the name of an interface that has no address (gloo/transport/tcp/device.cc, torch 2.13)."""


class GlooSettings:
    """What is set for gloo unless the user has set it; made before threads run, since the variables' list moves then.

    A value may change later: that moves no list. `agreed` says whether the roll call finds ranks of another torch.
    """

    def __init__(self, environ: Environ, *, agreed: bool) -> None:
        self._ours = {name for name in (BATCHED, INTERFACE) if name not in environ}
        if agreed:
            self._ours.add(NUMBERED)
        for name in self._ours:
            os.putenv(name, "" if name == INTERFACE else "1")

    def choose(self, interface: str | None) -> None:
        """Publish the address of this interface, in all groups of the job; None leaves the choice to gloo."""
        if INTERFACE in self._ours and interface is not None:
            os.putenv(INTERFACE, interface)
        else:
            self._take_back(INTERFACE)

    def formed(self) -> None:
        """Take back what is for the making of the first group."""
        self._take_back(BATCHED, NUMBERED)

    def close(self) -> None:
        """Take back all that was set."""
        self._take_back(*self._ours)

    def _take_back(self, *names: str) -> None:
        """Tell the C library again what `os.environ` holds, which the program may have changed meanwhile."""
        for name in self._ours.intersection(names):
            value = value_now(name)
            if value is None:
                os.unsetenv(name)
            else:
                os.putenv(name, value)
        self._ours.difference_update(names)


def loopback() -> str | None:
    """Return the interface on which a process that is alone needs to ask nobody for its host's name; Linux tells it."""
    return None if platform_lacks() else interface_of("127.0.0.1")


def meaning(message: str, environ: Environ) -> str:
    """Explain a message of gloo's that names a loopback address as another rank's; empty where it does not."""
    found = REMOTE.search(message)
    if found is None or not is_loopback(found.group(1)):
        return ""
    chosen = environ.get(INTERFACE)
    why = f"{INTERFACE} is {chosen!r} there" if chosen else "its host's own name leads there"
    return f"a rank published {found.group(1)}, at which only its own host reaches it: {why}"


def absent_interface(message: str, environ: Environ) -> str:
    """Say what to do about a message of gloo's that an interface has no address here; empty where it is another."""
    if ABSENT not in message:
        return ""
    chosen = environ.get(INTERFACE) or message.partition(ABSENT)[2]
    there = "" if platform_lacks() else f" (on this host these have one: {', '.join(interface_names())})"
    return (
        f"{INTERFACE} is {chosen!r}, and gloo takes an address of each interface that it names{there}: unset it, or "
        "name the one that joins the nodes"
    )


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
