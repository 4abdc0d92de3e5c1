"""Slurm's host lists, such as ``gpu-a[01-02],rack1-n[9-10]``: length and any one host without expanding the rest."""

import re
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import chain, product
from math import prod
from typing import TypeAlias, overload

TERM = r"(?:[^\[\],\s]+|\[[0-9,-]+\])+"
"""A name with brackets in it; the commas between terms stand outside of them."""


class Numbers:
    """A bracket's ranges, each padded as its first number is: ``08-11`` and ``098-101``."""

    def __init__(self, ranges: Sequence[tuple[int, int, int]], count: int) -> None:
        self.ranges = ranges
        """The first number of each, how many they are, and their width."""
        self.count = count

    @classmethod
    def parse(cls, text: str) -> "Numbers":
        """Read what stands between the brackets; raise `ValueError` for a range that runs backwards."""
        ranges: list[tuple[int, int, int]] = []
        count = 0
        for item in text.split(","):
            first, dash, last = item.partition("-")
            if not first or (dash and not last.isdecimal()):
                raise ValueError(EXPECTED)
            low = int(first)
            high = int(last) if dash else low
            if low > high:
                msg = f"a host list without the backward range {item}"
                raise ValueError(msg)
            ranges.append((low, high - low + 1, len(first)))
            count += high - low + 1
        return cls(ranges, count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> str:
        for low, count, width in self.ranges:
            if index < count:
                return f"{low + index:0{width}}"
            index -= count
        raise IndexError(index)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(
            map(f"{{:0{width}}}".format, range(low, low + count)) for low, count, width in self.ranges
        )

    def heads(self) -> Iterator[str]:
        """Return the first number of each range."""
        return (f"{low:0{width}}" for low, _, width in self.ranges)


Part: TypeAlias = Numbers | tuple[str]

EXPECTED = "a host list such as gpu-a[01-02,07],login1"


class HostList(Sequence[str]):
    """The hosts in the order given; a name's last bracket runs fastest."""

    def __init__(self, terms: Sequence[tuple[Part, ...]]) -> None:
        self.terms = terms
        self.counts = [prod(map(len, term)) for term in terms]
        """How many hosts each term names."""

    @classmethod
    def parse(cls, text: str) -> "HostList":
        """Take a list as Slurm writes it; raise `ValueError` with what was expected."""
        terms = re.findall(TERM, text)
        if ",".join(terms) != text or not terms:
            raise ValueError(EXPECTED)
        return cls([_parts(term) for term in terms])

    def __len__(self) -> int:
        return sum(self.counts)

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(map("".join, product(*term)) for term in self.terms)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        """Return one host by arithmetic alone; a slice expands the list."""
        if isinstance(index, slice):
            return tuple(self)[index]
        if index < 0:
            index += len(self)
        for term, count in zip(self.terms, self.counts, strict=True):
            if 0 <= index < count:
                return _nth(term, index)
            index -= count
        msg = "host list index out of range"
        raise IndexError(msg)

    def first_by_name(self) -> str:
        """Return the host that comes first where Slurm sorts them by name, as it does in a range."""
        heads = chain.from_iterable(map("".join, product(*map(_heads, term))) for term in self.terms)
        return reduce(lambda first, other: other if _before(other, first) else first, heads)


def _heads(part: Part) -> Sequence[str] | Iterator[str]:
    return part.heads() if isinstance(part, Numbers) else part


def _before(one: str, other: str) -> bool:
    """Compare names as Slurm does (strnatcmp.c): numbers by value, but digit by digit where one begins with 0."""
    for here, there in zip(_pieces(one), _pieces(other)):  # noqa: B905 - the shorter one comes first
        if here != there:
            by_value = here.isdecimal() and there.isdecimal() and "0" not in {here[0], there[0]}
            return (len(here), here) < (len(there), there) if by_value else here < there
    return len(one) < len(other)


def _pieces(name: str) -> list[str]:
    return re.findall(r"[0-9]+|[^0-9]", name)


def _parts(term: str) -> tuple[Part, ...]:
    """Split a term at its brackets."""
    name, *rest = term.split("[")
    parts: list[Part] = [(name,)] if name else []
    for piece in rest:
        ranges, _, name = piece.partition("]")
        parts.append(Numbers.parse(ranges))
        if name:
            parts.append((name,))
    return tuple(parts)


def _nth(term: Sequence[Part], index: int) -> str:
    name: list[str] = []
    for part in reversed(term):
        index, digit = divmod(index, len(part))
        name.append(part[digit])
    return "".join(reversed(name))
