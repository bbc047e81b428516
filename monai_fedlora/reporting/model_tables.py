"""The tables of a run's report that are made from the sites' personal models, where these are available."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from monai_fedlora.data.origin import UNKNOWN
from monai_fedlora.exporting.leakage import Leakage
from monai_fedlora.rendering.tables import MISSING, Table, shown
from monai_fedlora.reporting.found_run import Bin, FoundRun
from monai_fedlora.reporting.run_tables import mean_of
from monai_fedlora.reporting.subspaces import Overlap


def images(run: FoundRun) -> Table:
    """Kind and data set of each site's training images."""
    rows = []
    for site in run.record.sites:
        origin = run.personal[site].origin if site in run.personal else None
        called = ", ".join(filter(None, (origin.name, origin.source))) if origin else ""
        kind = run.record.site_images.get(site, origin.kind if origin else UNKNOWN)
        rows.append([site, kind, called or MISSING])
    return Table(
        caption="As each site says; names of data sets are known where the models of sites lie here, and do not travel",
        head=["site", "images", "data set"],
        rows=rows,
        text=True,
    )


def reliability(curves: Mapping[str, Mapping[int, Bin]]) -> Table:
    """Share of correct predictions by site and confidence."""
    rows = [
        [site, place + 1, found.cases, shown(found.confidence), shown(found.accuracy)]
        for site, bins in curves.items()
        for place, found in sorted(bins.items())
    ]
    return Table(
        caption="Reliability of the personal models on the test split, from the predictions that each site keeps",
        head=["site", "bin of 15", "cases", "mean confidence", "share right"],
        rows=rows,
    )


def leakage(audits: Mapping[str, Leakage], *, caption: str) -> Table:
    """Results of the privacy audits, the strongest attack of each site first."""
    rows = [
        [
            site,
            attack.target,
            attack.name,
            ", ".join(attack.members),
            f"{attack.n_members} / {attack.n_others}",
            f"{attack.auc:.3f} ({attack.interval_95[0]:.3f} to {attack.interval_95[1]:.3f})",
            f"{attack.tpr:.3f} at {attack.fpr:.4f}",
        ]
        for site, audit in audits.items()
        for attack in audit.attacks
    ]
    return Table(
        caption=caption,
        head=["site", "attack on", "by", "members", "members / others", "AUC (95 %)", "TPR at FPR"],
        rows=rows,
    )


def overlaps(run: FoundRun) -> list[Table]:
    """Overlap of the shared and the private update by layer, a table per site."""
    measured = ("overlap", "angles (degrees)")
    head = ["layer", "columns: dimensions", *measured, "rows: dimensions", *measured]
    tables = []
    for site, personal in run.personal.items():
        rows = [[layer, *_overlap(columns), *_overlap(rows)] for layer, (columns, rows) in personal.overlaps.items()]
        means = [shown(mean_of([pair[side].share for pair in personal.overlaps.values()])) for side in (0, 1)]
        rows.append(["mean", "", means[0], "", "", means[1], ""])
        caption = f"{site}: shared against private update, layer by layer; angles are smallest, mean and largest"
        if personal.overlaps:
            tables.append(Table(caption=caption, head=head, rows=rows))
    return tables


def _overlap(found: Overlap) -> list[str]:
    dims = f"{found.dims[0]} and {found.dims[1]} of {found.ambient}"
    if found.share is None:
        return [dims, MISSING, MISSING]
    angles = (found.angles[0], fmean(found.angles), found.angles[-1])
    return [dims, f"{found.share:.3f} ({found.by_chance:.3f})", " / ".join(f"{angle:.1f}" for angle in angles)]
