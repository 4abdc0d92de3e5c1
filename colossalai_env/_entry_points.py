"""Entry points in the folders of sys.path, without importlib.metadata, whose import takes as long as all else here."""

import os
import re
import sys
from collections.abc import Collection, Iterator
from importlib.machinery import PathFinder


class Elsewhere(Exception):
    """Distributions may come from something else than folders: importlib.metadata has to be asked."""


def entries(*groups: str) -> Iterator[tuple[str, str, str, str]]:
    """Return group, name, value and metadata folder of the entry points of these groups, as importlib.metadata does.

    The first of two distributions of one name hides the other. Raises `Elsewhere` where a finder of its own or
    a zip file could bring distributions.
    """
    if any(hasattr(finder, "find_distributions") and finder is not PathFinder for finder in sys.meta_path):
        raise Elsewhere
    seen: set[str] = set()
    marks = [group.encode() for group in groups]
    for place in sys.path:
        prefix = os.path.join(place, "")
        for name in _children(place):
            lowered = name.lower()
            if not lowered.endswith((".dist-info", ".egg-info")):
                continue
            distribution = lowered.rpartition(".")[0].partition("-")[0]
            if "." in distribution or "__" in distribution:
                distribution = re.sub(r"[_.]+", "_", distribution)
            if distribution not in seen:
                seen.add(distribution)
                found = _content(f"{prefix}{name}/entry_points.txt")
                if found and any(mark in found for mark in marks):
                    for group, entry, value in _sections(found.decode(), groups):
                        yield group, entry, value, prefix + name


def _children(place: str) -> list[str]:
    if place.lower().endswith(".egg"):  # keeps its metadata one folder deeper
        raise Elsewhere
    try:
        return os.listdir(place or ".")
    except NotADirectoryError:
        raise Elsewhere from None
    except OSError:
        return []


def _content(path: str) -> bytes:
    """Read a file by one call that takes a path, where `open` asks for the file's status twice more."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # most distributions have no entry points
        return b""
    found = b""
    try:
        while part := os.read(descriptor, 1 << 16):
            found += part
    except IsADirectoryError:
        pass
    finally:
        os.close(descriptor)
    return found


def _sections(text: str, groups: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Return group, name and value of the entry points in some sections of an entry_points.txt."""
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line.strip("[]")
        elif group in groups and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield group, name.strip(), value.strip()
