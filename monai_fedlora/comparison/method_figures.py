"""The figures of a comparison's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_fedlora.comparison.outcome import Outcome
from monai_fedlora.comparison.result_rows import by_site_and_seed, chosen, mean_over_sites
from monai_fedlora.comparison.statistics import average
from monai_fedlora.rendering.charts import Estimate, Line, forest_plot, heat_map, line_chart
from monai_fedlora.rendering.drawing import Figure, draw, legend, log_ticks, style
from monai_fedlora.site_report import PERSONAL

_SAME = "The table above has the values."


def seeds_figure(outcome: Outcome) -> Figure | None:
    """Mean over sites and worst site of every method, a mark per seed."""
    rows, measures = {}, outcome.measures
    worst = max if measures.lower_is_better else min
    dotted = "" if measures.chance is None else "; dotted, chance with all classes"
    for method in outcome.comparison.methods:
        own = chosen(outcome.rows, method=method, view=PERSONAL)
        values = by_site_and_seed(own, measures.key)
        seeds = dict.fromkeys(seed for _, seed in values)
        by_seed = [[value for (_, seed), value in values.items() if seed == each] for each in seeds]
        means = mean_over_sites(own, measures.key, by_cases=measures.by_cases)
        rows[method] = [_estimate(means), _estimate(list(map(worst, by_seed)))]
    return forest_plot(
        rows,
        series=["mean over sites", "worst site"],
        title=f"{measures.title} of every method{outcome.of_images}: open, a mark per seed; filled, their "
        f"mean, with one standard deviation to each side{dotted}",
        description=_SAME,
        x_label=measures.word,
        chance=measures.chance,
    )


def _estimate(seeds: Sequence[float]) -> Estimate | None:
    found = average(seeds)
    if found is None:
        return None
    spread = found.spread or 0.0
    return Estimate(value=found.mean, low=found.mean - spread, high=found.mean + spread, marks=seeds)


def sites_figure(outcome: Outcome) -> Figure | None:
    """Methods by sites, mean over seeds."""
    sites = outcome.comparison.sites
    return heat_map(
        {s.method: [s.sites[site].mean if site in s.sites else None for site in sites] for s in outcome.summaries},
        columns=[f"{site}\n{sum(outcome.tested_at(site))} test cases" for site in sites],
        title=f"{outcome.measures.title} of every method at every site, mean over seeds{outcome.of_images}",
        description=" ".join(
            f"{s.method}: {', '.join(f'{found.mean:.2f} at {site}' for site, found in s.sites.items())}."
            for s in outcome.summaries
        ),
        label=outcome.measures.word,
    )


def unseen_figure(outcome: Outcome) -> Figure | None:
    """The key metric at a new site by the number of its own training cases, a line per method."""
    cases = sorted({n for summary in outcome.summaries for n in summary.unseen})
    measures = outcome.measures
    dotted = "" if measures.chance is None else "; dotted: chance"
    return line_chart(
        {
            s.method: Line(
                points={cases.index(n): found.mean for n, found in s.unseen.items()},
                spread={cases.index(n): found.spread or 0.0 for n, found in s.unseen.items()},
            )
            for s in outcome.summaries
        },
        title=f"{measures.title} at a site that was held out, by number of its own training cases; bars: "
        f"spread over seeds{dotted}",
        description=_SAME,
        ticks={place: str(n) if n else "at once" for place, n in enumerate(cases)},
        x_label="training cases of the new site that its private part has seen",
        y_label=f"{measures.word}, mean over held-out sites",
        reference=None if measures.chance is None else dict.fromkeys(range(len(cases)), measures.chance),
    )


def curve_figures(outcome: Outcome) -> list[Figure | None]:
    """The key metric by number of a site's own training patients, a line per method: over all sites, then at each."""
    comparison, measures = outcome.comparison, outcome.measures
    sites, cases = comparison.curve_sites, (*comparison.curve_cases, None)
    figures = []
    for site in (None, *sites) if len(sites) > 1 else sites:
        lines = {}
        for method in comparison.methods:
            found = {place: outcome.curve(method, n, site=site) for place, n in enumerate(cases)}
            known = {place: value for place, value in found.items() if value}
            lines[method] = Line(
                points={place: value.mean for place, value in known.items()},
                spread={place: value.spread or 0.0 for place, value in known.items()},
            )
        figures.append(
            line_chart(
                lines,
                title=f"{measures.title} {f'at {site}' if site else 'over all sites'}, by number of its own training "
                "patients; bars: spread over seeds",
                description=_SAME,
                ticks={place: str(n) if n else "all" for place, n in enumerate(cases)},
                x_label="training patients of the site",
                y_label=measures.word,
                reference=None if measures.chance is None else dict.fromkeys(range(len(cases)), measures.chance),
            )
        )
    return figures


def traffic_figure(outcome: Outcome) -> Figure | None:
    """Score by bytes per site and round; None where no method sends anything."""
    traffic = {summary.method: outcome.traffic(summary.method) for summary in outcome.summaries}
    bytes_of = {method: sum(found) for method, found in traffic.items() if found is not None}
    if not any(bytes_of.values()):
        return None
    nothing = min(filter(None, bytes_of.values())) / 4

    def plot(axes: Any) -> None:
        handles = {}
        for place, summary in enumerate(outcome.summaries):
            if summary.score and summary.method in bytes_of:
                handles[summary.method] = axes.errorbar(
                    bytes_of[summary.method] or nothing,
                    summary.score.mean,
                    summary.score.spread or 0.0,
                    linestyle="none",
                    capsize=2,
                    **style(place),
                )
        axes.set_xscale("log")
        log_ticks(axes.xaxis, "B")
        if 0 in bytes_of.values():
            axes.axvspan(nothing / 1.6, nothing * 1.6, color="0.95", zorder=0)
            axes.annotate("nothing\nis sent", (nothing, 0.02), xycoords=("data", "axes fraction"), ha="center", size=8)
        axes.set_xlabel("bytes per site and round, up and down")
        axes.set_ylabel(f"{outcome.measures.word}, mean over sites")
        axes.grid()
        legend(axes, handles)

    title = f"Bytes per site and round against {outcome.measures.word}; bars: spread over seeds"
    return draw(plot, title=title, description="The first table has the values.")
