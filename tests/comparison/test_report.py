"""The report and the tables say what was found, to whoever opens them, and ask nobody else for anything."""

from __future__ import annotations

import csv
import dataclasses
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.comparison import method_figures
from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.method_page import page, write_report
from monai_fedlora.comparison.outcome import Outcome
from monai_fedlora.comparison.outcome_files import write_files
from monai_fedlora.comparison.runner import Failure, Task
from monai_fedlora.comparison.statistics import Average, written
from monai_fedlora.files import read_json
from monai_fedlora.tasks.known import TASKS
from tests.comparison.conftest import Score, invented
from tests.rendering.reading import Page as Reading

METHODS = ("dual_lora", "fedit", "local", "centralised")
LEVEL = {"dual_lora": 0.8, "fedit": 0.7, "local": 0.79, "centralised": 0.9}


def score(run: Run, site: str, view: str, cases: int | None) -> float:
    """Site-2 is the worst, a second seed is 0.02 better, and cases of a new site help."""
    return LEVEL[run.method] - 0.1 * (site == "site-2") + 0.02 * run.seed + 0.01 * (cases or 0) - 0.2 * (view == "new")


@pytest.fixture
def make_outcome(make_task: Callable[..., Task], tmp_path: Path) -> Callable[..., Outcome]:
    def make(
        *methods: str,
        score: Score = score,
        failures: tuple[Failure, ...] = (),
        key: str = "balanced_accuracy",
        **changes: Any,
    ) -> Outcome:
        settings = {"seeds": (0, 1), "unseen": ("site-1", "site-2"), **changes}
        task = make_task(tmp_path, *(methods or METHODS), **settings)
        return Outcome(
            comparison=task.comparison,
            datalists=task.datalists,
            backbone="backbone.safetensors",
            is_demo=False,
            results=invented(task.comparison, score, key=key),
            failures=failures,
        )

    return make


class Page(Reading):
    """A page whose rows are found by their first cell."""

    def row(self, first: str, under: str = "Result") -> list[str]:
        """The one row of the tables below a heading that starts so."""
        (row,) = [
            row
            for caption, rows in self.tables.items()
            for row in rows
            if row[0] == first and self.sections[caption].startswith(under)
        ]
        return row


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.usefixtures("no_figures")
def test_the_main_table_has_means_worst_sites_and_bytes(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome()
    found = Page(page(outcome))
    facts = outcome.comparison.facts["dual_lora"]
    mean = 0.8 - 0.1 / 3 + 0.01
    assert found.row("dual_lora") == [
        "dual_lora",
        f"{mean:.3f} ± 0.014",
        "0.710 ± 0.014 (site-2)",
        f"{mean:.3f} ± 0.014",
        f"{mean:.3f} ± 0.014",
        f"{facts.bytes_up:,}",
        f"{facts.bytes_down:,}",
        "50",
    ]
    assert found.row("centralised")[4:7] == [f"{0.9 - 0.1 / 3 + 0.01:.3f} ± 0.014", "n/a", "n/a"]
    assert found.row("local")[4:7] == ["n/a", "0", "0"]


def answers(outcome: Outcome, share: dict[str, float], *, patients: int = 60, **more: Any) -> Outcome:
    """The outcome with scores of so many patients of each class and site, a share of them right with every method."""
    scores = [
        CaseScore(
            method=run.method,
            seed=run.seed,
            site=site,
            **{"view": "personal", **more},
            patient=f"{label}{n}",
            case=f"{label}{n}",
            label=label,
            score=float(random.Random(f"{n} {label} {site}").random() < share[run.method] + 0.01 * run.seed),
        )
        for run in outcome.results
        if not run.held_out
        for site in outcome.comparison.sites
        for label in outcome.comparison.classes
        for n in range(patients)
    ]
    return dataclasses.replace(outcome, scores=scores)


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_only_a_method_whose_interval_excludes_the_next_is_bold(make_outcome: Callable[..., Outcome]) -> None:
    close = page(answers(make_outcome("dual_lora", "local"), {"dual_lora": 0.7, "local": 0.698}))
    assert "dual_lora is highest, but these patients and runs do not tell it from local (" in close
    assert len(re.findall(r"<td><b>0\.", close)) == 0
    clear = page(answers(make_outcome("dual_lora", "fedit"), {"dual_lora": 0.8, "fedit": 0.6}))
    assert "dual_lora is highest, and its interval excludes the next, fedit (+0." in clear
    assert len(re.findall(r"<td><b>0\.", clear)) == 1
    once = make_outcome("dual_lora", "local", seeds=(0,))
    alone = answers(once, {"dual_lora": 0.7, "local": 0.6})
    assert alone.differences[0].here.p is None
    assert "before local; one run does not tell" in page(alone)
    assert "nobody can say how much is chance" in page(once)
    twice = make_outcome("dual_lora", "local")
    few = page(answers(twice, {"dual_lora": 1.0, "local": -1.0}, patients=2))
    assert "so few patients do not tell" in few


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_differences_come_with_intervals_and_what_they_are_about(
    make_outcome: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = answers(make_outcome(), {"dual_lora": 0.8, "fedit": 0.6, "local": 0.79, "centralised": 0.9})
    text = page(outcome)
    fedit, local, _ = outcome.differences
    row = Page(text).row("fedit", "Differences")
    low, high = fedit.here.low, fedit.here.high
    assert low is not None
    assert high is not None
    assert row[:3] == ["fedit", f"{fedit.difference:+.3f}", f"{low:+.3f} to {high:+.3f}"]
    assert row[-2:] == ["360", "2"]
    assert high < 0
    assert local.here.low is not None
    assert local.here.low < 0 < local.difference + 0.05
    assert f"detectable difference in balanced accuracy {outcome.detectable:.3f}" in text
    assert "about <b>these sites</b>" in text
    assert "about <b>other hospitals</b>" in text
    assert "One run tells nothing" not in text
    write_files(outcome, tmp_path)
    table = {line["method"]: line for line in read_csv(tmp_path / "table.csv")}
    assert float(table["fedit"]["low"]) == pytest.approx(low, abs=1e-6)
    assert table["fedit"]["elsewhere_p"] == table["dual_lora"]["low"] == ""
    assert [line["best_and_interval_excludes_next"] for line in table.values()] == ["False", "False", "False", "True"]
    single = read_csv(tmp_path / "single_runs.csv")
    assert len(single) == 2 * 3 * 3  # seeds, sites, methods
    assert {line["cases"] for line in single} == {"120"}
    stored = read_json(tmp_path / "comparison.json")
    assert stored["differences"][0]["here"]["high"] == pytest.approx(high)
    assert stored["best_and_next"]["method"] == "centralised"
    assert "Differences to" not in page(make_outcome("dual_lora"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_new_site_is_shown_at_once_and_with_its_cases(make_outcome: Callable[..., Outcome]) -> None:
    found = Page(page(make_outcome()))
    head = "A hospital that did not take part"
    assert found.row("dual_lora", head)[1:] == ["0.560 ± 0.014", "0.580 ± 0.014", "0.600 ± 0.014", "the federation's"]
    assert found.row("local", head)[1:] == ["n/a", "0.570 ± 0.014", "0.590 ± 0.014", "trained there"]
    assert found.row("fedit", head)[1:] == ["0.460 ± 0.014", "n/a", "n/a", "the federation's"]
    assert head not in page(make_outcome(unseen=()))
    share = {"dual_lora": 0.8, "fedit": 0.6, "local": 0.7, "centralised": 0.9}
    known = answers(make_outcome(), share, view="new", cases=2)
    row = Page(page(known)).row("detectable difference", head)
    assert row[1:] == ["n/a", f"{known.detectable_unseen(2):.3f}", "n/a", ""]
    gain = known.joined("dual_lora", 2)
    assert gain is not None
    assert gain.here.low is not None
    assert 0 < gain.here.low < gain.difference
    (joined,) = [
        rows for caption, rows in Page(page(known)).tables.items() if "minus that of training alone" in caption
    ]
    (row,) = [row for row in joined if row[0] == "dual_lora"]
    assert row[1].startswith(f"{gain.difference:+.3f} ({gain.here.low:+.3f} to ")
    assert row[2] == "n/a"


@pytest.mark.slow
def test_the_page_asks_no_other_machine_for_anything(make_outcome: Callable[..., Outcome], tmp_path: Path) -> None:
    path = write_report(make_outcome(), tmp_path)
    found = Page(path.read_text(encoding="utf-8"))
    found.assert_self_contained()
    assert [tag for tag, name, _ in found.attributes if name == "src"] == ["img"] * 4


@pytest.mark.usefixtures("no_figures")
def test_names_cannot_become_markup(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome(
        "fedit", failures=(Failure(Run(method="fedit", seed=9), "<script>alert(1)</script> & more"),)
    )
    text = page(dataclasses.replace(outcome, backbone="<b>.safetensors"))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "&lt;b&gt;.safetensors" in text


@pytest.mark.usefixtures("no_figures")
def test_a_site_with_one_class_has_no_mean_over_classes(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome("fedit", unseen=())
    results = {
        run: {
            **result,
            "metrics": [
                {**entry, **({"balanced_accuracy": None} if entry["site"] == "site-2" else {})}
                for entry in result["metrics"]
            ],
        }
        for run, result in outcome.results.items()
    }
    found = dataclasses.replace(outcome, results=results)
    assert found.summaries[0].sites.keys() == {"site-1", "site-3"}
    assert "a site with test cases of a single class has none" in page(found)


@pytest.mark.parametrize("classes", [33, 100])
@pytest.mark.usefixtures("no_figures")
def test_many_classes_are_compared(make_outcome: Callable[..., Outcome], classes: int) -> None:
    names = tuple(f"class-{n}" for n in range(classes))
    outcome = make_outcome("fedit", unseen=(), classes=names)
    wide = {
        site: dataclasses.replace(each, classes=names, test=each.test[:1]) for site, each in outcome.datalists.items()
    }
    text = page(dataclasses.replace(outcome, datalists=wide))
    assert f"{classes} classes (class-0" in text
    assert outcome.measures.chance == 1 / classes


@pytest.mark.usefixtures("no_figures")
def test_a_cross_validation_counts_every_case_once(make_outcome: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = make_outcome("fedit", folds=2, repeats=2, unseen=())
    scores = [
        CaseScore(
            method="fedit",
            seed=run.seed,
            repeat=run.repeat or 0,
            fold=run.fold or 0,
            site=site,
            view="personal",
            patient=case.subject,
            case=case.subject,
            label=each.classes[case.label],
            score=float(case.label == run.repeat),
        )
        for run in outcome.results
        for site, datalist in outcome.datalists.items()
        for each in [outcome.comparison.split(datalist, run)]
        for case in each.test
    ]
    outcome = dataclasses.replace(outcome, scores=scores)
    text = page(outcome)
    assert Page(text).row("fedit")[1] == "0.500 ± 0.000"
    assert "divided into 2 parts, by patient and class, 2 times" in text
    assert Page(text).row("site-1", "By site")[-1] == "4 / 4"
    assert "all seeds are tested on the same 24 cases" in text
    write_files(outcome, tmp_path)
    lines = read_csv(tmp_path / "results.csv")
    assert {(line["repeat"], line["fold"]) for line in lines} == {(r, f) for r in "01" for f in "01"}


@pytest.mark.parametrize("task", ["segmentation", "regression"])
@pytest.mark.usefixtures("no_figures")
def test_other_tasks_are_compared_by_their_own_measure(
    make_outcome: Callable[..., Outcome], tmp_path: Path, task: str
) -> None:
    known = TASKS[task]

    def other(run: Run, site: str, view: str, cases: int | None) -> float:
        value = score(run, site, view, cases)
        return 1 - value if known.lower_is_better else value

    outcome = make_outcome("fedit", "local", task=task, classes=("LV", "RV"), score=other, key=known.key)
    text = page(outcome)
    mean = outcome.summaries[0].score
    assert mean is not None
    assert Page(text).row("fedit")[1] == written(mean)
    assert Page(text).row("fedit")[2].endswith("(site-2)")
    assert f"{known.word[0].upper()}{known.word[1:]} of the personal models" in text
    assert ("Lower is better" in text) is known.lower_is_better
    assert "classes" not in re.sub("<style.*?</style>", "", text, flags=re.DOTALL).lower()
    assert "balanced accuracy" not in text.lower()
    write_files(outcome, tmp_path)
    (first, _) = read_csv(tmp_path / "table.csv")
    assert float(first[known.key]) == pytest.approx(mean.mean, abs=1e-6)
    assert {"segmentation": "dice_LV", "regression": "mean_absolute_error_LV"}[task] in first
    assert read_json(tmp_path / "comparison.json")["settings"]["task"] == task


@pytest.mark.usefixtures("no_figures")
def test_missing_failed_and_refused_runs_are_named(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome("dual_lora", "fedit", unseen=())
    results = dict(outcome.results)
    lost = Run(method="fedit", seed=1)
    del results[lost]
    kept = Run(method="dual_lora", seed=0)
    results[kept] = {**results[kept], "refused": [{"round": 2, "site": "site-3", "reason": "too large"}]}
    text = page(dataclasses.replace(outcome, results=results, failures=(Failure(lost, "diverged"),)))
    assert "1 of 4 runs have no result" in text
    assert Page(text).row("fedit-seed1", "2 methods") == ["fedit-seed1", "diverged"]
    assert "dual_lora-seed0, round 2: the update of site-3 was left out: too large" in text


@pytest.mark.usefixtures("no_figures")
def test_the_settings_and_who_cannot_keep_features_are_said(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome("fedit", "fedavg", score=lambda *_: 0.5, unseen=())
    text = page(outcome)
    assert outcome.comparison.backbone_sha256 in text
    assert "It is off for fedavg, where" in text
    assert "cache_features=False" in Page(text).row("fedavg", "Settings")[4]
    assert "synthetic images" not in text
    assert "synthetic images" in page(dataclasses.replace(outcome, is_demo=True))


@pytest.mark.usefixtures("no_figures")
def test_classes_with_few_test_cases_are_named(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome("fedit", unseen=())
    assert "have site-1: NOR, ABN; site-2: NOR, ABN; site-3:" in page(outcome)
    enough = {
        site: dataclasses.replace(
            each, test=tuple(dataclasses.replace(each.test[0], subject=f"s{i}", label=i % 2) for i in range(10))
        )
        for site, each in outcome.datalists.items()
    }
    assert "Fewer than" not in page(dataclasses.replace(outcome, datalists=enough))


@pytest.mark.slow
def test_metrics_that_are_defined_nowhere_leave_a_report(make_outcome: Callable[..., Outcome]) -> None:
    found = Page(page(make_outcome("dual_lora", "fedit", score=lambda *_: None)))
    assert found.row("dual_lora")[1:5] == ["n/a"] * 4


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_the_tables_hold_the_same_numbers(make_outcome: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = make_outcome()
    write_files(outcome, tmp_path)
    table = {row["method"]: row for row in read_csv(tmp_path / "table.csv")}
    assert list(table) == list(METHODS)
    assert float(table["dual_lora"]["balanced_accuracy"]) == pytest.approx(0.8 - 0.1 / 3 + 0.01, abs=1e-6)
    assert float(table["dual_lora"]["worst_site_balanced_accuracy"]) == pytest.approx(0.71)
    assert float(table["dual_lora"]["balanced_accuracy_at_site-2"]) == pytest.approx(0.71)
    assert float(table["dual_lora"]["unseen_site_balanced_accuracy_after_4_cases"]) == pytest.approx(0.6)
    assert table["local"]["shared_only_balanced_accuracy"] == ""
    assert table["centralised"]["bytes_up_per_site_and_round"] == ""
    lines = read_csv(tmp_path / "results.csv")
    assert len(lines) == len(outcome.rows)
    first = lines[0]
    assert (first["method"], first["seed"], first["site"], first["view"], first["training_cases"]) == (
        "dual_lora",
        "0",
        "site-1",
        "personal",
        "",
    )
    assert {line["training_cases"] for line in lines if line["view"] == "new"} == {"0", "2", "4"}
    value = read_json(tmp_path / "comparison.json")
    assert value["summaries"][0]["score"]["mean"] == pytest.approx(0.8 - 0.1 / 3 + 0.01)
    assert value["settings"]["methods"]["dual_lora"]["training"]["cache_features"] is True
    assert value["missing_runs"] == 0
    assert value["cases"]["site-1"]["training"] == [2, 2]


@pytest.mark.slow
def test_a_figure_is_the_same_text_every_time(make_outcome: Callable[..., Outcome]) -> None:
    outcome = make_outcome()
    drawn = [
        [
            method_figures.seeds_figure(outcome),
            method_figures.sites_figure(outcome),
            method_figures.unseen_figure(outcome),
            method_figures.traffic_figure(outcome),
        ]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert len({figure.svg for figure in drawn[0] if figure}) == 4


def test_numbers_are_written_with_their_spread() -> None:
    assert written(None) == "n/a"
    assert written(Average(mean=0.5, spread=None)) == "0.500"
    assert written(Average(mean=0.5, spread=0.0123)) == "0.500 ± 0.012"
