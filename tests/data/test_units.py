"""A patient or lesion stays whole, is counted once, and never lies on both sides of a published split."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.cases import Case
from monai_fedlora.data.records import Photograph, Record
from monai_fedlora.data.units import keep_published_apart, take_subset, unit_labels, unit_numbers, unit_of
from monai_fedlora.errors import ConfigError

SPLITS = ("training", "validation", "test")
cohorts = st.lists(
    st.tuples(st.sampled_from([None, *"abcdefgh"]), st.integers(0, 2), st.sampled_from([*SPLITS, None])), max_size=40
)


def images(rows: list[tuple[str | None, int, str | None]]) -> tuple[list[Record], dict[str, int]]:
    records = [
        Record(subject=f"i{number:02d}", origin="", images=Photograph(Path(f"{number}.jpg")), unit=unit, split=split)
        for number, (unit, _, split) in enumerate(rows)
    ]
    return records, {record.subject: label for record, (_, label, _) in zip(records, rows, strict=True)}


def test_the_label_of_a_unit_is_that_of_most_of_its_images_and_the_first_of_equals():
    records, labels = images(
        [("a", 2, None), ("a", 1, None), ("a", 2, None), ("b", 2, None), ("b", 1, None), (None, 0, None)]
    )
    assert unit_labels(records, labels) == {"a": 2, "b": 1, "i05": 0}


@given(rows=cohorts, shuffle=st.randoms())
def test_unit_labels_do_not_depend_on_the_order(rows, shuffle: random.Random):
    records, labels = images(rows)
    expected = unit_labels(records, labels)
    shuffle.shuffle(records)
    assert unit_labels(records, labels) == expected
    assert set(expected) == {unit_of(record) for record in records}


@given(rows=cohorts)
def test_after_leaving_out_no_unit_has_two_splits_and_no_test_image_is_lost(rows):
    records, _ = images(rows)
    kept = keep_published_apart(records)
    splits: dict[str, set[str]] = {}
    for record in kept:
        splits.setdefault(unit_of(record), set()).add(record.split or "training")
    assert all(len(names) == 1 for names in splits.values())
    assert set(splits) == {unit_of(record) for record in records}
    assert [r for r in kept if r.split == "test"] == [r for r in records if r.split == "test"]
    gone = [record for record in records if record not in kept]
    assert all(splits[unit_of(record)] != {record.split or "training"} for record in gone)


@given(rows=cohorts, limit=st.integers(1, 50), seed=st.integers(0, 5), by_split=st.booleans(), shuffle=st.randoms())
def test_a_subset_holds_whole_units_up_to_the_limit_whatever_the_order(rows, limit, seed, by_split, shuffle):
    records, labels = images(rows)
    records = keep_published_apart(records)
    taken = take_subset(records, labels, limit=limit, seed=seed, by_split=by_split)
    assert len(taken) <= limit
    sizes = Counter(map(unit_of, records))
    assert all(sizes[unit] == count for unit, count in Counter(map(unit_of, taken)).items())
    left = [count for unit, count in sizes.items() if unit not in set(map(unit_of, taken))]
    assert len(taken) + min(left, default=limit + 1) > limit
    shuffle.shuffle(records)
    again = take_subset(records, labels, limit=limit, seed=seed, by_split=by_split)
    assert {record.subject for record in again} == {record.subject for record in taken}


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=4), limit=st.integers(4, 160), other=st.integers(0, 160)
)
def test_a_subset_of_single_images_keeps_the_classes_in_proportion_and_grows_with_the_limit(counts, limit, other):
    records, labels = images([(None, label, None) for label, count in enumerate(counts) for _ in range(count)])
    taken = take_subset(records, labels, limit=limit, seed=0)
    share = min(1.0, limit / len(records))
    for label, count in enumerate(counts):
        assert abs(sum(labels[record.subject] == label for record in taken) - share * count) <= len(counts)
        assert any(labels[record.subject] == label for record in taken)
    more = take_subset(records, labels, limit=limit + other, seed=0)
    assert {record.subject for record in taken} <= {record.subject for record in more}


def test_a_subset_has_every_split_of_every_class_and_another_seed_takes_others():
    rows = [(None, label, split) for label in (0, 1) for split in SPLITS for _ in range(20)]
    records, labels = images(rows)
    taken = take_subset(records, labels, limit=12, seed=0, by_split=True)
    assert set(Counter((labels[record.subject], record.split) for record in taken).values()) == {2}
    assert taken != take_subset(records, labels, limit=12, seed=1, by_split=True)


def test_a_subset_is_drawn_apart_from_the_split():
    """The first of the subset's order must not be the first of the split's, or a subset would be all training."""
    from monai_fedlora.data.splits import assign_splits

    records, labels = images([(None, 0, None)] * 200)
    splits = assign_splits({record.subject: "A" for record in records}, seed=0)
    taken = Counter(splits[record.subject] for record in take_subset(records, labels, limit=100, seed=0))
    assert all(taken[split] > 0.1 * 100 for split in SPLITS)


def test_an_empty_subset_is_refused():
    with pytest.raises(ConfigError, match="--limit 0 leaves nothing"):
        take_subset([], {}, limit=0, seed=0)


def test_photographs_of_a_patient_have_one_number() -> None:
    cases = [
        Case(subject=name, label=0, group="x", unit=unit, image=name)
        for name, unit in (("a", None), ("b", "lesion"), ("c", None), ("d", "lesion"))
    ]
    assert unit_numbers(cases) == [0, 1, 2, 1]
