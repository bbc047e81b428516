"""The report of a run: one HTML file that opens anywhere, without any request to another machine."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from statistics import fmean
from typing import Any

from monai_fedlora import __version__
from monai_fedlora.comparison.markup import MISSING, document, plural, table
from monai_fedlora.comparison.statistics import lowest
from monai_fedlora.data.origin import MIXED, REAL, SYNTHETIC, UNKNOWN, together
from monai_fedlora.export.personal_or_shared import SHARED, TIE, judged
from monai_fedlora.reporting import figures
from monai_fedlora.reporting.figures import KEY, VIEWS, label, mean_of, view_values
from monai_fedlora.reporting.record import OFF, ON, Answer, Metrics, Record, Round
from monai_fedlora.reporting.run import FoundRun
from monai_fedlora.reporting.subspaces import Overlap

_METRICS = {
    KEY: "balanced accuracy",
    "auroc": "AUROC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "mcc": "MCC",
    "ece": "ECE",
}


def page(run: FoundRun) -> str:
    """The report's HTML."""
    record = run.record
    parts = [
        _head(run),
        _images(run),
        _result(run),
        _sites(record),
        _curves(record),
        _calibration(run),
        _confusion(record),
    ]
    parts += [
        _leakage(run),
        _traffic(record),
        _agreement(record),
        _overlaps(run),
        _limits(record),
        _refused(record),
        _settings(record),
    ]
    return document(_title(record), "<main>\n" + "\n".join(part for part in parts if part) + "\n</main>")


def _title(record: Record) -> str:
    return f"{record.plan.get('experiment', 'run')}: {record.plan.get('method', 'unknown method')} at " + plural(
        len(record.sites), "site"
    )


def _head(run: FoundRun) -> str:
    record = run.record
    done = len(record.rounds)
    said = f"<h1>{escape(_title(record))}</h1>\n"
    if record.status == "site":
        known = ", ".join(map(escape, record.final))
        return said + (
            f'<p class="warn">There is no record of the server here. This page says what the models of {known} '
            "themselves hold: their evaluation at the end, and nothing about rounds or other sites.</p>\n"
        )
    planned = "" if record.last is None else f", planned up to round {record.last}"
    seconds = "" if record.seconds is None else f", {record.seconds:,.0f} seconds"
    said += f"<p>{plural(done, 'round')}{planned}, {len(record.classes)} classes{seconds}.</p>\n"
    if record.status == "incomplete":
        said += f'<p class="warn">This run came to its end incomplete: {escape("; ".join(record.lacks))}.</p>\n'
    elif record.status != "finished":
        answered = len(record.rounds[-1].answers) if record.rounds else 0
        latest = record.rounds[-1].number + 1 if record.rounds else 0
        said += (
            f'<p class="warn">This run is not finished: its record ends in round {latest} '
            f"with {plural(answered, 'answer')}, and {len(record.final)} of {len(record.sites)} sites have a final "
            "evaluation.</p>\n"
        )
    for line in record.restarted:
        said += f'<p class="warn">{escape(line)}.</p>\n'
    for site, why in run.passed_over.items():
        said += f'<p class="warn">The model of {escape(site)} was passed over: {escape(why)}.</p>\n'
    return said


def _result(run: FoundRun) -> str:
    record = run.record
    tested = {site: record.final[site].test for site in record.sites if site in record.final}
    views = [view for view in (ON, OFF) if any(view in found for found in tested.values())]
    if not views:
        return "<h2>Result</h2>\n<p>No site has an evaluation of its test cases yet.</p>\n"
    said = "<h2>Result</h2>\n"
    personal = {site: found[ON].values[KEY] for site, found in tested.items() if KEY in found.get(ON, Metrics()).values}
    if personal:
        worst = lowest(personal)
        named = " and ".join(f"<b>{escape(site)}</b>" for site in worst)
        is_worst = f"the worst site is {named}" if len(worst) == 1 else f"the worst sites tie: {named}"
        said += (
            f"<p>Mean balanced accuracy {fmean(personal.values()):.3f} over {plural(len(personal), 'site')}, each with "
            f"the same weight; {is_worst} with {personal[worst[0]]:.3f}.</p>\n"
        )
    for site, each in tested.items():
        if ON in each and OFF in each:
            personal_model = run.personal.get(site)
            entry = judged(_plain(each[ON]), _plain(each[OFF]), pairs=personal_model.pairs if personal_model else None)
            if entry["better"] in (SHARED, TIE):
                offer = "; export --site shared gives the shared one" if entry["better"] == SHARED else ""
                said += f'<p class="warn">{escape(site)}: {escape(entry["said"])}{offer}.</p>\n'
    for view in views:
        found = {site: each[view] for site, each in tested.items() if view in each}
        rows: list[list[Any]] = [
            [site, _count(metrics.n), *(_shown(metrics.values.get(name)) for name in _METRICS)]
            for site, metrics in found.items()
        ]
        means = [mean_of([m.values.get(name) for m in found.values()]) for name in _METRICS]
        rows.append(["mean", "", *map(_shown, means)])
        caption = f"Test split, {VIEWS[view]}; {MISSING}: undefined there, and left out of the mean"
        said += table(["site", "cases", *_METRICS.values()], rows, caption=caption)
    return said + figures.test_scores(record)


def _plain(metrics: Metrics) -> dict[str, Any]:
    return {**metrics.values, "n": metrics.n, "confusion_matrix": [list(row) for row in metrics.confusion]}


def _images(run: FoundRun) -> str:
    """Whether what was trained has seen synthetic or real images, first of all."""
    record = run.record
    kinds = {site: found.images for site, found in run.personal.items()}
    kind = record.images or together(kinds.values())
    called = {
        site: ", ".join(filter(None, (found.origin.name, found.origin.source))) for site, found in run.personal.items()
    }
    said = "<h2>Training images</h2>\n"
    warn = kind in (SYNTHETIC, MIXED)
    said += f"<p{' class=warn' if warn else ''}>{_SAID[kind]}</p>\n"
    if record.start:
        said += f"<p>The shared part started from {escape(record.start)}.</p>\n"
    rows = [
        [
            site,
            record.site_images.get(site, run.personal[site].origin.kind if site in run.personal else UNKNOWN),
            called.get(site) or MISSING,
        ]
        for site in record.sites
    ]
    caption = "As each site says; names of data sets are known where the models of sites lie here, and do not travel"
    return said + table(["site", "images", "data set"], rows, text=True, caption=caption)


_SAID = {
    SYNTHETIC: "All training images were synthetic: no number here says anything about real patients.",
    MIXED: "Some of the training images were synthetic: what is shared was moved by them at every site.",
    REAL: "All training images were real, as the sites say.",
    UNKNOWN: "Whether the training images were real or synthetic is not known of all sites.",
}


def _sites(record: Record) -> str:
    rows = []
    for site in record.sites:
        answers = [entry.answers[site] for entry in record.rounds if site in entry.answers]
        final = record.final.get(site, Answer())
        cases = [each.cases for each in (final, *reversed(answers)) if each.cases is not None]
        splits = [
            _cases(final, split) or next(filter(None, (_cases(a, split) for a in answers)), None) for split in SPLITS
        ]
        trained = sum(each.train_loss is not None for each in answers)
        refused = sum(each.site == site for each in record.refused)
        seconds = sum(each.seconds or 0.0 for each in (*answers, final))
        rows.append(
            [site, _count(cases[0] if cases else None), *map(_count, splits), trained, refused, f"{seconds:,.0f}"]
        )
    head = ["site", "training cases", "validation cases", "test cases", "rounds answered", "refused", "seconds"]
    return "<h2>Sites and cases</h2>\n" + table(head, rows, caption="What each site has, and how often it took part")


SPLITS = ("validation", "test")


def _cases(answer: Answer, split: str) -> int | None:
    return next((metrics.n for metrics in getattr(answer, split).values() if metrics.n is not None), None)


def _curves(record: Record) -> str:
    if not record.rounds:
        return ""
    said = (
        "<h2>Learning curves</h2>\n<p class='note'>Balanced accuracy on each site's validation cases of the model that "
        "it received: before the first round, after each, and at the end.</p>\n"
    )
    for view in (ON, OFF):
        said += figures.curve(record, view)
    rows = []
    for stage, values in figures.stages(record).items():
        cells = [
            " / ".join(_shown(view_values(values, view, KEY).get(site)) for view in (ON, OFF)) for site in record.sites
        ]
        means = (mean_of(list(view_values(values, view, KEY).values())) for view in (ON, OFF))
        rows.append([label(stage), *cells, " / ".join(map(_shown, means))])
    caption = "Validation balanced accuracy, private part on / off"
    said += table(["rounds so far", *record.sites, "mean"], rows, caption=caption)
    losses = [
        [entry.number + 1, *(_shown(entry.answers.get(site, Answer()).train_loss) for site in record.sites)]
        for entry in record.rounds
    ]
    said += figures.losses(record)
    return said + table(["round", *record.sites], losses, caption="Mean training loss of each round")


def _calibration(run: FoundRun) -> str:
    record = run.record
    rows = [
        [site, *(_shown(record.final[site].test.get(view, Metrics()).values.get("ece")) for view in (ON, OFF))]
        for site in record.sites
        if site in record.final
    ]
    if not rows:
        return ""
    caption = "Expected calibration error on the test split: 0 is perfect"
    said = "<h2>Calibration</h2>\n" + table(["site", "private part on", "private part off"], rows, caption=caption)
    curves = {site: found.reliability for site, found in run.personal.items() if found.reliability}
    if not curves:
        return said + '<p class="note">The predictions of single cases are not here, so that there are no curves.</p>\n'
    said += figures.reliability(curves)
    bins = [
        [site, place + 1, found.cases, f"{found.confidence:.3f}", f"{found.accuracy:.3f}"]
        for site, each in curves.items()
        for place, found in sorted(each.items())
    ]
    return said + table(
        ["site", "bin of 15", "cases", "mean confidence", "share right"],
        bins,
        caption="Reliability of the personal models on the test split, from the predictions that each site keeps",
    )


def _confusion(record: Record) -> str:
    said = ""
    for site in record.sites:
        for view, metrics in record.final.get(site, Answer()).test.items():
            size = len(metrics.confusion)
            names = record.classes if len(record.classes) == size else tuple(f"class {n + 1}" for n in range(size))
            rows = [[name, *row, sum(row)] for name, row in zip(names, metrics.confusion, strict=True)]
            if rows:
                caption = f"{site}, test split, {VIEWS[view]}: a row per true, a column per predicted class"
                said += table(["true class", *names, "all"], rows, caption=caption)
    return f"<h2>Confusion matrices</h2>\n{said}" if said else ""


def _leakage(run: FoundRun) -> str:
    """The audits' figures, the strongest attack of each site first."""
    audits = {site: found.leakage for site, found in run.personal.items() if found.leakage is not None}
    if not audits:
        return ""
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
        for site, leakage in audits.items()
        for attack in leakage.attacks
    ]
    said = (
        "<h2>Measured leakage</h2>\n<p class='note'>How well attacks tell the patients behind a site's model from "
        "others, as monai-fedlora audit has measured it. An AUC of 0.5 is guessing, 1 is certainty; that no attack "
        "finds more is no proof that none can.</p>\n"
    )
    for site, leakage in audits.items():
        for warning in leakage.warnings:
            said += f'<p class="warn">{escape(site)}: {escape(warning)}.</p>\n'
    head = ["site", "attack on", "by", "members", "members / others", "AUC (95 %)", "TPR at FPR"]
    return said + table(head, rows, caption="Membership inference, by patient")


def _traffic(record: Record) -> str:
    if record.status == "site":
        return ""
    said = "<h2>Bytes</h2>\n"
    if record.payload is not None:
        said += f"<p>The tensors that a site sends in a round take {record.payload:,} bytes, without framing.</p>\n"
    counted = [
        e for e in record.rounds if any(a.sent is not None or a.received is not None for a in e.answers.values())
    ]
    if not counted:
        return said + "<p>Messages were not counted: the run went through no network, or no round was closed.</p>\n"
    rows: list[list[Any]] = []
    for entry in counted:
        found = [entry.answers.get(site, Answer()) for site in record.sites]
        rows.append([entry.number + 1, *(f"{_count(a.sent)} / {_count(a.received)}" for a in found)])
    totals = [[e.answers.get(site, Answer()) for e in counted] for site in record.sites]
    rows.append(["all", *(f"{sum(a.sent or 0 for a in t):,} / {sum(a.received or 0 for a in t):,}" for t in totals)])
    return said + table(["round", *record.sites], rows, caption="Bytes of all messages, sent / received by the site")


def _agreement(record: Record) -> str:
    known = [entry for entry in record.rounds if entry.agreement is not None]
    if not known:
        return ""
    said = (
        "<h2>How the sites' changes agree</h2>\n<p class='note'>Cosine between the changes that two sites made to the "
        "shared tensors in a round, as the server decoded them: 1 for the same direction, 0 for unrelated ones, -1 for "
        "opposite ones. Lengths are Euclidean.</p>\n"
    )
    said += figures.agreement(record)
    return said + "".join(_agreement_table(entry) for entry in known)


def _agreement_table(entry: Round) -> str:
    agreement = entry.agreement
    if agreement is None:
        return ""
    sites = agreement.sites

    def cell(one: str, other: str) -> str:
        if one == other:
            return ""
        value = agreement.cosines.get((one, other), agreement.cosines.get((other, one)))
        return MISSING if value is None else f"{value:+.3f}"

    rows = [[one, _shown(agreement.norms.get(one), ".4g"), *(cell(one, other) for other in sites)] for one in sites]
    caption = f"Round {entry.number + 1}: length of each site's change, and its cosine to each other"
    return table(["site", "length", *sites], rows, caption=caption)


def _overlaps(run: FoundRun) -> str:
    found = {site: personal.overlaps for site, personal in run.personal.items() if personal.overlaps}
    said = "<h2>Shared and private subspaces</h2>\n"
    if not found:
        if not run.personal:
            return said + "<p>There are no personal models here to look into.</p>\n"
        return said + "<p>No layer of the models here has both a shared and a private adapter.</p>\n"
    said += (
        "<p class='note'>Each adapter adds B A to a layer's weights. Below are the principal angles between what the "
        "shared and the private one span: columns are what they can add to a layer's output, rows what they read of "
        "its input. The overlap is the mean squared cosine, 0 for orthogonal subspaces and 1 for the same; by chance "
        "it would be about the number in brackets. Computed from the personal models on this machine; they do not "
        "travel.</p>\n"
    )
    head = [
        "layer",
        "columns: dimensions",
        "overlap",
        "angles (degrees)",
        "rows: dimensions",
        "overlap",
        "angles (degrees)",
    ]
    for site, layers in found.items():
        rows = [[layer, *_overlap(columns), *_overlap(rows)] for layer, (columns, rows) in layers.items()]
        shares = [mean_of([pair[side].share for pair in layers.values()]) for side in (0, 1)]
        rows.append(["mean", "", _shown(shares[0]), "", "", _shown(shares[1]), ""])
        caption = f"{site}: shared against private update, layer by layer; angles are smallest, mean and largest"
        said += table(head, rows, caption=caption)
    return said


def _overlap(found: Overlap) -> list[str]:
    dims = f"{found.dims[0]} and {found.dims[1]} of {found.ambient}"
    if found.share is None:
        return [dims, MISSING, MISSING]
    angles = (found.angles[0], fmean(found.angles), found.angles[-1])
    return [dims, f"{found.share:.3f} ({found.by_chance:.3f})", " / ".join(f"{angle:.1f}" for angle in angles)]


def _limits(record: Record) -> str:
    rounds = [(entry.number + 1, entry.limits) for entry in record.rounds if entry.limits is not None]
    if not rounds:
        return ""
    said = "<h2>Limits on one site's part</h2>\n"
    if free := [str(number) for number, limits in rounds if limits.longest is None]:
        said += (
            f"<p>In {'rounds' if len(free) > 1 else 'round'} {', '.join(free)} there were too few changes to say how "
            "long a usual one is, so that only the absolute limit held.</p>\n"
        )
    cut: list[list[Any]] = [
        [number, site, _shown(length, ".4g"), _shown(limits.usual, ".4g"), _shown(limits.longest, ".4g"), f"{kept:.2%}"]
        for number, limits in rounds
        for site, (length, kept) in limits.clipped.items()
    ]
    weighed: list[list[Any]] = [
        [number, site, _count(claimed), _count(counted)]
        for number, limits in rounds
        for site, (claimed, counted) in limits.weights.items()
    ]
    if cut:
        head = ["round", "site", "length", "median", "bound", "counted"]
        said += table(head, cut, caption="Changes above the bound, which were clipped to it")
    if weighed:
        caption = "Undeclared training cases that weighed less than claimed; job --cases declares them"
        said += table(["round", "site", "claimed", "counted"], weighed, caption=caption)
    return said if cut or weighed else said + "<p>No change was clipped, and all cases counted as claimed.</p>\n"


def _refused(record: Record) -> str:
    if record.status == "site":
        return ""
    if not record.refused:
        return "<h2>Refused</h2>\n<p>Every answer counted.</p>\n"
    rows = [[MISSING if e.round is None else e.round + 1, e.site, e.reason] for e in record.refused]
    return "<h2>Refused</h2>\n" + table(
        ["round", "site", "why"], rows, text=True, caption="Answers that were left out of their round"
    )


def _settings(record: Record) -> str:
    rows = [[name, _setting(value)] for name, value in record.plan.items()]
    rows += [["written by version", record.version or MISSING], ["page made by version", __version__]]
    return "<h2>Settings</h2>\n" + table(["setting", "value"], rows, text=True, caption="The plan of the run")


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_setting(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _shown(value: float | None, form: str = ".3f") -> str:
    return MISSING if value is None else format(value, form)


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"
