"""Jobs whose hosts stand in a file that a variable names: a single process in one of several hosts is not meant."""

from ._unknown_launchers import MARKS
from .environ import Environ
from .errors import NotLaunched


def refuse_listed(environ: Environ) -> bool:
    """Read the file that lists this job's slots, if there is one: raise `NotLaunched` where it has several hosts.

    Return whether it lists a single slot.
    """
    for mark in MARKS:
        path = environ.get(mark.listing) if mark.listing and mark.applies(environ) else None
        if not path:
            continue
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                slots = [line.strip() for line in file if line.strip()]
        except OSError:
            continue
        hosts = len(set(slots))
        if hosts > 1:
            raise NotLaunched(mark.launcher, mark.place.format(count=hosts), mark.found(environ), mark.advice)
        return len(slots) == 1
    return False
