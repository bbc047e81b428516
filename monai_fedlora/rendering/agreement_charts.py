"""Charts of how well measured numbers agree with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai_fedlora.rendering.drawing import COLOURS, Figure, draw, short, style


def difference_chart(
    pairs: Mapping[str, Sequence[tuple[float, float]]],
    *,
    bias: float,
    limits: tuple[float, float] | None,
    title: str,
    description: str,
    unit: str,
) -> Figure | None:
    """Draw differences against means, with their bias and limits of agreement (Bland and Altman 1986).

    Args:
        pairs: measured number and reference of each patient, by group; None is returned if there are none.
        bias: a line at this difference.
        limits: two dashed lines; None for too few patients.
        title, description: see :class:`monai_fedlora.rendering.drawing.Figure`.
        unit: of the numbers.
    """
    groups = {name: points for name, points in pairs.items() if points}
    if not groups:
        return None

    def plot(axes: Any) -> None:
        for number, (name, points) in enumerate(groups.items()):
            means = [(found + truth) / 2 for found, truth in points]
            differences = [found - truth for found, truth in points]
            look = style(number)
            axes.scatter(means, differences, s=18, color=look["color"], marker=look["marker"], label=short(name))
        axes.axhline(0.0, color="0.7", linewidth=0.8)
        axes.axhline(bias, color="black", linewidth=1.3)
        for limit in limits or ():
            axes.axhline(limit, color="black", linestyle="--", linewidth=1)
        lines = [(bias, f"bias {bias:+.1f}"), *((limit, f"{limit:+.1f}") for limit in limits or ())]
        for height, words in lines:
            axes.annotate(words, (1.0, height), xycoords=("axes fraction", "data"), xytext=(4, 0),
                          textcoords="offset points", va="center", fontsize=8)  # fmt: skip
        axes.set_xlabel(f"Mean of both ({unit})")
        axes.set_ylabel(f"Measured minus reference ({unit})")
        if len(groups) > 1:
            axes.legend(frameon=False, fontsize=8, ncols=len(groups), loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return draw(plot, title=title, description=description)


def box_chart(
    values: Mapping[str, Sequence[float]],
    *,
    title: str,
    description: str,
    label: str,
    ends: tuple[float, float] | None = None,
) -> Figure | None:
    """Draw the quartiles of numbers and every single one, a box for each name.

    Args:
        values: numbers by name, from top to bottom; None is returned if there are none. Whiskers end at the farthest
            number within 1.5 box lengths.
        title, description: see :class:`monai_fedlora.rendering.drawing.Figure`.
        label: of the x axis.
        ends: limits of the x axis; None chooses them by the values.
    """
    if not any(values.values()):
        return None

    def plot(axes: Any) -> None:
        places = range(len(values))
        boxes = axes.boxplot(
            [list(numbers) for numbers in values.values()],
            positions=places, orientation="horizontal", widths=0.5, showfliers=False, manage_ticks=False,
        )  # fmt: skip
        for line in boxes["medians"]:
            line.set(color=COLOURS[1], linewidth=2)
        for place, numbers in zip(places, values.values(), strict=True):
            axes.scatter(numbers, [place] * len(numbers), s=10, color=COLOURS[0], alpha=0.4, linewidths=0)
        axes.set_xlim(ends)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.set_yticks(places, [short(name) for name in values])
        axes.set_xlabel(label)
        axes.grid(axis="x")

    return draw(plot, title=title, description=description, height=1.1 + 0.4 * len(values))
