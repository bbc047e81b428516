"""Numbers with their intervals as SVG, a row for each: a forest plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from monai_fedlora.comparison.figures import COLOURS
from monai_fedlora.reporting.svg import svg_text

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP, _BOTTOM = 760, 170, 700, 20, 34, 44
_APART = 6


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number in [0, 1] and its interval.

    Attributes:
        value: the number.
        low, high: ends of the interval.
    """

    value: float
    low: float
    high: float


def forest_plot(
    name: str,
    rows: Mapping[str, Sequence[Estimate | None]],
    *,
    series: Sequence[str],
    title: str,
    description: str,
    x_label: str,
    chance: float | None = None,
) -> str:
    """Draw estimates between 0 and 1 with whiskers.

    Args:
        name: of the plot, unique on its page, of letters, digits and dashes.
        rows: by their name, one estimate for each of ``series``; None for one that is not known.
        series: names in the legend.
        title: the caption.
        description: read aloud in place of the picture.
        x_label: below the axis.
        chance: where a dotted line stands.

    Returns:
        A ``figure``, or nothing where there is no estimate.
    """
    if not any(estimate for estimates in rows.values() for estimate in estimates):
        return ""
    each = max(_ROW, 12 * len(series) + 8)
    floor = _TOP + each * len(rows)

    def across(value: float) -> float:
        return round(_LEFT + value * (_RIGHT - _LEFT), 1)

    parts = [
        f'<svg role="img" aria-labelledby="{name}-title {name}-text" viewBox="0 0 {_WIDTH} {floor + _BOTTOM}" '
        f'width="{_WIDTH}" style="max-width: 100%; height: auto" font-size="12" '
        'font-family="system-ui, sans-serif" fill="#1a1a1a">',
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(description)}</desc>',
    ]
    for place, label in enumerate(series):
        at = _LEFT + 190 * place
        parts += [_mark(at, 12, place), svg_text(at + 10, 16, label)]
    for step in range(6):
        x = across(step / 5)
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{floor}" stroke="#e4e4e4"/>')
        parts.append(svg_text(x, floor + 16, f"{step / 5:g}", anchor="middle"))
    if chance is not None:
        x = across(chance)
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{floor}" stroke="#666" stroke-dasharray="2 3"/>')
    parts.append(svg_text((_LEFT + _RIGHT) / 2, floor + 36, x_label, anchor="middle"))
    for row, (label, estimates) in enumerate(rows.items()):
        middle = _TOP + each * (row + 0.5)
        parts.append(svg_text(_LEFT - 12, middle + 4, label if len(label) <= 24 else label[:23] + "…", anchor="end"))
        for place, estimate in enumerate(estimates):
            if estimate:
                y = middle + 2 * _APART * (place - (len(series) - 1) / 2)
                ends = f'x1="{across(estimate.low)}" y1="{y}" x2="{across(estimate.high)}" y2="{y}"'
                parts.append(f'<line {ends} stroke="{COLOURS[place]}" stroke-width="1.5"/>')
                parts.append(_mark(across(estimate.value), y, place))
    return "\n".join(("<figure>", *parts, f"</svg><figcaption>{escape(title)}</figcaption></figure>\n"))


def _mark(x: float, y: float, place: int) -> str:
    """A filled circle for the first series, squares for the others: colour alone tells nothing apart."""
    if place == 0:
        return f'<circle cx="{x}" cy="{y}" r="4" fill="{COLOURS[place]}"/>'
    return f'<rect x="{x - 4}" y="{y - 4}" width="8" height="8" fill="{COLOURS[place]}"/>'
