"""Every patient is tested once per repeat, by models that have not seen the patient, with the classes in proportion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.compared_measures import Measures
from monai_fedlora.comparison.comparison_settings import Comparison
from monai_fedlora.comparison.cross_validation import check_folds, fold_of
from monai_fedlora.comparison.execute import execute
from monai_fedlora.comparison.result_rows import Row, over_folds
from monai_fedlora.comparison.runner import Task
from monai_fedlora.data.cases import NO_LABEL, SPLITS, Case, Datalist
from monai_fedlora.engines.memory import Memory
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.tasks.classification import CLASSIFICATION

CLASSES = ("NOR", "DCM", "HCM")


def site(patients: dict[str, tuple[int, int]], *, validation: bool = True) -> Datalist:
    """``patients`` has label and number of photographs of each."""
    cases = [
        Case(subject=f"{name}-{n}", unit=name if photographs > 1 else None, label=label, group=f"g{label}", image="a")
        for name, (label, photographs) in patients.items()
        for n in range(photographs)
    ]
    if not validation:
        return _listed(tuple(cases), ())
    held = {case.subject for case in cases if hash_free(case) % 5 == 0}
    return _listed(
        tuple(case for case in cases if case.subject not in held), tuple(case for case in cases if case.subject in held)
    )


def hash_free(case: Case) -> int:
    return sum(map(ord, case.unit or case.subject))


def _listed(training: tuple[Case, ...], validation: tuple[Case, ...]) -> Datalist:
    return Datalist(
        site="north",
        dataset="d",
        task="multiclass",
        classes=CLASSES,
        image_root=Path(),
        seed=0,
        training=training or validation,
        validation=validation if training else (),
    )


SITES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.tuples(st.integers(0, 2), st.integers(1, 3)),
    min_size=1,
    max_size=30,
).map(site)


@given(SITES, st.integers(2, 6), st.integers(0, 2))
def test_every_patient_is_tested_once_and_never_by_a_model_that_knows_them(
    datalist: Datalist, folds: int, repeat: int
) -> None:
    try:
        check_folds(datalist, folds)
    except ConfigError:
        return
    everything = Counter(case for _, case in datalist.all_cases())
    found = [fold_of(datalist, folds=folds, repeat=repeat, fold=fold) for fold in range(folds)]
    assert Counter(case for each in found for case in each.test) == everything
    sizes = []
    for each in found:
        assert Counter(case for _, case in each.all_cases()) == everything
        patients = {split: {case.unit or case.subject for case in each.cases(split)} for split in SPLITS}
        assert not patients["test"] & (patients["training"] | patients["validation"])
        assert not patients["training"] & patients["validation"]
        labels = {case.unit or case.subject: case.label for _, case in each.all_cases()}
        sizes.append(Counter(labels[patient] for patient in patients["test"]))
        assert each.training
        assert {case.label for case in each.training} == set(labels.values())
    for label in {case.label for case in everything}:
        assert max(size[label] for size in sizes) - min(size[label] for size in sizes) <= 1
    totals = [size.total() for size in sizes]
    assert max(totals) - min(totals) <= 1


def test_repeats_differ_and_each_is_always_the_same() -> None:
    datalist = site({f"p{n}": (n % 3, 1) for n in range(30)})
    parts = [fold_of(datalist, folds=5, repeat=repeat, fold=0) for repeat in (0, 1, 0)]
    assert parts[0] == parts[2]
    assert set(parts[0].test) != set(parts[1].test)
    turned = replace(datalist, training=datalist.training[::-1])
    assert set(fold_of(turned, folds=5, repeat=0, fold=0).test) == set(parts[0].test)


def test_the_share_of_validation_is_that_of_the_data() -> None:
    patients = {f"p{n}": (n % 3, 1) for n in range(60)}
    with_some = site(patients)
    share = len(with_some.validation) / 60
    found = fold_of(with_some, folds=4, repeat=0, fold=1)
    assert len(found.validation) == pytest.approx(share * 45, abs=3)
    assert not fold_of(site(patients, validation=False), folds=4, repeat=0, fold=1).validation


def test_what_cannot_be_divided_is_refused_with_the_reason() -> None:
    few = site({f"p{n}": (int(n > 3), 2) for n in range(9)})
    with pytest.raises(ConfigError, match=r"north has 4 patients of NOR, .*5 parts.*--splits 4 or fewer"):
        check_folds(few, 5)
    check_folds(few, 4)
    two = _listed(tuple(Case(subject=f"s{n}", unit="p", label=n, group="", image="a") for n in range(2)), ())
    with pytest.raises(DataError, match=r"north: the cases of p are of two classes, NOR and DCM"):
        check_folds(two, 2)
    free = _listed(tuple(Case(subject=f"s{n}", label=NO_LABEL, group=f"g{n}", image="a") for n in range(3)), ())
    with pytest.raises(ConfigError, match=r"north has 3 patients, .*4 parts"):
        check_folds(free, 4)
    check_folds(free, 3)


def test_runs_are_named_by_their_split_and_belong_to_it(make_task: Callable[..., Task], tmp_path: Path) -> None:
    comparison: Comparison = make_task(tmp_path, "fedit", "local", folds=2, repeats=2).comparison
    names = [run.name for run in comparison.runs()]
    assert names[:3] == ["fedit-seed0-split0.0", "local-seed0-split0.0", "fedit-seed0-split0.1"]
    assert len(set(names)) == 2 * 2 * 2
    identities = [comparison.identity(run)["split"] for run in comparison.runs()[::2]]
    assert identities == [{"folds": 2, "repeat": r, "fold": f} for r in range(2) for f in range(2)]
    for folds, repeats, said in ((1, 1, "--splits 1"), (0, 2, "--splits"), (2, 0, "--repeats 0")):
        with pytest.raises(ConfigError, match=said):
            make_task(tmp_path, "fedit", folds=folds, repeats=repeats)


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1), st.integers(0, 2)), min_size=1, max_size=30))
def test_folds_are_put_together_case_by_case(cases: list[tuple[int, float, int]]) -> None:
    """The balanced accuracy over all folds is that of all predictions together, not a mean over folds."""
    measures = Measures.of(CLASSIFICATION, CLASSES)
    rows, scores = [], []
    for fold in range(3):
        own = [(label, p) for label, p, place in cases if place == fold]
        if not own:
            continue
        found = classification_metrics([[p, 1 - p, 0] for _, p in own], [label for label, _ in own])
        values = {name: found.get(name) for name in measures.columns}
        rows.append(
            Row(method="m", seed=1, site="s", view="v", cases=None, n=len(own), values=values, repeat=0, fold=fold)
        )
        for number, (label, p) in enumerate(own):
            right, name = float(label == int(p < 0.5)), f"{fold}.{number}"
            model = {"method": "m", "seed": 1, "fold": fold, "site": "s", "view": "v"}
            scores.append(CaseScore(**model, patient=name, case=name, label=CLASSES[label], score=right))
    whole = classification_metrics([[p, 1 - p, 0] for _, p, _ in cases], [label for label, _, _ in cases])
    (row,) = over_folds(rows, scores, measures)
    several = len({label for label, _, _ in cases}) > 1
    assert row.values["balanced_accuracy"] == (pytest.approx(whole["balanced_accuracy"]) if several else None)
    assert row.values["accuracy"] == pytest.approx(whole["accuracy"])
    assert (row.n, row.fold, row.repeat) == (len(cases), None, 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedit", "centralised"])
def test_a_run_trains_and_tests_on_its_fold(
    make_task: Callable[..., Task], memory: Memory, tmp_path: Path, method: str
) -> None:
    task = make_task(tmp_path, method, folds=2)
    tested: Counter[tuple[str, str]] = Counter()
    for run in task.comparison.runs():
        result, scores = execute(
            task.comparison,
            run,
            datalists=task.datalists,
            backbone=task.backbone,
            folder=tmp_path / run.name,
            memory=memory,
        )
        assert {(each.repeat, each.fold) for each in scores} == {(run.repeat, run.fold)}
        assert sum(entry["n"] for entry in result["metrics"] if entry["view"] == "personal") == sum(
            each.view == "personal" for each in scores
        )
        tested.update((each.site, each.case) for each in scores if each.view == "personal")
    assert set(tested.values()) == {1}
    assert tested.keys() == {(site, case.subject) for site, d in task.datalists.items() for _, case in d.all_cases()}
