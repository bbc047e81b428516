"""Codes and labels that were written in several ways are one, are told apart, or are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.table_words import settle_codes, settle_labels
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import Row


def rows(*cells: str) -> list[Row]:
    return [Row(f"a.csv:{number}", {"c": cell}) for number, cell in enumerate(cells, 2)]


def words(settled: list[Row]) -> list[str]:
    return [row.cells["c"] for row in settled]


@pytest.mark.parametrize(
    ("cells", "expected", "noted"),
    [
        (["7", "7.0", "12.0", ""], ["7", "7", "12", ""], [0, 1, 1, 0]),
        (["7.0", "0.0"], ["7", "0"], [1, 1]),
        (["007", "012"], ["007", "012"], [0, 0]),
        (["7.0", "p3"], ["7.0", "p3"], [0, 0]),
        (["7.5", "8.0"], ["7.5", "8.0"], [0, 0]),
        (["aB", "ab"], ["aB", "ab"], [0, 0]),
    ],
)
def test_whole_floats_become_whole_numbers_and_text_stays_text(cells, expected, noted):
    settled = settle_codes(rows(*cells), "c")
    assert words(settled) == expected
    assert [len(row.notes) for row in settled] == noted


@pytest.mark.parametrize("cells", [("7", "007"), ("7", "7.0", "p3"), ("p 3", "p  3"), ("Ⅳ", "IV"), ("1.0", "01")])
def test_codes_that_may_be_one_are_refused(cells):
    with pytest.raises(DataError, match=r"a\.csv:\d: c is .*if they are one, write both alike"):
        settle_codes(rows(*cells), "c")


def test_a_shortened_number_is_refused():
    with pytest.raises(DataError, match=r"a\.csv:3: c is 1\.2E\+10, which a spreadsheet has shortened"):
        settle_codes(rows("5", "1.2E+10"), "c")


def test_labels_take_their_most_frequent_spelling_with_a_note():
    settled = settle_labels(rows("MEL", "mel", "NV", "MEL", "n v", "N  V", "n v", "3.0", "3"), "c")
    assert words(settled) == ["MEL", "MEL", "NV", "MEL", "n v", "n v", "n v", "3", "3"]
    assert [row.notes for row in settled][1] == ("c 'mel' was counted as 'MEL'",)
    assert sum(len(row.notes) for row in settled) == 2


@given(
    cells=st.lists(st.sampled_from(["7", "7.0", "07", "8.00", "p", "P", " ", "7.5", "", "1e+5"]) | st.text(max_size=4))
)
def test_settled_codes_are_told_apart_by_more_than_their_writing(cells):
    try:
        settled = words(settle_codes(rows(*cells), "c"))
    except DataError:
        return
    for before, after in zip(cells, settled, strict=True):
        assert after == before or float(before) == float(after)
    numbers = [text for text in set(settled) if text.isascii() and text.isdigit()]
    assert len({int(text) for text in numbers}) == len(numbers)


@given(cells=st.lists(st.sampled_from(["a", "A", "a ", "b", "3", "3.0", ""]), min_size=1))
def test_settled_labels_differ_by_more_than_capitals(cells):
    settled = words(settle_labels(rows(*cells), "c"))
    assert len({text.casefold() for text in settled}) == len(set(settled))
