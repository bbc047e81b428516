"""What the measurements say together: medians, slopes, a table and two figures."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from _frameworks.floors import slope

Row = dict[str, Any]
_PLACE = ("system", "sites", "cases")
_HIGHEST = ("peak_bytes", "processes")


def merged(rows: Sequence[Row]) -> list[Row]:
    """One row for all repeats of the same: medians, and the highest of what is a peak."""
    places: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if "failed" not in row:
            places.setdefault(tuple(row[key] for key in _PLACE), []).append(row)
    found = []
    for place, repeats in places.items():
        values = {
            key: (max if key in _HIGHEST else statistics.median)(row[key] for row in repeats)
            for key in repeats[0]
            if key not in (*_PLACE, "repeat")
        }
        found.append({**dict(zip(_PLACE, place, strict=True)), "repeats": len(repeats), **values})
    return found


def slopes(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """Growth with every site more, and with every case more, by system.

    Args:
        rows: see :func:`merged`.
    """
    found = {}
    for system in dict.fromkeys(row["system"] for row in rows):
        own = [row for row in rows if row["system"] == system]
        cases, sites = (min(row[key] for row in own) for key in ("cases", "sites"))
        by_sites = [row for row in own if row["cases"] == cases]
        by_cases = [row for row in own if row["sites"] == sites]
        found[system] = {
            "round_seconds_per_site": slope([(row["sites"], row["round_seconds"]) for row in by_sites]),
            "beyond_training_seconds_per_site": slope(
                [(row["sites"], row["beyond_training_seconds"]) for row in by_sites]
            ),
            "peak_bytes_per_site": slope([(row["sites"], row["peak_bytes"]) for row in by_sites]),
            "epoch_seconds_per_case": slope([(row["cases"], row["epoch_seconds"]) for row in by_cases]),
            "peak_bytes_per_case": slope([(row["cases"], row["peak_bytes"]) for row in by_cases]),
        }
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each row, with all columns that one of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def figure(rows: Sequence[Row], key: str, *, scale: float, label: str, unit: str) -> str:
    """A value against the number of sites as SVG text, a line for each system with its slope.

    Args:
        rows: see :func:`merged`.
        key: of the value.
        scale: what it is divided by.
        label: of the axis.
        unit: of the divided value.
    """
    from monai_fedlora.rendering.drawing import draw, legend, log_ticks, style

    cases = min(row["cases"] for row in rows)
    systems = list(dict.fromkeys(row["system"] for row in rows))

    def plot(axes: Any) -> None:
        handles = {}
        for place, system in enumerate(systems):
            points = sorted(
                (row["sites"], row[key] / scale) for row in rows if row["system"] == system and row["cases"] == cases
            )
            grows = slope(points)
            said = f"{system}: {grows:.3g} {unit} per site" if grows is not None else system
            (handles[said],) = axes.plot(*zip(*points, strict=True), linewidth=1, markersize=5, **style(place))
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        log_ticks(axes.yaxis)
        ticks = sorted({row["sites"] for row in rows if row["cases"] == cases})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel(f"sites, each with {cases} cases")
        axes.set_ylabel(f"{label}, {unit}")
        axes.grid()
        legend(axes, handles, longest=60)

    said = f"{unit} of {', '.join(systems)}, with {cases} cases at each site; the table beside has every number"
    return draw(plot, title=f"{label} by number of sites", description=said, width=8.5, height=3.8).svg
