"""Slurm's host lists, such as ``gpu-a[01-02],rack1-n[9-10]``: length and any one host without expanding the rest."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, product
from math import prod
from typing import TypeAlias, overload

import attrs

RANGES = r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*"
TERM = rf"[^\[\],\s]*(?:\[{RANGES}\][^\[\],\s]*)*"
WHOLE = re.compile(rf"{TERM}(?:,{TERM})*", re.ASCII)
EACH = re.compile(TERM, re.ASCII)
PARTS = re.compile(rf"\[({RANGES})\]|([^\[\],\s]+)", re.ASCII)


@attrs.frozen
class Numbers:
    """A bracket's ranges, each padded as its first number is: ``08-11`` and ``098-101``."""

    ranges: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, text: str) -> "Numbers":
        """Read what stands between the brackets; raise `ValueError` for a range that runs backwards."""
        ranges: list[tuple[int, int, int]] = []
        for item in text.split(","):
            first, _, last = item.partition("-")
            low, high = int(first), int(last or first)
            if low > high:
                msg = f"a host list without the backward range {item}"
                raise ValueError(msg)
            ranges.append((low, high - low + 1, len(first)))
        return cls(tuple(ranges))

    def __len__(self) -> int:
        return sum(count for _, count, _ in self.ranges)

    def __getitem__(self, index: int) -> str:
        for low, count, width in self.ranges:
            if index < count:
                return f"{low + index:0{width}}"
            index -= count
        raise IndexError(index)

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{width}}" for low, count, width in self.ranges for number in range(low, low + count))


Part: TypeAlias = Numbers | tuple[str]


@attrs.frozen
class HostList(Sequence[str]):
    """The hosts in the order given; a name's last bracket runs fastest."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "HostList":
        """Take a list as Slurm writes it; raise `ValueError` with what was expected."""
        if not WHOLE.fullmatch(text) or not all(text.split(",")):
            msg = "a host list such as gpu-a[01-02,07],login1"
            raise ValueError(msg)
        return cls(text)

    def _terms(self) -> Iterator[list[Part]]:
        start = 0
        while start <= len(self.text):
            term = EACH.match(self.text, start)
            if term is None:
                return
            parts = PARTS.findall(term.group())
            yield [Numbers.parse(ranges) if ranges else (literal,) for ranges, literal in parts]
            start = term.end() + 1

    def __len__(self) -> int:
        return sum(prod(map(len, term)) for term in self._terms())

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(map("".join, product(*term)) for term in self._terms())

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
        for term in self._terms():
            length = prod(map(len, term))
            if 0 <= index < length:
                return _nth(term, index)
            index -= length
        msg = "host list index out of range"
        raise IndexError(msg)


def _nth(term: Sequence[Part], index: int) -> str:
    name: list[str] = []
    for part in reversed(term):
        index, digit = divmod(index, len(part))
        name.append(part[digit])
    return "".join(reversed(name))
