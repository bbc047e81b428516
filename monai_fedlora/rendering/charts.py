"""The kinds of charts in reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from monai_fedlora.rendering.drawing import COLOURS, MARKERS, Figure, draw, legend, short, style

_MOST_TICKS = 12


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        points: values by position on the x axis; a missing one leaves a gap.
        spread: half the height of the error bar, by position.
        strong: whether the line is emphasised.
    """

    points: Mapping[int, float]
    spread: Mapping[int, float] = field(default_factory=dict)
    strong: bool = False


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the number.
        low, high: ends of the interval.
        marks: the single values behind the number, if they are to be shown.
    """

    value: float
    low: float
    high: float
    marks: Sequence[float] = ()


def line_chart(
    lines: Mapping[str, Line],
    *,
    title: str,
    description: str,
    ticks: Mapping[int, str],
    x_label: str,
    y_label: str,
    low: float | None = None,
    high: float | None = None,
    reference: Mapping[int, float] | None = None,
) -> Figure | None:
    """Draw lines with common positions on the x axis; None if no line has a point.

    Args:
        lines: by their name in the legend.
        title, description: see :class:`monai_fedlora.rendering.drawing.Figure`.
        ticks: labels of the positions on the x axis.
        low, high: limits of the y axis; None chooses them by the values.
        reference: a dotted line that is not in the legend, such as chance, by position.
    """
    places = sorted(ticks)
    if not places or not any(line.points for line in lines.values()):
        return None
    apart = 0.3 / max(len(lines) - 1, 1) if any(line.spread for line in lines.values()) else 0.0

    def plot(axes: Any) -> None:
        handles = {}
        for number, (name, line) in enumerate(lines.items()):
            look = {"color": "black", "marker": "o"} if line.strong else style(number)
            handles[name] = axes.errorbar(
                [place + apart * (number - (len(lines) - 1) / 2) for place in places],
                [line.points.get(place, np.nan) for place in places],
                [line.spread.get(place, 0.0) for place in places] if line.spread else None,
                capsize=2,
                linewidth=2.5 if line.strong else 1.2,
                markersize=4,
                **look,
            )
        axes.set_ylim(low, high)
        if reference:
            axes.plot(list(reference), list(reference.values()), ":", color="0.5", linewidth=1)
        shown = places[:: -(-len(places) // _MOST_TICKS)]
        axes.set_xticks(shown, [ticks[place] for place in shown])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="y")
        legend(axes, handles)

    return draw(plot, title=title, description=description, height=max(3.2, 0.8 + 0.17 * len(lines)))


def forest_plot(
    rows: Mapping[str, Sequence[Estimate | None]],
    *,
    series: Sequence[str],
    title: str,
    description: str,
    x_label: str,
    ends: tuple[float, float] | None = None,
    chance: float | None = None,
) -> Figure | None:
    """Draw estimates with their intervals, a row for each name; None if there is no estimate.

    Args:
        rows: by their name, one estimate for each of ``series``; None for one that is not known.
        series: names in the legend.
        title, description: see :class:`monai_fedlora.rendering.drawing.Figure`.
        ends: limits of the x axis; None chooses them by the values.
        chance: position of a dotted line.
    """
    if not any(estimate for estimates in rows.values() for estimate in estimates):
        return None

    def plot(axes: Any) -> None:
        handles = {}
        for place, name in enumerate(series):
            shift = 0.26 * (place - (len(series) - 1) / 2)
            found = [(row + shift, e) for row, estimates in enumerate(rows.values()) if (e := estimates[place])]
            heights, values = [y for y, _ in found], [e.value for _, e in found]
            colour, marker = COLOURS[place], MARKERS[place]
            axes.hlines(heights, [e.low for _, e in found], [e.high for _, e in found], color=colour, linewidth=1.3)
            for y, each in found:
                axes.scatter(each.marks, [y] * len(each.marks), s=26, marker=marker, edgecolor=colour, facecolor="none")
            handles[name] = axes.scatter(values, heights, s=26, color=colour, marker=marker, zorder=3)
        if chance is not None:
            axes.axvline(chance, color="0.5", linestyle=":", linewidth=1)
        axes.set_xlim(ends)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [short(name) for name in rows])
        axes.set_xlabel(x_label)
        axes.grid(axis="x")
        legend(axes, handles, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    height = 1.1 + (0.14 + 0.16 * len(series)) * len(rows)
    return draw(plot, title=title, description=description, height=height)


def heat_map(
    values: Mapping[str, Sequence[float | None]],
    *,
    columns: Sequence[str],
    title: str,
    description: str,
    label: str,
) -> Figure | None:
    """Draw numbers by row and column on shades of blue; None if there are none.

    Args:
        values: rows by their name, a number for each column; None leaves a cell empty.
        columns: their names; a line break is kept.
        title, description: see :class:`monai_fedlora.rendering.drawing.Figure`.
        label: label of the colour bar.
    """
    cells = np.array([[np.nan if value is None else value for value in row] for row in values.values()], dtype=float)
    if not np.isfinite(cells).any():
        return None

    def plot(axes: Any) -> None:
        low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
        shown = axes.pcolormesh(cells, cmap="Blues", vmin=low, vmax=max(high, low + 1e-6))
        for (row, column), value in np.ndenumerate(cells):
            if np.isfinite(value):
                ink = _readable(shown.cmap(shown.norm(value)))
                axes.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", color=ink)
        axes.figure.colorbar(shown, ax=axes, label=label, shrink=0.9)
        lines = ["\n".join(map(short, name.split("\n"))) for name in columns]
        axes.set_xticks(np.arange(len(columns)) + 0.5, lines)
        axes.set_yticks(np.arange(len(values)) + 0.5, [short(name) for name in values])
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    width = min(max(5.0, 2.6 + 1.25 * len(columns)), 20.0)
    return draw(plot, title=title, description=description, width=width, height=0.9 + 0.32 * len(values))


def _readable(colour: Sequence[float]) -> str:
    """Black or white, whichever has the greater contrast (WCAG 2) on a colour (red, green, blue in [0, 1], ...)."""
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"
