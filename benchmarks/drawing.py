"""Curves over a logarithmic axis, as SVG."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise

from benchmarks.measure import written

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 180, 56, 52
LETTER = 7
COLOURS = ("#0969da", "#bf3989", "#1a7f37", "#9a6700", "#8250df", "#cf222e")
DARK = ("#58a6ff", "#f778ba", "#3fb950", "#d29922", "#bc8cff", "#ff7b72")

STYLE = """
  .page { fill: #ffffff; } text { font: 13px system-ui, sans-serif; fill: #1f2328; } .title { font-weight: 600; }
  .quiet { fill: #59636e; font-size: 12px; } .end { text-anchor: end; } .middle { text-anchor: middle; }
  .grid { stroke: #d0d7de; } .curve { fill: none; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } text { fill: #f0f6fc; } .quiet { fill: #9198a1; } .grid { stroke: #3d444d; }
  }
"""

Curves = Mapping[str, Sequence[tuple[float, float]]]


def curves(title: str, across: str, up: str, drawn: Curves) -> str:
    """Draw named curves of positive values; the axis `across` is logarithmic, `up` begins at zero."""
    xs = sorted({x for points in drawn.values() for x, _ in points})
    step = _step(max(y for points in drawn.values() for _, y in points))
    lines = math.ceil(max(y for points in drawn.values() for _, y in points) / step)
    right = max(RIGHT, 20 + LETTER * max(map(len, drawn)))

    def place(x: float, y: float) -> tuple[float, float]:
        part = math.log(x / xs[0]) / (math.log(xs[-1] / xs[0]) or 1)
        high = HEIGHT - TOP - BOTTOM
        return LEFT + part * (WIDTH - LEFT - right), HEIGHT - BOTTOM - y / (lines * step) * high

    parts = [_text(LEFT - 50, 28, title, "title"), _text(LEFT - 50, 46, up, "quiet")]
    for line in range(lines + 1):
        x, y = place(xs[0], line * step)
        parts.append(f'<line class="grid" x1="{x:.4g}" x2="{WIDTH - right}" y1="{y:.4g}" y2="{y:.4g}"/>')
        parts.append(_text(x - 8, y + 4, written(line * step) if line else "0", "quiet end"))
    parts += [_text(place(x, 0)[0], HEIGHT - BOTTOM + 20, written(x), "quiet middle") for x in xs]
    parts.append(_text((LEFT + WIDTH - right) / 2, HEIGHT - 10, across, "quiet middle"))
    ends = _apart([place(*points[-1])[1] for points in drawn.values()])
    for number, (name, points) in enumerate(drawn.items()):
        places = [place(*point) for point in points]
        path = " ".join(f"{x:.4g},{y:.4g}" for x, y in places)
        parts.append(f'<polyline class="curve c{number}" points="{path}"/>')
        for (x, y), (_, value) in zip(places, points, strict=True):
            told = f"<title>{escape(name)}: {written(value)}</title>"
            parts.append(f'<circle class="p{number}" cx="{x:.4g}" cy="{y:.4g}" r="3.5">{told}</circle>')
        parts.append(_text(places[-1][0] + 10, ends[number] + 4, name, f"p{number}"))
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"'
    parts.insert(0, f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="8"/>')
    style = f"<style>{STYLE}{_coloured(len(drawn))}</style>"
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {box}>', style, *parts, "</svg>\n"])


def _coloured(count: int) -> str:
    def rules(colours: Sequence[str]) -> str:
        pairs = list(enumerate(colours[:count]))
        return " ".join(
            f".c{number} {{ stroke: {colour}; }} .p{number} {{ fill: {colour}; }}" for number, colour in pairs
        )

    return f"  {rules(COLOURS)}\n  @media (prefers-color-scheme: dark) {{ {rules(DARK)} }}\n"


def _step(highest: float) -> float:
    """Return 1, 2 or 5 times a power of ten, for four to eight lines."""
    power = 10.0 ** math.floor(math.log10(highest / 4))
    return next(power * digit for digit in (1, 2, 5, 10) if highest / (power * digit) <= 6)


def _apart(heights: Sequence[float], least: float = 16) -> list[float]:
    """Move names apart that would lie upon each other."""
    moved = list(heights)
    order = sorted(range(len(moved)), key=lambda number: moved[number])
    for above, below in pairwise(order):
        moved[below] = max(moved[below], moved[above] + least)
    return moved


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.4g}" y="{y:.4g}" class="{kind}">{escape(text)}</text>'
