from __future__ import annotations

from collections import Counter

import pytest

from monai_fedlora.data.photo_phantom.photo_cohort import draw_units

SHARES = {"NV": 5.0, "MEL": 3.0, "BKL": 2.0, "VASC": 0.0}


@pytest.mark.parametrize("pictures", [1, 10, 99, 100])
@pytest.mark.parametrize("doubles", [0.0, 0.25, 1.0])
def test_the_pictures_of_all_units_are_as_many_as_asked_for(pictures, doubles) -> None:
    units = draw_units(pictures, SHARES, doubles, (0, 1))
    assert sum(unit.pictures for unit in units) == pictures
    assert {unit.pictures for unit in units} <= {1, 2}


def test_classes_and_doubles_keep_their_shares() -> None:
    units = draw_units(200, SHARES, 0.4, (0, 1))
    pictures = Counter()
    for unit in units:
        pictures[unit.group] += unit.pictures
    assert pictures == {"NV": 100, "MEL": 60, "BKL": 40}
    doubled = Counter(unit.group for unit in units if unit.pictures == 2)
    assert doubled == {"NV": 20, "MEL": 12, "BKL": 8}


def test_the_order_follows_from_the_seed() -> None:
    first = draw_units(60, SHARES, 0.25, (0, 1))
    assert first == draw_units(60, SHARES, 0.25, (0, 1)) != draw_units(60, SHARES, 0.25, (0, 2))
    assert [unit.group for unit in first] != sorted(unit.group for unit in first)
