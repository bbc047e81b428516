"""The figures of a report, each as one SVG image."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from monai_fedlora.comparison.results import PERSONAL, Row, by_site_and_seed, chosen
from monai_fedlora.comparison.statistics import KEY, Summary

LABEL = "balanced accuracy"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
"""Okabe and Ito's palette, which readers with any colour vision can tell apart; brown in place of yellow (ours)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def style(place: int) -> dict[str, str]:
    """Colour and marker of the method at a place in the list; no two of 64 are the same."""
    return {"color": COLOURS[place % 8], "marker": MARKERS[(place + place // 8) % 8]}


def draw(width: float, height: float, plot: Callable[[Any], None]) -> str:
    """Draw with matplotlib and return SVG text; the same plot gives the same text.

    Args:
        width, height: in inches.
        plot: is given an axes.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.hashsalt": "monai-fedlora",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        plot(figure.subplots())
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def seeds_figure(rows: Sequence[Row], summaries: Sequence[Summary], *, chance: float) -> str:
    """Mean over sites and worst site of every method: a mark per seed, a bar at their mean, whiskers of one spread."""

    def plot(axes: Any) -> None:
        for place, summary in enumerate(summaries):
            values = by_site_and_seed(chosen(rows, method=summary.method, view=PERSONAL), KEY)
            seeds = dict.fromkeys(seed for _, seed in values)
            found = [[v for (_, s), v in values.items() if s == seed] for seed in seeds]
            marks = (("mean over sites", fmean, -0.12, COLOURS[0], "o"), ("worst site", min, 0.18, COLOURS[1], "v"))
            for label, kind, shift, colour, marker in marks:
                points, at = [kind(each) for each in found], place + shift
                label = label if place == 0 else "_"
                axes.scatter(points, [at] * len(points), s=22, color=colour, marker=marker, label=label)
                if points:
                    axes.plot([fmean(points)] * 2, [at - 0.13, at + 0.13], color=colour)
                if len(points) > 1:
                    axes.errorbar(fmean(points), at, xerr=stdev(points), color=colour, capsize=2, linewidth=0.8)
        axes.axvline(chance, color="0.6", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(summaries)), [summary.method for summary in summaries])
        axes.invert_yaxis()
        axes.set_xlabel(f"{LABEL}: a mark per seed, their mean and standard deviation; dotted: chance with all classes")
        axes.grid(axis="x", color="0.92")
        axes.set_axisbelow(True)
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    return draw(7, 1.2 + 0.34 * len(summaries), plot)


def sites_figure(summaries: Sequence[Summary], sites: Sequence[str], counts: Sequence[int]) -> str:
    """A heat map: methods by sites, mean over seeds, with the number in each cell."""
    values = np.array([[s.sites[site].mean if site in s.sites else np.nan for site in sites] for s in summaries])

    def plot(axes: Any) -> None:
        low, high = (float(np.nanmin(values)), float(np.nanmax(values))) if np.isfinite(values).any() else (0, 1)
        shown = axes.imshow(values, cmap="Blues", vmin=low, vmax=max(high, low + 1e-6), aspect="auto")
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                ink = _readable(shown.cmap(shown.norm(value)))
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=9)
        axes.figure.colorbar(shown, ax=axes, label=LABEL, shrink=0.9)
        axes.set_xticks(range(len(sites)), [f"{site}\n{n} test cases" for site, n in zip(sites, counts, strict=True)])
        axes.set_yticks(range(len(summaries)), [summary.method for summary in summaries])
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw(max(5.0, 2.6 + 1.25 * len(sites)), 0.9 + 0.32 * len(summaries), plot)


def _readable(colour: Sequence[float]) -> str:
    """Black or white, whichever has the greater contrast (WCAG 2) on a colour (red, green, blue in [0, 1], ...)."""
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def unseen_figure(summaries: Sequence[Summary], *, chance: float) -> str:
    """What a new site gets with more and more cases of its own, a line per method."""

    def plot(axes: Any) -> None:
        ticks = sorted({n for summary in summaries for n in summary.unseen})
        for place, summary in enumerate(summaries):
            points = sorted(summary.unseen.items())
            if points:
                aside = 0.3 * (place / max(len(summaries) - 1, 1) - 0.5)
                axes.errorbar(
                    [ticks.index(n) + aside for n, _ in points],
                    [found.mean for _, found in points],
                    [found.spread or 0.0 for _, found in points],
                    label=summary.method,
                    capsize=2,
                    linewidth=1.2,
                    markersize=5,
                    **style(place),
                )
        axes.axhline(chance, color="0.6", linestyle=":", linewidth=1)
        axes.set_xticks(range(len(ticks)), [f"{n}" if n else "at once" for n in ticks])
        axes.set_xlabel("training cases of the new site that its private part has seen")
        axes.set_ylabel(f"{LABEL}\n(mean over held-out sites, bars: spread over seeds)")
        _legend(axes)

    return draw(7.5, 3.8, plot)


def traffic_figure(summaries: Sequence[Summary], traffic: Sequence[int | None]) -> str:
    """Bytes per site and round against the score.

    Args:
        summaries: the methods.
        traffic: bytes up and down of each; None for a method that is no federation.
    """
    known = [count for count in traffic if count]
    nothing = min(known, default=1) / 4

    def plot(axes: Any) -> None:
        for place, (summary, count) in enumerate(zip(summaries, traffic, strict=True)):
            if summary.score and count is not None:
                axes.errorbar(
                    max(count, nothing),
                    summary.score.mean,
                    summary.score.spread or 0.0,
                    linestyle="none",
                    label=summary.method,
                    capsize=2,
                    **style(place),
                )
        axes.set_xscale("log")
        if 0 in traffic:
            axes.axvspan(nothing / 1.6, nothing * 1.6, color="0.95", zorder=0)
            axes.annotate(
                "nothing\nis sent", (nothing, 0.02), xycoords=("data", "axes fraction"), ha="center", fontsize=8
            )
        axes.set_xlabel("bytes per site and round, up and down")
        axes.set_ylabel(f"{LABEL}\n(mean over sites, bars: spread over seeds)")
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        _legend(axes)

    return draw(7.5, 3.8, plot)


def _legend(axes: Any) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
