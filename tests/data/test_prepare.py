"""Records become datalists whose labels, classes and notes are what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.data.prepare import Settings, prepare
from monai_fedlora.data.records import Cine, FramePair, Record
from monai_fedlora.errors import ConfigError, DataError

GROUPS = ("NOR", "DCM", "RV")


def cohort(
    counts: dict[str, int], *, vendor: str = "siemens", split: str | None = None, first: int = 0
) -> list[Record]:
    groups = [group for group, count in counts.items() for _ in range(count)]
    return [
        Record(
            subject=f"p{number:03d}",
            origin=f"a.csv:{number}",
            images=FramePair(Path(f"/data/x/p{number}/ed.nii"), Path(f"/data/x/p{number}/es.nii")),
            spacing=1 + number / 100,
            group=group,
            vendor=vendor,
            split=split,
        )
        for number, group in enumerate(groups, first)
    ]


def settings(**changes: object) -> Settings:
    return Settings(**{"dataset": "acdc", "groups": GROUPS, **changes})  # type: ignore[arg-type]


def test_the_binary_task_sets_normal_against_everything_else():
    (datalist,) = prepare(cohort({"NOR": 8, "DCM": 4, "RV": 4}), settings()).datalists
    assert (datalist.site, datalist.classes, datalist.task) == ("siemens", ("NOR", "ABN"), "binary")
    assert all(case.label == int(case.group != "NOR") for _, case in datalist.all_cases())
    assert [datalist.counts(split) for split in ("training", "validation", "test")] == [(5, 5), (1, 1), (2, 2)]


def test_the_multiclass_task_keeps_the_order_of_the_groups():
    (datalist,) = prepare(cohort({"RV": 4, "DCM": 4, "NOR": 8}), settings(task="multiclass")).datalists
    assert datalist.classes == GROUPS
    assert all(GROUPS[case.label] == case.group for _, case in datalist.all_cases())


def test_paths_are_relative_to_the_folder_all_images_share():
    records = cohort({"NOR": 4, "DCM": 4})
    cine = Record(
        subject="q", origin="", images=Cine(Path("/data/y/4d.nii"), 2, 9), spacing=1, group="NOR", vendor="siemens"
    )
    (datalist,) = prepare([*records, cine], settings()).datalists
    assert datalist.image_root == Path("/data")
    cases = {case.subject: case for _, case in datalist.all_cases()}
    assert (cases["p001"].ed, cases["p001"].es) == ("x/p1/ed.nii", "x/p1/es.nii")
    assert (cases["q"].cine, cases["q"].ed_frame, cases["q"].es_frame) == ("y/4d.nii", 2, 9)


def test_the_result_does_not_depend_on_the_order_of_the_records():
    records = cohort({"NOR": 8, "DCM": 7, "RV": 5})
    for choice in (settings(), settings(by="spacing", sites=3), settings(site="here", task="multiclass")):
        assert prepare(records, choice) == prepare(records[::-1], choice)


def test_a_site_without_a_class_is_noted_by_name():
    records = cohort({"NOR": 8, "DCM": 8}) + cohort({"DCM": 8}, vendor="ge", first=50)
    prepared = prepare(records, settings())
    assert prepared.notes == ("site ge has no case of class NOR",)


def test_a_class_missing_from_some_splits_is_noted_by_name():
    prepared = prepare(cohort({"NOR": 1, "DCM": 8}), settings())
    assert prepared.notes == ("site siemens has no validation or test case of class NOR",)


def test_a_class_that_no_site_has_is_an_error_unless_declared():
    records = cohort({"NOR": 8, "DCM": 8})
    with pytest.raises(DataError, match=r"empty class: no site has a training case of RV.*--classes NOR,DCM,RV"):
        prepare(records, settings(task="multiclass"))
    prepared = prepare(records, settings(task="multiclass", classes=GROUPS))
    assert prepared.notes == ("site siemens has no case of class RV",)
    other = prepare(cohort({"RV": 8, "NOR": 4, "DCM": 4}, vendor="ge"), settings(task="multiclass")).datalists
    assert prepare(records, settings(task="multiclass"), existing=other).datalists == prepared.datalists


def test_a_class_only_at_the_site_being_replaced_is_missing():
    before = prepare(cohort({"NOR": 8, "DCM": 8, "RV": 8}), settings(task="multiclass")).datalists
    with pytest.raises(DataError, match="training case of RV"):
        prepare(cohort({"NOR": 8, "DCM": 8}), settings(task="multiclass"), existing=before)


def test_groups_outside_a_shorter_class_list_are_left_out_and_counted():
    prepared = prepare(cohort({"NOR": 8, "DCM": 8, "RV": 3}), settings(task="multiclass", classes=("NOR", "DCM")))
    assert prepared.notes == ("left out, being of no class of the task: 3 RV",)
    assert sum(sum(prepared.datalists[0].counts(split)) for split in ("training", "validation", "test")) == 16


def test_a_table_takes_its_own_labels_and_names_wrong_ones():
    records = cohort({"b": 4, "a": 4})
    free = {"groups": (), "leave_out": False}
    assert prepare(records, settings(task="multiclass", **free)).datalists[0].classes == ("a", "b")
    with pytest.raises(DataError, match=r"a\.csv:0: label 'b' is not one of a, c"):
        prepare(records, settings(task="multiclass", classes=("a", "c"), **free))
    prepared = prepare(records, settings(normal="A", **free))
    assert prepared.notes == ("counted as ABN: 4 b",)


def test_the_published_test_patients_stay_and_none_is_an_error():
    training = cohort({"NOR": 8, "DCM": 8}, split="training")
    test = cohort({"NOR": 2, "DCM": 2}, split="test", first=50)
    (datalist,) = prepare([*training, *test], settings(published_split=True)).datalists
    assert {case.subject for case in datalist.test} == {record.subject for record in test}
    assert datalist.counts("validation") == (2, 2)
    with pytest.raises(DataError, match="no published test patient"):
        prepare(training, settings(published_split=True))
    with pytest.raises(DataError, match="site ge has no training patient in the published split"):
        prepare(
            training + cohort({"NOR": 2, "DCM": 2}, vendor="ge", split="test", first=50), settings(published_split=True)
        )


def test_a_dataset_without_pathology_names_the_line():
    records = cohort({"NOR": 2})
    nameless = Record(subject="q", origin="m.csv:7", images=records[0].images, spacing=1, vendor="ge")
    with pytest.raises(DataError, match=r"m\.csv:7: there is no pathology for subject q"):
        prepare([*records, nameless], settings())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sites": 3}, "--by spacing --sites K"),
        ({"by": "spacing"}, "--by spacing --sites K"),
        ({"classes": ("A", "B")}, "the binary task has the classes NOR,ABN"),
        ({"task": "multiclass", "classes": ("NOR", "XYZ")}, "acdc has no XYZ"),
        ({"task": "multiclass", "classes": ("NOR",)}, "two or more"),
        ({"task": "multiclass", "classes": ("NOR", "NOR")}, "two or more"),
        ({"fractions": (1.0, 1.0, 1.0)}, "three shares"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(cohort({"NOR": 8, "DCM": 8, "RV": 8}), settings(**changes))


def test_a_site_name_that_is_no_folder_is_refused():
    with pytest.raises(DataError, match="cannot name a site"):
        prepare(cohort({"NOR": 4, "DCM": 4}), settings(site="../x"))
