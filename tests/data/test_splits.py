"""Splits are by patient, stratified, seeded and indifferent to the order of the input."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.records import FramePair, Photograph, Record
from monai_fedlora.data.splits import (
    assign_splits,
    check_fractions,
    group_by_name,
    group_by_spacing,
    site_name,
    split_counts,
)
from monai_fedlora.errors import ConfigError, DataError

shares = st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 20)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)
cohorts = st.dictionaries(st.text(min_size=1, max_size=6), st.sampled_from("ABC"), min_size=1, max_size=60)


def record(subject: str, *, spacing: float = 1.5, vendor: str | None = None, centre: str | None = None) -> Record:
    images = FramePair(Path("ed"), Path("es"))
    return Record(subject=subject, origin=subject, images=images, spacing=spacing, vendor=vendor, centre=centre)


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, (0, 0, 0)),
        (1, (1, 0, 0)),
        (2, (1, 0, 1)),
        (3, (1, 1, 1)),
        (4, (2, 1, 1)),
        (16, (10, 2, 4)),
        (100, (60, 15, 25)),
    ],
)
def test_counts_of_the_default_fractions(n, expected):
    assert split_counts(n, (0.6, 0.15, 0.25)) == expected


@given(n=st.integers(0, 500), fractions=shares)
def test_counts_follow_the_fractions_and_reach_every_split_that_can_be_reached(n, fractions):
    counts = split_counts(n, fractions)
    assert sum(counts) == n
    assert min(counts) >= 0
    wanted = sum(share > 0 for share in fractions)
    assert sum(count > 0 for count in counts) >= min(n, wanted)
    assert counts[0] > 0 or n == 0
    for count, share in zip(counts, fractions, strict=True):
        assert abs(count - n * share) < 3
        assert count == 0 or share > 0


@given(classes=cohorts, fractions=shares, seed=st.integers(0, 9), shuffle=st.randoms())
def test_every_patient_is_in_one_split_whatever_the_order(classes, fractions, seed, shuffle: random.Random):
    splits = assign_splits(classes, seed=seed, fractions=fractions)
    assert set(splits) == set(classes)
    shuffled = list(classes.items())
    shuffle.shuffle(shuffled)
    assert assign_splits(dict(shuffled), seed=seed, fractions=fractions) == splits
    for name in set(classes.values()):
        members = [splits[subject] for subject in classes if classes[subject] == name]
        counts = Counter(members)
        assert tuple(counts[split] for split in ("training", "validation", "test")) == split_counts(
            len(members), fractions
        )


@given(classes=cohorts, other=st.sampled_from("ABC"))
def test_a_class_splits_the_same_with_and_without_the_others(classes, other):
    alone = {subject: name for subject, name in classes.items() if name == other}
    everyone = assign_splits(classes, seed=0)
    assert assign_splits(alone, seed=0) == {subject: everyone[subject] for subject in alone}


def test_another_seed_gives_another_split():
    classes = {f"p{number}": "A" for number in range(50)}
    assert assign_splits(classes, seed=0) != assign_splits(classes, seed=1)


@pytest.mark.slow
@given(classes=cohorts, published=st.lists(st.sampled_from(["training", "validation", "test"]), min_size=60))
def test_published_patients_stay_where_they_are(classes, published):
    fixed = dict(zip(classes, published, strict=False))
    splits = assign_splits(classes, seed=0, fixed=fixed)
    assert set(splits) == set(classes)
    for subject, split in fixed.items():
        if split != "training":
            assert splits[subject] == split
    free = Counter(splits[subject] for subject, split in fixed.items() if split == "training")
    if set(fixed.values()) != {"training"}:
        assert free["test"] == 0
    if "validation" in fixed.values():
        assert free["validation"] == 0


@given(n=st.integers(3, 60), published=st.sampled_from(["validation", "test"]), seed=st.integers(0, 9))
def test_a_split_that_nobody_published_is_drawn_from_the_rest_in_proportion(n, published, seed):
    classes = {f"p{number}": "A" for number in range(n)}
    drawn = assign_splits(classes, seed=seed, fixed={"p0": published}, draw=("validation", "test"))
    assert drawn["p0"] == published
    counts = Counter(split for subject, split in drawn.items() if subject != "p0")
    other = {"validation": (0.6 / 0.85, 0, 0.25 / 0.85), "test": (0.8, 0.2, 0)}[published]
    assert tuple(counts[split] for split in ("training", "validation", "test")) == split_counts(n - 1, other)
    kept = assign_splits(classes, seed=seed, fixed={"p0": published}, draw=())
    assert set(kept.values()) == {published, "training"}


@pytest.mark.parametrize(
    "fractions", [(0.6, 0.4), (0.5, 0.4, 0.2), (0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_fractions_that_are_no_split_are_refused(fractions):
    with pytest.raises(ConfigError, match="three shares"):
        check_fractions(fractions)


@given(
    spacings=st.lists(st.sampled_from([1.2, 1.3, 1.4, 1.5, 1.5000001, 1.6]), min_size=1, max_size=40),
    n_sites=st.integers(2, 6),
    shuffle=st.randoms(),
)
def test_protocol_sites_are_ranges_of_the_spacing(spacings, n_sites, shuffle: random.Random):
    records = [record(f"p{number}", spacing=spacing) for number, spacing in enumerate(spacings)]
    try:
        sites = group_by_spacing(records, n_sites)
    except DataError:
        assert len({round(spacing, 4) for spacing in spacings}) < n_sites
        return
    assert list(sites) == [f"protocol-{number}" for number in range(1, n_sites + 1)]
    assert sorted(r.subject for members in sites.values() for r in members) == sorted(r.subject for r in records)
    members = list(sites.values())
    for finer, coarser in pairwise(members):
        assert round(max(r.spacing for r in finer), 4) < round(min(r.spacing for r in coarser), 4)
    shuffle.shuffle(records)
    assert group_by_spacing(records, n_sites) == sites


def test_protocol_sites_of_different_spacings_are_equal_in_size():
    records = [record(f"p{number}", spacing=1 + number / 100) for number in range(12)]
    assert [len(members) for members in group_by_spacing(records, 4).values()] == [3, 3, 3, 3]


def test_photographs_have_no_protocol():
    image = Record(subject="i", origin="a.csv:2", images=Photograph(Path("i.jpg")))
    with pytest.raises(DataError, match=r"a\.csv:2: a photograph has no spacing"):
        group_by_spacing([image], 2)


def test_one_protocol_site_is_refused():
    with pytest.raises(ConfigError, match="too few"):
        group_by_spacing([record("p")], 1)


def test_sites_by_vendor_and_centre_get_plain_names():
    records = [record("b", vendor="GE", centre="2"), record("a", vendor="ge", centre="Hospital A")]
    assert {site: [r.subject for r in members] for site, members in group_by_name(records, "vendor").items()} == {
        "ge": ["a", "b"]
    }
    assert list(group_by_name(records, "centre")) == ["centre-2", "hospital-a"]


def test_two_names_that_make_one_site_are_refused():
    records = [record("a", centre="Site A"), record("b", centre="site-a")]
    with pytest.raises(DataError, match="'Site A' and 'site-a' would both be site site-a"):
        group_by_name(records, "centre")


def test_a_patient_without_a_vendor_is_named():
    with pytest.raises(DataError, match="vendor of subject a is unknown"):
        group_by_name([record("a")], "vendor")


@given(text=st.text(max_size=80))
def test_any_text_makes_a_site_name_or_a_data_error(text):
    try:
        name = site_name(text)
    except DataError:
        return
    assert Path(name).name == name
    assert site_name(name) == name
