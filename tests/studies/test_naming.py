"""Names that every table and terminal can hold, and that tell studies apart."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.studies.naming import comparable, names_of_file, names_of_folder, printable, told_apart


@given(st.text() | st.binary().map(os.fsdecode))
def test_printable_text_can_be_written_and_steers_nothing(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert not any(
        character < " " or "\x7f" <= character < "\xa0" or character in "\u2028\u202e" for character in shown
    )
    assert printable(shown) == shown


def test_bytes_of_another_encoding_stay_visible() -> None:
    assert printable(os.fsdecode("läsion é 皮肤".encode())) == "läsion é 皮肤"
    assert printable(os.fsdecode(b"l\xe9sion")) == r"l\xe9sion"
    assert printable("a\x1b[31m\n") == r"a\x1b[31m\n"


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), max_size=8))
def test_no_two_studies_have_one_name(choices: list[list[str]]) -> None:
    names = told_apart(choices)
    assert len(set(names)) == len(names) == len(choices)
    assert told_apart(choices) == names


def test_names_that_look_alike_or_share_a_file_on_a_mac_are_told_apart() -> None:
    assert told_apart([["heart", "heart.nii"], ["Heart", "Heart.NII.GZ"]]) == ["heart.nii", "Heart.NII.GZ"]
    assert told_apart([["m\u00fcller"], ["mu\u0308ller"], ["a b"], ["a  b "]]) == [
        "m\u00fcller", "mu\u0308ller (2)", "a b", "a  b  (2)",
    ]  # fmt: skip
    assert told_apart([["a"], ["A"], ["A (2)"]]) == ["a", "A (3)", "A (2)"]


def test_names_that_longer_ones_would_not_tell_apart_stay_short() -> None:
    assert told_apart([["a", "x/a"], ["a", "x/a"], ["b", "x/b"]]) == ["a", "a (2)", "b"]
    assert told_apart([["a", "x/a"], ["a", "x/a"], ["a", "y/a"]]) == ["x/a", "x/a (2)", "y/a"]


def test_names_grow_until_they_differ() -> None:
    paths = ["x/lesion.jpg", "x/lesion.png", "y/lesion.png", "x/other.png"]
    names = told_apart([names_of_file(PurePosixPath(path), PurePosixPath(path).suffix) for path in paths])
    assert names == ["lesion.jpg", "x/lesion", "y/lesion", "other"]
    assert told_apart([["a"], ["a"], ["a (2)"]]) == ["a", "a (3)", "a (2)"]
    assert names_of_folder(PurePosixPath("/")) == ("study",)


@pytest.mark.parametrize("name", ["._a.nii", ".DS_Store", "__MACOSX/a.nii", "d/.git/a", "Thumbs.db", "DESKTOP.INI"])
def test_files_of_the_system_are_known(name: str) -> None:
    assert is_of_system(PurePosixPath(name))
    assert not is_of_system(PurePosixPath("../a.b_c/Thumbs.dbx/IM_0001"))


@pytest.mark.parametrize(
    ("one", "other"), [("Heart", "heart"), ("Mu\u0308ller", "M\u00fcller"), ("ＡＢ１", "ab1"), ("STRASSE", "straße")]
)
def test_names_that_look_alike_are_the_same(one: str, other: str) -> None:
    assert comparable(one) == comparable(other)
