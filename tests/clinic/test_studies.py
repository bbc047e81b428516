"""What inputs mean: files, pairs, folders, archives and lists."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.clinic.studies import CineFile, DicomFiles, Study, find_studies, read_list
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import DataError


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


@pytest.mark.parametrize(
    ("ed", "es"), [("p_ed.nii.gz", "p_es.nii.gz"), ("p_ED.nii", "p_ES.nii"), ("p_ed.nii", "p_es.nii.gz")]
)
@pytest.mark.parametrize("given", ["ed", "es", "both", "folder"])
def test_a_pair_is_one_study_however_it_is_given(tmp_path: Path, ed: str, es: str, given: str) -> None:
    first, second = touch(tmp_path, ed, es)
    inputs = {"ed": [first], "es": [second], "both": [second, first], "folder": [tmp_path]}[given]
    assert find_studies(inputs, modality="cine") == [Study("p", FramePair(first, second))]


def test_missing_partner_is_looked_for_when_the_study_is_read(tmp_path: Path) -> None:
    (ed,) = touch(tmp_path, "fred_ed.nii.gz")
    assert find_studies([ed], modality="cine") == [Study("fred", FramePair(ed, tmp_path / "fred_es.nii.gz"))]


def test_other_nifti_files_are_cines_and_archives_are_dicom(tmp_path: Path) -> None:
    four, packed = touch(tmp_path, "a.b.nii.gz", "c.zip")
    assert find_studies([four, packed], modality="cine") == [
        Study("a.b", CineFile(four)),
        Study("c", DicomFiles(packed)),
    ]


def test_folder_without_nifti_files_is_one_dicom_study(tmp_path: Path) -> None:
    touch(tmp_path, "heart/series/IM0001", "heart/.hidden.nii")
    assert find_studies([tmp_path / "heart"], modality="cine") == [Study("heart", DicomFiles(tmp_path / "heart"))]


def test_photographs_are_studies_by_file(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", ".c.png")
    assert find_studies([tmp_path], modality="image") == [
        Study("a", Photograph(tmp_path / "a.png")),
        Study("b", Photograph(tmp_path / "b.JPG")),
    ]


def test_two_studies_of_one_name_are_refused(tmp_path: Path) -> None:
    files = touch(tmp_path, "x/a.png", "y/a.png")
    with pytest.raises(DataError, match=r"two studies are called 'a'.*x/a\.png.*y/a\.png"):
        find_studies(files, modality="image")


def test_the_same_study_twice_is_one(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "a.png")
    assert len(find_studies([file, file], modality="image")) == 1


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
    assert read_list(table) == expected
    assert find_studies([table], modality="cine") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ed,es\na,b\n", "column study is missing"),
        ("study,image\n,a.png\n", "study is empty"),
        ("study,ed,es\np,a.nii,\n", "given: ed"),
        ("study,cine,image\np,a.nii,b.png\n", "given: cine, image"),
        ("study,image\np,\n", "given: none"),
        ("study,cine,ed_frame,es_frame\np,a.nii,1,\n", "es_frame is empty"),
        ("study,cine,ed_frame,es_frame\np,a.nii,1,last\n", "es_frame must be a whole number"),
    ],
)
def test_list_that_cannot_be_read_is_refused_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "list.csv"
    table.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_list(table)
    assert "list.csv:" in str(error.value)
