"""Curves over the rounds of a federation, a line per site and one for their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from monai_fedlora.rendering.charts import Line, line_chart
from monai_fedlora.rendering.drawing import Figure

MEAN = "mean over sites"


def site_curves(
    found: Mapping[int, Mapping[str, float]],
    *,
    sites: Sequence[str],
    title: str,
    y_label: str,
    x_label: str = "rounds behind the model",
    rest: str = "",
    **options: Any,
) -> Figure | None:
    """Draw a number by round and site.

    Args:
        found: values by round and site; a missing one leaves a gap.
        sites: sites in the order of the legend.
        title, x_label, y_label: texts.
        rest: end of the description for screen readers.
        options: further arguments of :func:`monai_fedlora.rendering.charts.line_chart`.

    Returns:
        A figure, whose ``svg`` is its text; None if there is no value.

    Example:
        >>> figure = site_curves({0: {"north": 0.5}, 1: {"north": 0.75}}, sites=["north"], title="By round",
        ...                      y_label="balanced accuracy")
        >>> figure.description
        'The mean over sites is 0.500 at 0 and 0.750 at 1.'
    """
    lines = {site: Line(points={at: row[site] for at, row in found.items() if site in row}) for site in sites}
    means = {at: fmean(row.values()) for at, row in found.items() if row}
    if means:
        first, last = min(means), max(means)
        rest = f"The mean over sites is {means[first]:.3f} at {first} and {means[last]:.3f} at {last}. {rest}".strip()
    return line_chart(
        {**lines, MEAN: Line(points=means, strong=True)},
        title=title,
        description=rest,
        ticks={at: str(at) for at in found},
        x_label=x_label,
        y_label=y_label,
        **options,
    )
