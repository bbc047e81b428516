"""Lists of studies: a bad line costs itself alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import DataError
from monai_fedlora.studies.finding import find_studies
from monai_fedlora.studies.study import CineFile, DicomFiles, Study, Unusable
from monai_fedlora.studies.study_list import read_list


def test_list_names_each_kind_of_study(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text(
        "study,ed,es,cine,image,folder,ed_frame,es_frame\n"
        "one,a.nii,b.nii,,,,,\n"
        "two,,,c.nii,,,,\n"
        "three,,,c.nii,,,0,7\n"
        "four,,,,d.png,,,\n"
        "five,,,,,sub/e.zip,2,9\n"
    )
    expected = [
        Study("one", FramePair(tmp_path / "a.nii", tmp_path / "b.nii")),
        Study("two", CineFile(tmp_path / "c.nii")),
        Study("three", CineFile(tmp_path / "c.nii", (0, 7))),
        Study("four", Photograph(tmp_path / "d.png")),
        Study("five", DicomFiles(tmp_path / "sub/e.zip", (2, 9))),
    ]
    assert [(names[0], files) for names, files in read_list(table)] == [(one.name, one.files) for one in expected]
    assert list(find_studies([table], modality="cine").studies) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",a.nii,,,,", "study is empty"),
        ("p,,,b.nii,,", "given: ed"),
        ("p,a.nii,c.png,,,", "given: cine, image"),
        ("p,,,,,", "given: none"),
        ("p,a.nii,,,1,", "es_frame is empty"),
        ("p,a.nii,,,1,last", "es_frame must be a whole number"),
        ("p,a.nii", "2 cells, but the header has 6"),
        ("p,a.nii,,,,,x,y", "8 cells, but the header has 6"),
    ],
)
def test_bad_line_costs_itself_alone(tmp_path: Path, line: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(f"study,cine,image,ed,ed_frame,es_frame\na,a.nii,,,,\n{line}\nc,c.nii,,,,\n")
    first, bad, last = find_studies([table], modality="cine").studies
    assert (first.name, last.name) == ("a", "c")
    assert bad.name in ("p", "list.csv, line 3")
    assert isinstance(bad.files, Unusable)
    assert f"list.csv:3: {message}" in bad.files.reason or message in bad.files.reason
    assert "list.csv:3" in bad.files.reason


def test_lines_of_one_name_are_told_apart(tmp_path: Path) -> None:
    table = tmp_path / "list.csv"
    table.write_text("study,cine\na,a.nii\na,b.nii\na,a.nii\nb,a.nii\n")
    studies = find_studies([table], modality="cine").studies
    assert [study.name for study in studies] == ["a (list.csv, line 2)", "a (list.csv, line 3)", "b"]
    assert studies[2].files == studies[0].files


@pytest.mark.parametrize(
    ("text", "message"), [("ed,es\na,b\n", "column study is missing"), ("", "is empty"), ("study,cine\n", "no patient")]
)
def test_list_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_list(table)
    assert "list.csv" in str(error.value)
    (tmp_path / "a.nii").touch()
    bad, good = find_studies([table, tmp_path / "a.nii"], modality="cine").studies
    assert isinstance(bad.files, Unusable)
    assert (bad.name, good.name) == ("list.csv", "a")
