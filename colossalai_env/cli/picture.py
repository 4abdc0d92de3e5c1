"""The map of a job as a picture: nodes, devices, ranks, and how fast they talk; as SVG, or as a page of its own."""

import html as markup
import math
import re
from collections.abc import Callable, Iterator, Sequence

import attrs

from .jobmap import JobMap, Node, amount, duration, rate

WIDTH = 960
MARGIN = 28
GAP = 16
CHIP_GAP = 4
PADDING = 14
MANY = 64
"""Ranks from which they are drawn small."""

FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no place for, not even escaped (its section 2.2)."""

STYLE = """
  .page { fill: #ffffff; } .card { fill: #f6f8fa; stroke: #d0d7de; } .card.odd { stroke: #bf8700; stroke-width: 1.5; }
  .rank { fill: #ddf4ff; stroke: #54aeff; } .rank.cpu { fill: #eaeef2; stroke: #afb8c1; }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
  .title { font-size: 19px; font-weight: 600; } .quiet { fill: #59636e; font-size: 12px; } .host { font-weight: 600; }
  tspan.quiet { font-weight: 400; }
  .number { font-weight: 600; text-anchor: middle; } .small { font-size: 12px; }
  .device { font-size: 10px; fill: #59636e; text-anchor: middle; }
  .mark { fill: #9a6700; font-size: 12px; } .wrong { fill: #cf222e; font-weight: 600; }
  .end { text-anchor: end; } .middle { text-anchor: middle; }
  .grid { stroke: #d0d7de; } .curve { fill: none; stroke: #0969da; stroke-width: 2; } .point { fill: #0969da; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } .card { fill: #161b22; stroke: #3d444d; } .card.odd { stroke: #d29922; }
    .rank { fill: #0c2d6b; stroke: #388bfd; } .rank.cpu { fill: #262c36; stroke: #656c76; }
    text { fill: #f0f6fc; } .quiet, .device { fill: #9198a1; } .mark { fill: #d29922; } .wrong { fill: #ff7b72; }
    .grid { stroke: #3d444d; } .curve { stroke: #58a6ff; } .point { fill: #58a6ff; }
  }
"""


def svg(found: JobMap) -> str:
    """Draw a job as SVG, 960 wide and as high as it takes."""
    parts = list(_head(found))
    top = 84.0
    cards, top = _cards(found, top)
    parts += cards
    for failure in found.failures:
        parts.append(_text(MARGIN, top + 14, failure, "wrong"))
        top += 22
    if found.world_size > 1 and len(found.samples) > 1:
        parts += _plots(found, top + 8)
        top += 300
    height = round(top + MARGIN - GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title desc">\n<title id="title">{escape(found.title)}</title>\n'
        f'<desc id="desc">{escape(_described(found))}</desc>\n<style>{STYLE}</style>\n'
        f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _described(found: JobMap) -> str:
    return "; ".join(
        f"node {node.number}, {node.host}: rank(s) {node.ranks} on {node.devices}" for node in found.nodes()
    )


def escape(text: str) -> str:
    """Escape a text for XML and HTML; what cannot stand there becomes a replacement character."""
    return markup.escape(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def _head(found: JobMap) -> Iterator[str]:
    yield _text(MARGIN, 40, found.title, "title")
    devices = f"; {found.model}" if found.model else ""
    yield _text(MARGIN, 62, f"rank 0 at {found.endpoint}; {found.versions}{devices}", "quiet")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.4g}" y="{y:.5g}"{style}>{escape(text)}</text>'


def _cards(found: JobMap, top: float) -> tuple[list[str], float]:
    """Draw the nodes in rows, and return what is drawn and where it ends."""
    nodes = list(found.nodes())
    digits = len(str(found.members[-1].rank))
    chip_width, chip_height = (5 + 8 * max(3, digits), 26) if found.world_size > MANY else (48, 42)
    most = max(len(node.members) for node in nodes)
    least = min(most, 8) * (chip_width + CHIP_GAP) - CHIP_GAP + 2 * PADDING
    columns = max(1, min(len(nodes), (WIDTH - 2 * MARGIN + GAP) // (max(least, 180) + GAP)))
    width = (WIDTH - 2 * MARGIN + GAP) / columns - GAP
    fit = int((width - 2 * PADDING + CHIP_GAP) / (chip_width + CHIP_GAP))
    in_row = fit // 8 * 8 or fit
    parts: list[str] = []
    for first in range(0, len(nodes), columns):
        row = nodes[first : first + columns]
        lines = max(len(_wrapped(node, width)) for node in row)
        chips = max(math.ceil(len(node.members) / in_row) for node in row)
        height = 42 + chips * (chip_height + CHIP_GAP) + lines * 17 + 8
        for column, node in enumerate(row):
            left = MARGIN + column * (width + GAP)
            parts += _card(node, (left, top, width, height), (chip_width, chip_height, in_row), model=not found.model)
        top += height + GAP
    return parts, top


def _wrapped(node: Node, width: float) -> list[str]:
    """Break what is odd about a node into lines that fit."""
    lines: list[str] = []
    for mark in node.marks:
        line = ""
        for word in mark.split():
            if line and _length(f"{line} {word}") > width - 2 * PADDING:
                lines.append(line)
                line = f"  {word}"
            else:
                line = f"{line} {word}" if line else word
        lines.append(line)
    return lines


def _length(text: str) -> float:
    """Estimate how long a text is in a mark's letters, from above, as in the wider of the usual fonts."""
    return sum(7.7 if letter.isupper() or letter.isdigit() else 6.0 for letter in text)


def _shortened(text: str, fit: int) -> str:
    """Cut a text to what fits; to nothing where a few letters alone would."""
    if len(text) <= fit:
        return text
    return f"{text[: fit - 1]}…" if fit > 4 else ""


def _card(
    node: Node, box: tuple[float, float, float, float], chip: tuple[int, int, int], *, model: bool
) -> Iterator[str]:
    left, top, width, height = box
    chip_width, chip_height, in_row = chip
    odd = " odd" if node.marks else ""
    yield f"<g><title>{escape(f'{node.host}: {node.devices}')}</title>"
    yield f'<rect class="card{odd}" x="{left:.4g}" y="{top:.5g}" width="{width:.4g}" height="{height:.4g}" rx="8"/>'
    room = width - 3 * PADDING - 7 * len(f"node {node.number}")
    host = _shortened(node.host, int(room / 8))
    models = ", ".join(dict.fromkeys(member.model for member in node.members if member.model)) if model else ""
    beside = _shortened(models, int((room - 8 * len(host)) / 7) - 1)
    yield (
        f'<text class="host" x="{left + PADDING:.4g}" y="{top + 26:.5g}">{escape(host)}'
        + (f'<tspan class="quiet" dx="8">{escape(beside)}</tspan>' if beside else "")
        + "</text>"
    )
    yield _text(left + width - PADDING, top + 26, f"node {node.number}", "quiet end")
    for place, member in enumerate(node.members):
        x = left + PADDING + place % in_row * (chip_width + CHIP_GAP)
        y = top + 40 + place // in_row * (chip_height + CHIP_GAP)
        cpu = " cpu" if member.device.startswith("cpu") else ""
        large = chip_height > 30
        about = f"rank {member.rank}, local rank {member.local_rank}, {member.device}"
        yield f"<g><title>{escape(f'{about} {member.model}'.strip())}</title>"
        yield f'<rect class="rank{cpu}" x="{x:.4g}" y="{y:.5g}" width="{chip_width}" height="{chip_height}" rx="5"/>'
        yield _text(
            x + chip_width / 2, y + (18 if large else 17), str(member.rank), "number" if large else "number small"
        )
        if large:
            yield _text(x + chip_width / 2, y + 33, _shortened(member.device, 8), "device")
        yield "</g>"
    below = top + 54 + math.ceil(len(node.members) / in_row) * (chip_height + CHIP_GAP)
    for number, line in enumerate(_wrapped(node, width)):
        yield _text(left + PADDING, below + 17 * number, line, "mark")
    yield "</g>"


@attrs.frozen
class _Axis:
    """A logarithmic axis: values from a power of its base to a higher one, drawn between two positions."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return the position of a value."""
        span = math.log(self.high / self.low) or 1.0
        return self.start + math.log(value / self.low) / span * (self.end - self.start)


def _plots(found: JobMap, top: float) -> Iterator[str]:
    width = (WIDTH - 2 * MARGIN - GAP) / 2
    times = [(sample.size, sample.seconds) for sample in found.samples]
    rates = [(sample.size, sample.bus_bandwidth(found.world_size)) for sample in found.samples]
    yield from _plot("Time of an all_reduce", (MARGIN, top, width), times, duration, min)
    yield from _plot("Bus bandwidth of an all_reduce", (MARGIN + width + GAP, top, width), rates, rate, max)


def _plot(
    name: str,
    box: tuple[float, float, float],
    points: Sequence[tuple[int, float]],
    written: Callable[[float], str],
    best: Callable[[Sequence[float]], float],
) -> Iterator[str]:
    """Draw values over sizes, both logarithmic, with a line for each power of ten, and name the best value."""
    left, top, width = box
    sizes, values = [size for size, _ in points], [value for _, value in points]
    low, high = (10.0**edge for edge in (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))))
    across = _Axis(sizes[0], sizes[-1], left + 86, left + width - 30)
    up = _Axis(low, max(high, low * 10), top + 226, top + 48)
    yield f'<rect class="card" x="{left:.4g}" y="{top:.5g}" width="{width:.4g}" height="284" rx="8"/>'
    yield _text(left + PADDING, top + 26, name, "host")
    size, value = points[values.index(best(values))]
    yield _text(left + width - PADDING, top + 26, f"{written(value)} at {amount(size)}", "quiet end")
    decades = round(math.log10(up.high / up.low))
    for power in range(decades + 1):
        y = up.at(up.low * 10.0**power)
        yield f'<line class="grid" x1="{across.start:.4g}" x2="{across.end:.4g}" y1="{y:.5g}" y2="{y:.5g}"/>'
        if (decades - power) % math.ceil(decades / 9) == 0:
            yield _text(across.start - 8, y + 4, written(up.low * 10.0**power), "quiet end")
    for size in _spread(sizes, across):
        yield _text(across.at(size), up.start + 20, amount(size), "quiet middle")
    yield _text((across.start + across.end) / 2, up.start + 42, "size of the message", "quiet middle")
    places = [(across.at(size), up.at(value)) for size, value in points]
    yield f'<polyline class="curve" points="{" ".join(f"{x:.5g},{y:.5g}" for x, y in places)}"/>'
    for (x, y), (size, value) in zip(places, points, strict=True):
        yield (
            f'<circle class="point" cx="{x:.5g}" cy="{y:.5g}" r="3.5">'
            f"<title>{amount(size)}: {written(value)}</title></circle>"
        )


def _spread(sizes: Sequence[int], across: _Axis) -> Iterator[int]:
    """Choose the sizes whose names stand apart, the largest first, where the bandwidth is read."""
    free = math.inf
    for size in reversed(sizes):
        if across.at(size) <= free:
            free = across.at(size) - 58
            yield size


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  :root {{ color-scheme: light dark; }}
  body {{ font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; max-width: 960px; margin: 24px auto;
         padding: 0 16px; background: #ffffff; color: #1f2328; }}
  .wide {{ overflow-x: auto; }} svg {{ width: 100%; min-width: 720px; height: auto; }}
  table {{ border-collapse: collapse; margin: 16px 28px; min-width: 692px; }}
  caption {{ text-align: left; font-weight: 600; }}
  th, td {{ text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid #8888; vertical-align: top; }}
  @media (prefers-color-scheme: dark) {{ body {{ background: #0d1117; color: #f0f6fc; }} }}
</style></head><body>
<div class="wide">{picture}</div>
{tables}
</body></html>
"""


def html(found: JobMap) -> str:
    """Write a job as a page that needs no other file: the picture, and its figures as tables."""
    nodes = [[str(node.number), node.host, node.ranks, node.devices, "; ".join(node.marks)] for node in found.nodes()]
    samples = [
        [
            amount(sample.size),
            duration(sample.seconds),
            rate(sample.bandwidth),
            rate(sample.bus_bandwidth(found.world_size)),
        ]
        for sample in found.samples
    ]
    tables = _table("Nodes", ["node", "host", "ranks", "devices", "worth a look"], nodes)
    if samples:
        tables += _table("all_reduce", ["size", "takes", "bandwidth", "bus bandwidth"], samples)
    return PAGE.format(title=escape(found.title), picture=svg(found), tables=tables)


def _table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table><caption>{caption}</caption>\n<tr>{head}</tr>\n{body}</table></div>\n'
