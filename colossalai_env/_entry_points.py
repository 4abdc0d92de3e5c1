"""Entry points in the folders of sys.path, without importlib.metadata, whose import takes as long as all else here."""

import os
import re
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder


class Elsewhere(Exception):
    """Distributions may come from something else than folders: importlib.metadata has to be asked."""


def entries(group: str) -> Iterator[tuple[str, str, str]]:
    """Return name, value and metadata folder of the entry points of a group, as importlib.metadata finds them.

    The first of two distributions of one name hides the other. Raises `Elsewhere` where a finder of its own or
    a zip file could bring distributions.
    """
    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        raise Elsewhere
    seen: set[str] = set()
    for place in sys.path:
        for name in _children(place):
            if not name.lower().endswith((".dist-info", ".egg-info")):
                continue
            distribution = re.sub(r"[-_.]+", "_", name.lower().rpartition(".")[0].partition("-")[0])
            if distribution not in seen:
                seen.add(distribution)
                folder = os.path.join(place, name)
                for entry, value in _section(os.path.join(folder, "entry_points.txt"), group):
                    yield entry, value, folder


def _children(place: str) -> list[str]:
    if place.lower().endswith(".egg"):  # keeps its metadata one folder deeper
        raise Elsewhere
    try:
        return os.listdir(place or ".")
    except NotADirectoryError:
        raise Elsewhere from None
    except OSError:
        return []


def _section(path: str, group: str) -> Iterator[tuple[str, str]]:
    """Read one section of an entry_points.txt; most distributions have none."""
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError:
        return
    inside = False
    for line in map(str.strip, found.decode().splitlines() if group.encode() in found else ()):
        if line.startswith("[") and line.endswith("]"):
            inside = line.strip("[]") == group
        elif inside and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()
