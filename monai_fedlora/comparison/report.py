"""The report: one HTML file that a reader can open anywhere, without any request to another machine."""

from __future__ import annotations

from html import escape
from pathlib import Path

from monai_fedlora import __version__
from monai_fedlora.comparison import figures, markup
from monai_fedlora.comparison.outcome import JSON_NAME, ROWS_NAME, TABLE_NAME, Outcome
from monai_fedlora.comparison.results import PERSONAL, chosen
from monai_fedlora.comparison.statistics import smallest_p
from monai_fedlora.data.cases import SPLITS
from monai_fedlora.data.origin import MIXED, REAL, SYNTHETIC, UNKNOWN
from monai_fedlora.files import write_text
from monai_fedlora.methods.base import get_method

REPORT_NAME = "report.html"
FEW_CASES = 5
"""Test cases of a class below which a site's balanced accuracy hangs on single ones (ours)."""


def write_report(outcome: Outcome, folder: Path) -> Path:
    """Write ``report.html`` and return its path."""
    path = folder / REPORT_NAME
    write_text(path, page(outcome))
    return path


def page(outcome: Outcome) -> str:
    """The report's HTML."""
    parts = [_head(outcome), _main_table(outcome), _by_site(outcome), _tests(outcome), _unseen(outcome)]
    parts += [_traffic(outcome), _settings(outcome), _limits(outcome)]
    return markup.document(_title(outcome), "\n".join(part for part in parts if part))


def _title(outcome: Outcome) -> str:
    comparison = outcome.comparison
    methods, sites = markup.plural(len(comparison.methods), "method"), markup.plural(len(comparison.sites), "site")
    return f"{methods} at {sites}"


def _head(outcome: Outcome) -> str:
    comparison, first = outcome.comparison, outcome.ties
    epochs, seeds = markup.plural(comparison.local_epochs, "local epoch"), markup.plural(len(comparison.seeds), "seed")
    said = (
        f"<h1>{escape(_title(outcome))}</h1>\n<p>{len(comparison.classes)} classes ("
        f"{escape(', '.join(comparison.classes))}), backbone {escape(comparison.size)}, "
        f"{markup.plural(comparison.rounds, 'round')} of {epochs}, {seeds}. All methods ran on the same cases, splits "
        "and backbone, by the code that a federation between hospitals runs.</p>\n"
    )
    if first:
        said += f"<p>{escape(outcome.verdict)}</p>\n"
    said = said.replace("</h1>\n", f"</h1>\n{_images(outcome)}", 1)
    if outcome.missing:
        said += f'<p class="warn">{outcome.missing} of {len(comparison.runs())} runs have no result.</p>\n'
    if outcome.failures:
        said += '<p class="warn">Runs that ended with an error:</p>\n' + markup.table(
            ["run", "reason"], [[f.run.name, f.reason] for f in outcome.failures], text=True
        )
    return said


def _images(outcome: Outcome) -> str:
    """A warning where images are synthetic; a line where they are real or nobody knows."""
    said = {
        SYNTHETIC: "All images of this comparison are <b>synthetic</b>: its numbers say nothing about real patients.",
        MIXED: "Some of the images of this comparison are <b>synthetic</b>; see the data sets below.",
        REAL: "All images of this comparison are real, as their sites say.",
        UNKNOWN: "Whether the images of this comparison are real or synthetic is not known of all sites.",
    }[kind := outcome.images]
    return f"<p{' class=warn' if kind in (SYNTHETIC, MIXED) else ''}>{said}</p>\n"


def _main_table(outcome: Outcome) -> str:
    rows = []
    for summary in outcome.summaries:
        traffic, seconds = outcome.traffic(summary.method), outcome.seconds(summary.method)
        best = summary.method in outcome.ties
        sent = [markup.MISSING] * 2 if traffic is None else [f"{count:,}" for count in traffic]
        worst = f" ({summary.worst_site})" if summary.worst_site else ""
        rows.append(
            [
                summary.method,
                markup.Html(f"<b>{markup.number(summary.score)}</b>") if best else markup.number(summary.score),
                markup.number(summary.worst) + worst,
                markup.number(summary.auroc),
                markup.number(summary.shared),
                *sent,
                markup.MISSING if seconds is None else f"{seconds:,.0f}",
            ]
        )
    head = ["method", "balanced accuracy", "worst site", "AUROC", "shared model alone"]
    head += ["bytes up", "bytes down", "seconds per run"]
    marks = figures.seeds_figure(outcome.rows, outcome.summaries, chance=1 / len(outcome.comparison.classes))
    return (
        "<h2>Result</h2>\n"
        + markup.table(head, rows, caption=f"Test cases of the sites{outcome.of_images}")
        + '<p class="note">Means over sites, each site with the same weight, ± standard deviation over seeds. Bold: '
        "the best, and what lies within the larger standard deviation of the two (a tie). The worst site is taken "
        "anew for each seed; in brackets the site with the lowest mean. A class without test cases at a site is left "
        f"out of its balanced accuracy. {markup.MISSING}: the method has no model without its private parts, or is no "
        "federation. Bytes are those of the tensors, per site and round, without framing. Seconds are measured on "
        "this machine, without reading images and computing frozen features, which runs share.</p>\n"
        + markup.image(
            marks,
            f"Balanced accuracy of every method{outcome.of_images}: mean over sites and worst site, one mark per seed",
        )
    )


def _by_site(outcome: Outcome) -> str:
    sites = outcome.comparison.sites
    counts = [len(outcome.datalists[site].test) for site in sites]
    cases = [
        [site, outcome.datalists[site].dataset, outcome.datalists[site].origin.kind]
        + [" / ".join(map(str, outcome.datalists[site].counts(split))) for split in SPLITS]
        for site in sites
    ]
    classes = " / ".join(outcome.comparison.classes)
    return (
        "<h2>By site</h2>\n"
        + markup.image(
            figures.sites_figure(outcome.summaries, sites, counts),
            f"Balanced accuracy of every method at every site, mean over seeds{outcome.of_images}",
        )
        + f'<p class="note">Balanced accuracy of the personal models, mean over seeds. Cases per class '
        f"({escape(classes)}):</p>\n" + markup.table(["site", "data set", "images", *SPLITS], cases, text=True)
    )


def _tests(outcome: Outcome) -> str:
    if not outcome.tests:
        return ""
    sites = len(outcome.comparison.sites)
    rows = [
        [
            test.method,
            f"{test.difference:+.3f}",
            f"{test.higher} / {test.lower} of {test.pairs}",
            f"{test.p:.3g}",
            f"{test.p_holm:.3g}",
        ]
        for test in outcome.tests
    ]
    reference = escape(outcome.tests[0].reference)
    return (
        f"<h2>Differences to {reference}</h2>\n"
        + markup.table(["method", "mean difference", "better / worse", "p", "p after Holm"], rows)
        + f'<p class="note">Balanced accuracy at the same site with the same seed, method minus {reference}; two-sided '
        "Wilcoxon signed-rank test over all (site, seed) pairs, with Holm's correction for the number of methods. "
        "<b>These pairs are not independent</b>: the pairs of a site share its patients, and those of a seed its "
        "initial values. More seeds add pairs, but no patients, so that the p-values are smaller than they should be; "
        "read them as a description of these runs and not as evidence about other hospitals. Over the sites alone "
        f"({sites} independent pairs) this test cannot give less than {smallest_p(sites):.3g}.</p>\n"
    )


def _unseen(outcome: Outcome) -> str:
    comparison = outcome.comparison
    if not comparison.unseen:
        return ""
    columns = [n for n in (0, *comparison.new_site_cases) if any(n in s.unseen for s in outcome.summaries)]
    rows = [
        [
            s.method,
            *(markup.number(s.unseen.get(n)) for n in columns),
            "trained there" if comparison.facts[s.method].private_head else "the federation's",
        ]
        for s in outcome.summaries
    ]
    head = ["method", *("at once" if n == 0 else f"{n} cases" for n in columns), "head"]
    return (
        "<h2>A hospital that did not take part</h2>\n"
        + markup.table(head, rows)
        + markup.image(
            figures.unseen_figure(outcome.summaries, chance=1 / len(comparison.classes)),
            "Balanced accuracy at a site that was held out, by number of its own training cases",
        )
        + f'<p class="note">Each of {escape(", ".join(comparison.unseen))} is left out of the federation in turn. '
        "<i>At once</i> is the shared model as it comes. The other columns train nothing but the method's private "
        "part, from its initial values, on that many of the new site's training cases (the smaller sets are parts of "
        "the larger ones), with as many passes over them as a member made; what the method shares, with the head where "
        f"it shares that, stays what the federation made of it. {markup.MISSING}: the method's shared tensors are no "
        "model by themselves, it has no private part, or so few cases make fewer steps than its phases need. "
        "<i>local</i> trains everything on these cases alone.</p>\n"
    )


def _traffic(outcome: Outcome) -> str:
    counts = [None if (t := outcome.traffic(s.method)) is None else sum(t) for s in outcome.summaries]
    if not any(counts):
        return ""
    scatter = figures.traffic_figure(outcome.summaries, counts)
    return "<h2>What it costs to send</h2>\n" + markup.image(
        scatter, "Bytes per site and round against balanced accuracy"
    )


def _settings(outcome: Outcome) -> str:
    comparison = outcome.comparison
    common = [
        ["bundle", comparison.bundle],
        ["backbone", f"{comparison.size}, {'packaged demo weights' if outcome.is_demo else outcome.backbone}"],
        ["backbone SHA-256", comparison.backbone_sha256],
        ["classes", ", ".join(comparison.classes)],
        ["rounds, local epochs", f"{comparison.rounds}, {comparison.local_epochs}"],
        ["seeds", ", ".join(map(str, comparison.seeds))],
        ["version", __version__],
    ]
    rows = []
    for method in comparison.methods:
        facts = comparison.facts[method]
        own = {**comparison.method_args(method), **comparison.training(method)}
        rows.append(
            [
                method,
                get_method(method).summary,
                f"{facts.shared:,}",
                f"{facts.private:,}",
                ", ".join(f"{name}={value}" for name, value in own.items()),
            ]
        )
    full = [method for method in comparison.methods if not comparison.training(method)["cache_features"]]
    note = (
        '<p class="note">With <code>cache_features</code>, the output of the frozen blocks is computed once per image, '
        f"which changes no result beyond rounding. It is off for {escape(', '.join(full))}, where the whole network "
        "trains or images are augmented.</p>\n"
    )
    head = ["method", "what it does", "shared parameters", "private", "settings given"]
    tables = markup.table(["", ""], common, text=True) + markup.table(head, rows, text=True)
    return "<h2>Settings</h2>\n" + tables + (note if full else "")


def _limits(outcome: Outcome) -> str:
    tested = sum(len(outcome.datalists[site].test) for site in outcome.comparison.sites)
    refused = "".join(
        f"<p class='warn'>{escape(run.name)}, round {refusal['round']}: the update of {escape(str(refusal['site']))} "
        f"was left out: {escape(str(refusal['reason']))}</p>\n"
        for run, refusal in outcome.refused()
    )
    undefined = any(row.values["auroc"] is None for row in chosen(outcome.rows, view=PERSONAL))
    rare = "; ".join(f"{site}: {', '.join(names)}" for site, names in _rare_classes(outcome).items())
    return (
        "<h2>What these numbers do not say</h2>\n<p>The standard deviation over seeds is about initial values and the "
        "order of cases. It says nothing about other patients: all seeds are tested on the same "
        f"{tested} cases. Settings were not searched for each method, so that one with a better learning rate may rank "
        "differently."
        + (" The demo backbone is small and has seen synthetic images only; another may rank them otherwise.")
        * outcome.is_demo
        + (" AUROC is averaged over the sites where it is defined." if undefined else "")
        + "</p>\n"
        + (
            f"<p>Balanced accuracy gives every class of a site the same weight, however few its cases. Fewer than "
            f"{FEW_CASES} test cases, so that a single one moves the site's number by several hundredths, have "
            f"{escape(rare)}.</p>\n"
            if rare
            else ""
        )
        + f"{refused}<p class='note'>Numbers: <code>{TABLE_NAME}</code> (a row per method), <code>{ROWS_NAME}"
        f"</code> (a row per method, seed, site and view), <code>{JSON_NAME}</code>.</p>"
    )


def _rare_classes(outcome: Outcome) -> dict[str, list[str]]:
    """By site, the classes that have test cases, but fewer than :data:`FEW_CASES`."""
    classes = outcome.comparison.classes
    found = {
        site: [name for name, count in zip(classes, datalist.counts("test"), strict=True) if 0 < count < FEW_CASES]
        for site, datalist in outcome.datalists.items()
    }
    return {site: names for site, names in found.items() if names}
