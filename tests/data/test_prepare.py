"""Records become datalists whose labels, classes and notes are what was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.prepare import Settings, prepare
from monai_fedlora.data.records import Cine, FramePair, Photograph, Record
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


def photographs(rows: list[tuple[str | None, str, str, str | None]]) -> list[Record]:
    """Photographs of (lesion, class, centre, published split)."""
    return [
        Record(
            subject=f"i{number:03d}",
            origin=f"a.csv:{number}",
            images=Photograph(Path(f"/data/i{number}.jpg")),
            unit=unit,
            group=group,
            centre=centre,
            split=split,
        )
        for number, (unit, group, centre, split) in enumerate(rows)
    ]


def photograph_settings(**changes: object) -> Settings:
    values = {"dataset": "isic", "groups": ("MEL", "NV"), "normal": "NV", "task": "multiclass", "by": "centre"}
    return Settings(**values | changes)  # type: ignore[arg-type]


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
    with pytest.raises(DataError, match=r"m\.csv:7: there is no diagnosis for subject q"):
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
        ({"normal": "healthy"}, "acdc has no such class, it has NOR, DCM, RV"),
        ({"limit": 0}, "--limit 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        prepare(cohort({"NOR": 8, "DCM": 8, "RV": 8}), settings(**changes))


def test_a_site_name_that_is_no_folder_is_refused():
    with pytest.raises(DataError, match="cannot name a site"):
        prepare(cohort({"NOR": 4, "DCM": 4}), settings(site="../x"))


def where(datalists, *, by: str) -> dict[str | None, set[str]]:
    places: dict[str | None, set[str]] = {}
    for datalist in datalists:
        for split, case in datalist.all_cases():
            places.setdefault(getattr(case, by), set()).add(split)
    return places


def test_all_photographs_of_a_lesion_go_to_one_split_counted_as_one_lesion():
    rows = [(f"l{number}", ("MEL", "NV")[number % 2], "0", None) for number in range(40) for _ in range(1 + number % 4)]
    prepared = prepare(photographs(rows), photograph_settings())
    (datalist,) = prepared.datalists
    assert prepared.notes == ()
    assert (datalist.site, datalist.classes, datalist.modality) == ("centre-0", ("MEL", "NV"), "image")
    assert all(len(splits) == 1 for splits in where([datalist], by="unit").values())
    units = {split: {case.unit for case in datalist.cases(split)} for split in ("training", "validation", "test")}
    assert [len(members) for members in units.values()] == [24, 6, 10]
    assert datalist.training[0].image == f"{datalist.training[0].subject.replace('i00', 'i')}.jpg"


def test_a_lesion_at_two_sites_has_the_same_split_at_both():
    rows = [(f"l{number}", "NV", str(site), None) for number in range(30) for site in (0, 1)]
    rows += [(f"m{number}", "MEL", str(number % 2), None) for number in range(30)]
    datalists = prepare(photographs(rows), photograph_settings()).datalists
    assert [datalist.site for datalist in datalists] == ["centre-0", "centre-1"]
    assert all(len(splits) == 1 for splits in where(datalists, by="unit").values())


def test_the_published_test_fold_stays_and_its_lesions_do_not_train():
    rows = [(f"l{number}", ("MEL", "NV")[number % 2], "0", "training") for number in range(20) for _ in range(2)]
    rows += [("l3", "NV", "0", "test"), ("t", "NV", "0", "test"), (None, "MEL", "0", "test")]
    records = photographs(rows)
    prepared = prepare(records, photograph_settings(published_split=True))
    (datalist,) = prepared.datalists
    assert [case.subject for case in datalist.test] == ["i040", "i041", "i042"]
    assert "l3" not in {case.unit for case in (*datalist.training, *datalist.validation)}
    assert [len(datalist.training), len(datalist.validation)] == [30, 8]
    assert prepared.notes == (
        "1 of 43 images have no known patient or lesion, so each of them is split on its own",
        "left out, because their patient or lesion is in a published test or validation split: 2 of 43",
    )


def test_where_only_validation_is_published_a_test_split_is_drawn():
    rows = [(None, group, "0", split) for group in ("MEL", "NV") for split in ["training"] * 17 + ["validation"] * 5]
    with pytest.raises(DataError, match="no published test patient"):
        prepare(photographs(rows), photograph_settings(published_split=True))
    prepared = prepare(photographs(rows), photograph_settings(published_split=True, draw_test=True))
    (datalist,) = prepared.datalists
    assert [datalist.counts(split) for split in ("training", "validation", "test")] == [(12, 12), (5, 5), (5, 5)]
    assert "isic has no published test split here" in prepared.notes[1]


def test_a_limit_takes_whole_lesions_of_every_site_and_says_so():
    rows = [(f"{site}{number}", ("MEL", "NV")[number % 2], site, None) for site in "01" for number in range(40)]
    prepared = prepare(photographs(rows * 2), photograph_settings(limit=40, seed=3))
    assert prepared.notes == (
        "site centre-0: 40 of 80, a subset of seed 3",
        "site centre-1: 40 of 80, a subset of seed 3",
    )
    for datalist in prepared.datalists:
        assert Counter(case.group for _, case in datalist.all_cases()) == {"MEL": 20, "NV": 20}
        assert datalist.counts("test")[0] > 0
    other = prepare(photographs(rows * 2), photograph_settings(limit=40, seed=4))
    assert where(other.datalists, by="subject").keys() != where(prepared.datalists, by="subject").keys()


def test_a_limit_of_hearts_counts_patients_and_keeps_the_published_split_in_proportion():
    records = cohort({"NOR": 20, "DCM": 20}, split="training") + cohort({"NOR": 10, "DCM": 10}, split="test", first=50)
    (datalist,) = prepare(records, settings(limit=12, published_split=True)).datalists
    assert [datalist.counts(split) for split in ("training", "validation", "test")] == [(3, 3), (1, 1), (2, 2)]


def test_photographs_have_a_binary_task_too():
    rows = [(None, group, "0", None) for group in ("MEL", "NV") for _ in range(8)]
    (datalist,) = prepare(photographs(rows), photograph_settings(task="binary")).datalists
    assert all(case.label == int(case.group == "MEL") for _, case in datalist.all_cases())


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([None, *"abcdef"]),
            st.sampled_from(["MEL", "NV"]),
            st.sampled_from("01"),
            st.sampled_from(["training", "validation", "test", None]),
        ),
        min_size=1,
        max_size=40,
    ),
    published=st.booleans(),
    limit=st.none() | st.integers(1, 30),
)
def test_whatever_is_prepared_has_no_lesion_on_two_sides_and_keeps_published_images_in_place(rows, published, limit):
    records = photographs(rows)
    choice = photograph_settings(published_split=published, draw_test=True, limit=limit, classes=("MEL", "NV"))
    try:
        prepared = prepare(records, choice)
    except DataError as error:
        assert "no training patient" in str(error)
        return
    places = where(prepared.datalists, by="unit")
    places.pop(None, None)
    assert all(len(splits) == 1 for splits in places.values())
    origin = {record.subject: record for record in records}
    for datalist in prepared.datalists:
        for split, case in datalist.all_cases():
            assert (case.unit, case.group) == (origin[case.subject].unit, origin[case.subject].group)
            if published and origin[case.subject].split in ("test", "validation"):
                assert split == origin[case.subject].split


def test_what_the_reader_noted_is_said_once_with_the_number_of_records():
    records = [replace(record, notes=("the qform was used",)) for record in cohort({"NOR": 8, "DCM": 8})]
    notes = prepare([*records[:-1], replace(records[-1], notes=())], settings()).notes
    assert [note for note in notes if "qform" in note] == ["15 of 16 (p000, p001, p002, ...): the qform was used"]
