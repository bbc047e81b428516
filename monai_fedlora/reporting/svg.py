"""Line charts as SVG inside the page, each with a title and a description for who cannot see it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from monai_fedlora.comparison.figures import COLOURS

_WIDTH, _PLOT, _HEIGHT = 760, 520, 280
_LEFT, _TOP, _BOTTOM = 66, 12, 46
_LINE = 18
_DASHES = ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        points: by place on the x axis; a gap where a value is missing.
        strong: whether it stands out.
    """

    points: Mapping[int, float]
    strong: bool = False


def line_chart(
    name: str,
    lines: Mapping[str, Line],
    *,
    title: str,
    description: str,
    ticks: Mapping[int, str],
    x_label: str,
    y_label: str,
    low: float | None = None,
    high: float | None = None,
    diagonal: bool = False,
) -> str:
    """Draw lines over common places.

    Args:
        name: of the chart, unique on its page, of letters, digits and dashes.
        lines: by their name in the legend.
        title, description: read aloud in place of the picture.
        ticks: texts below the places of the x axis.
        low, high: ends of the y axis; None takes the round numbers around the values.
        diagonal: whether a grey line runs from corner to corner.

    Returns:
        A ``figure`` with an ``svg`` and its title as the caption, or nothing where no line has a point.
    """
    values = [value for line in lines.values() for value in line.points.values()]
    if not values or not ticks:
        return ""
    low, high = min(values) if low is None else low, max(values) if high is None else high
    if not low < high:
        low, high = low - 0.5, high + 0.5
    steps = round_steps(low, high)
    low, high = min(low, steps[0]), max(high, steps[-1])
    first, last = min(ticks), max(max(ticks), min(ticks) + 1)
    height = max(_HEIGHT, _TOP + _BOTTOM + _LINE * len(lines))
    floor = height - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - first) / (last - first) * (_PLOT - _LEFT)
        return round(across, 1), round(floor - (y - low) / (high - low) * (floor - _TOP), 1)

    parts = [
        f'<svg role="img" aria-labelledby="{name}-title {name}-text" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'style="max-width: 100%; height: auto" font-size="12" font-family="system-ui, sans-serif" fill="#1a1a1a">',
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>',
    ]
    for value in steps:
        x, y = at(first, value)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{_PLOT}" y2="{y}" stroke="#e4e4e4"/>')
        parts.append(svg_text(x - 6, y + 4, f"{value:.4g}", anchor="end"))
    for place, text in _thinned(ticks):
        parts.append(svg_text(at(place, low)[0], floor + 16, text, anchor="middle"))
    parts.append(svg_text((_LEFT + _PLOT) / 2, floor + 36, x_label, anchor="middle"))
    turned = f'transform="translate(13 {(floor + _TOP) / 2}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>{escape(y_label)}</text>")
    if diagonal:
        (x1, y1), (x2, y2) = at(first, low), at(last, high)
        parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#999" stroke-dasharray="2 3"/>')
    for place, (label, line) in enumerate(lines.items()):
        look = _look(place, line)
        parts += [f'<polyline points="{piece}" fill="none" {look}/>' for piece in _pieces(line, ticks, at)]
        colour = "#000000" if line.strong else COLOURS[place % 7]
        for x, y in (at(x, y) for x, y in sorted(line.points.items())):
            parts.append(f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>')
        y = _TOP + 8 + _LINE * place
        parts.append(f'<line x1="{_PLOT + 14}" y1="{y}" x2="{_PLOT + 44}" y2="{y}" {look}/>')
        parts.append(svg_text(_PLOT + 50, y + 4, label if len(label) <= 28 else label[:27] + "…"))
    return "\n".join(("<figure>", *parts, f"</svg><figcaption>{escape(title)}</figcaption></figure>\n"))


def round_steps(low: float, high: float) -> list[float]:
    """Four to eight round numbers, evenly apart, whose first and last enclose the range from ``low`` to ``high``."""
    width = (high - low) / 5
    scale = 10.0 ** math.floor(math.log10(width))
    step = next(size * scale for size in (1, 2, 2.5, 5, 10) if size * scale >= width * (1 - 1e-9))
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(start, end + 1)]


def _look(place: int, line: Line) -> str:
    """Colour and dashes: 28 lines in a row differ."""
    if line.strong:
        return 'stroke="#000000" stroke-width="3"'
    dash = _DASHES[place // 7 % len(_DASHES)]
    return f'stroke="{COLOURS[place % 7]}" stroke-width="1.5"' + (f' stroke-dasharray="{dash}"' if dash else "")


def _pieces(line: Line, ticks: Mapping[int, str], at: Callable[[float, float], tuple[float, float]]) -> list[str]:
    """Points of the line from gap to gap, as SVG writes them."""
    pieces: list[list[str]] = [[]]
    for place in sorted(ticks):
        if place in line.points:
            x, y = at(place, line.points[place])
            pieces[-1].append(f"{x},{y}")
        else:
            pieces.append([])
    return [" ".join(piece) for piece in pieces if len(piece) > 1]


def _thinned(ticks: Mapping[int, str]) -> Sequence[tuple[int, str]]:
    ordered = sorted(ticks.items())
    return ordered[:: math.ceil(len(ordered) / 12)]


def svg_text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    """A text at a place; ``anchor`` is "start", "middle" or "end"."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
