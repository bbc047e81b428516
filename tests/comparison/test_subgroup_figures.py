"""Figures of subgroups are those of their patients alone, and a gap is told beside what chance gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.patient_draws import cases_tested
from monai_fedlora.comparison.result_rows import key_of
from monai_fedlora.comparison.subgroup_figures import NOT_GIVEN, SubgroupFigures, subgroup_columns, subgroup_figures
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.tasks.classification import CLASSIFICATION

CLASSES = ("NOR", "ABN")
MEASURES = Measures.of(CLASSIFICATION, CLASSES)

Sex = Callable[[int, int], str | None]


def alternate(n: int, label: int) -> str | None:
    return ("female", "male")[n % 2]


def site(name: str, sex: Sex = alternate, *, patients: int = 40) -> Datalist:
    cases = tuple(
        Case(
            subject=f"{CLASSES[label]}{n}",
            label=label,
            group="",
            image="a",
            subgroups=(("sex", said),) if (said := sex(n, label)) else (),
        )
        for label in range(2)
        for n in range(patients)
    )
    return Datalist(
        site=name,
        dataset="d",
        task="binary",
        classes=CLASSES,
        image_root=Path(),
        seed=0,
        training=cases[:1],
        test=cases[1:],
    )


def answers(
    datalists: dict[str, Datalist], right: dict[str, float], *, runs: int = 2, seed: int = 0
) -> list[CaseScore]:
    rng = np.random.default_rng(seed)
    return [
        CaseScore(
            method="fedit",
            seed=run,
            site=name,
            view="personal",
            patient=case.subject,
            case=case.subject,
            label=CLASSES[case.label],
            score=float(rng.random() < right[dict(case.subgroups).get("sex", NOT_GIVEN)]),
        )
        for run in range(runs)
        for name, datalist in datalists.items()
        for _, case in datalist.all_cases()
    ]


def figures(datalists: dict[str, Datalist], scores: list[CaseScore]) -> SubgroupFigures:
    return subgroup_figures("fedit", cases_tested(scores)["fedit"], "sex", datalists, MEASURES)


def test_a_figure_is_the_metric_of_the_subgroups_patients_of_all_sites() -> None:
    datalists = {name: site(name) for name in ("a", "b")}
    scores = answers(datalists, {"female": 0.9, "male": 0.6})
    found = figures(datalists, scores)
    assert subgroup_columns(datalists) == ["sex"]
    assert [(each.name, each.patients) for each in found.figures] == [("female", 80), ("male", 80)]
    for number, each in enumerate(found.figures):
        own = [score for score in scores if int(score.case[3:]) % 2 == number]
        by_run = [key_of([score for score in own if score.seed == run], MEASURES) or 0.0 for run in range(2)]
        assert each.value == pytest.approx(fmean(by_run))
        assert each.low is not None
        assert each.high is not None
        assert each.low < each.value < each.high
    assert (found.best, found.worst) == ("female", "male")
    assert found.gap == pytest.approx((found.figures[0].value or 0) - (found.figures[1].value or 0))
    assert found.by_chance is not None
    assert found.gap > found.by_chance


@pytest.mark.slow
def test_equal_subgroups_have_a_gap_that_chance_explains() -> None:
    datalists = {name: site(name, patients=16) for name in ("a", "b")}
    gaps = [figures(datalists, answers(datalists, {"female": 0.7, "male": 0.7}, seed=seed)) for seed in range(12)]
    assert sum((each.gap or 0) <= (each.by_chance or 0) for each in gaps) >= 10


def test_patients_of_whom_nothing_is_given_have_a_line_and_no_part_in_the_gap() -> None:
    datalists = {"a": site("a", lambda n, label: alternate(n, label) if n > 9 else None)}
    found = figures(datalists, answers(datalists, {"female": 0.8, "male": 0.8, NOT_GIVEN: 0.0}))
    assert [(each.name, each.patients) for each in found.figures] == [("female", 30), ("male", 30), (NOT_GIVEN, 20)]
    assert found.figures[2].value == 0.0
    assert {found.best, found.worst} == {"female", "male"}


def test_nothing_is_told_of_fewer_than_five_patients() -> None:
    datalists = {"a": site("a", lambda n, label: "other" if n < 2 else alternate(n, label))}
    found = figures(datalists, answers(datalists, {"female": 0.8, "male": 0.8, "other": 0.0}))
    other = found.figures[2]
    assert (other.name, other.patients, other.value, other.low) == ("other", None, None, None)
    assert "other" not in (found.best, found.worst)


def test_subgroups_are_compared_over_the_classes_that_all_have() -> None:
    datalists = {"a": site("a", lambda n, label: "male" if label else alternate(n, label))}
    scores = [s if s.label == "NOR" else _wrong(s) for s in answers(datalists, {"female": 1.0, "male": 1.0})]
    found = figures(datalists, scores)
    assert found.classes == ("NOR",)
    assert [each.value for each in found.figures] == pytest.approx([1.0, 1.0])
    assert found.gap == pytest.approx(0.0)
    assert found.figures[0].low is None


def _wrong(score: CaseScore) -> CaseScore:
    from dataclasses import replace

    return replace(score, score=0.0)
