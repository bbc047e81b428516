"""Scores of single cases come back from their file as they were, and say whose they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from monai_fedlora.comparison.case_scores import CaseScore, case_scores, read_scores, write_scores
from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.runner import Task
from monai_fedlora.errors import FedLoraError

RUN = Run(method="dual_lora", seed=3)


def test_scores_are_read_as_they_were_written(tmp_path: Path) -> None:
    one = CaseScore(
        method="dual_lora",
        seed=3,
        repeat=1,
        fold=2,
        site="site-1",
        view="personal",
        patient="p, 1",
        case="p, 1-a",
        label="NOR",
        score=0.5,
        more={"dice_LV": None, "dice_RV": 0.25},
    )
    other = replace(one, view="new", cases=0, label="", score=None, more={"dice_LV": 1e-9})
    write_scores(tmp_path / "some" / "scores.csv", [one, other])
    assert read_scores(tmp_path / "some" / "scores.csv") == [one, replace(other, more={**other.more, "dice_RV": None})]
    assert (tmp_path / "some" / "scores.csv").stat().st_mode & 0o077 == 0


def test_no_score_is_no_error(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", [])
    assert read_scores(tmp_path / "scores.csv") == []


@pytest.mark.parametrize("text", ["", "case,score\na,1\n", "\0"])
def test_another_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(f"{text}\nx,y\n", encoding="utf-8")
    with pytest.raises(FedLoraError, match=r"scores\.csv"):
        read_scores(path)
    with pytest.raises(FedLoraError, match=r"missing\.csv"):
        read_scores(tmp_path / "missing.csv")


def test_a_score_has_its_patient_and_the_name_of_its_class(make_task: Callable[..., Task], tmp_path: Path) -> None:
    datalist = make_task(tmp_path, "local").datalists["site-1"]
    first, second = datalist.test[:2]
    several = replace(datalist, test=(replace(first, unit="lesion"), second))
    rows = [{"view": "shared", "case": each.subject, "score": "1"} for each in several.test]
    found = case_scores(RUN, several, rows)
    assert [each.patient for each in found] == ["lesion", second.subject]
    assert [each.label for each in found] == [datalist.classes[first.label], datalist.classes[second.label]]
    assert {(each.method, each.seed, each.site, each.view) for each in found} == {("dual_lora", 3, "site-1", "shared")}
    free = replace(several, test=tuple(replace(case, label=-1) for case in several.test))
    assert case_scores(RUN, free, rows, view="new", cases=4)[0] == replace(found[0], view="new", cases=4, label="")
