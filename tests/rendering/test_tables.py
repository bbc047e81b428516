"""A table shown as text has straight columns."""

from __future__ import annotations

from monai_fedlora.rendering.tables import Table


def test_numbers_stand_on_the_right_and_names_on_the_left() -> None:
    table = Table(caption="cases", head=["site", "training\ncases"], rows=[["north", 5], ["s", "1,200"]])
    assert str(table).splitlines() == [
        "cases",
        "site   training cases",
        "north               5",
        "s               1,200",
    ]


def test_a_table_of_text_stands_on_the_left_and_without_a_caption_begins_with_its_head() -> None:
    table = Table(caption="", head=["rule", "result"], rows=[["files", "passed"]], text=True)
    assert str(table).splitlines() == ["rule   result", "files  passed"]


def test_a_table_without_rows_is_its_caption_and_head() -> None:
    assert str(Table(caption="none", head=["a"], rows=[])).splitlines() == ["none", "a"]
    assert str(Table(caption="none", rows=[])) == "none"
