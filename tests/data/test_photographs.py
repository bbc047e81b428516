"""A listed photograph is found under its name with any suffix, or the list is refused with a count."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.photographs import Listed, find_photographs, stem
from monai_fedlora.data.records import Photograph
from monai_fedlora.errors import DataError


def listed(folder: Path, *names: str) -> list[Listed]:
    return [Listed(f"list:{number}", folder, name) for number, name in enumerate(names, 1)]


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".tif"])
@pytest.mark.parametrize("name", ["a.b", "a.b.jpg", "a.b.png", "a.b.JPEG"])
def test_the_suffix_may_differ_or_be_missing(tmp_path, photograph, name, suffix):
    photograph(tmp_path / f"a.b{suffix}")
    photograph(tmp_path / f"a{suffix}")
    assert find_photographs(listed(tmp_path, name)) == [Photograph(tmp_path / f"a.b{suffix}")]


def test_the_exact_name_wins_and_two_other_candidates_are_refused(tmp_path, photograph):
    photograph(tmp_path / "a.jpg")
    photograph(tmp_path / "a.png")
    assert find_photographs(listed(tmp_path, "a.png")) == [Photograph(tmp_path / "a.png")]
    with pytest.raises(DataError, match=r"list:1: .*a\.jpg and .*a\.png have the same name"):
        find_photographs(listed(tmp_path, "a"))


def test_missing_photographs_are_counted_and_the_first_is_named(tmp_path, photograph):
    photograph(tmp_path / "a.jpg")
    (tmp_path / "b.txt").touch()
    with pytest.raises(DataError, match=r"list:2: .*/b does not exist .*; 2 of 3 listed images are missing"):
        find_photographs(listed(tmp_path, "a", "b", "c"))
    with pytest.raises(DataError, match=r"list:1: .*gone/a does not exist .*; 1 of 1"):
        find_photographs(listed(tmp_path / "gone", "a"))


def test_a_name_never_leads_out_of_its_folder(tmp_path, photograph):
    photograph(tmp_path / "a.jpg")
    (tmp_path / "inner").mkdir()
    for name in ("../a.jpg", "../a", str(tmp_path / "a.jpg"), "", "."):
        with pytest.raises(DataError, match="does not exist"):
            find_photographs(listed(tmp_path / "inner", name))


def test_a_damaged_file_is_named(tmp_path, photograph):
    for name in ("a.jpg", "b.jpg"):
        photograph(tmp_path / name)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:300])
    with pytest.raises(DataError, match=r"b\.jpg is truncated or damaged"):
        find_photographs(listed(tmp_path, "a", "b"))


@given(name=st.from_regex(r"[ab][ab._-]*", fullmatch=True), suffix=st.sampled_from([".jpg", ".JPEG", ".Tiff"]))
def test_a_stem_is_what_stands_before_a_known_suffix(name, suffix):
    assert stem(name + suffix) == name
    assert stem(name + ".dat") == name + ".dat"
