from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_fedlora.engines.studies import find_studies
from monai_fedlora.errors import ConfigError, DataError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_pairs_are_found_in_order_and_other_files_are_left_alone(tmp_path) -> None:
    folder = touch(
        tmp_path, "b_ES.nii", "b_ed.nii", "a_1_ed.nii.gz", "a_1_es.nii.gz", "notes.txt", "._b_ed.nii", "c_ed.dcm"
    )
    assert find_studies(folder) == [
        {"subject": "a_1", "ed": str(folder / "a_1_ed.nii.gz"), "es": str(folder / "a_1_es.nii.gz")},
        {"subject": "b", "ed": str(folder / "b_ed.nii"), "es": str(folder / "b_ES.nii")},
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a_ed.nii"], r"a_es\.nii does not exist, which a names"),
        (["a_ed.nii", "a_es.nii", "b_ed.nii"], r"b_es\.nii does not exist"),
        (["a.nii"], "a is no pair of NIfTI frames, no 4D file with known frames"),
        (["notes.txt"], "holds no short-axis cine"),
    ],
)
def test_an_incomplete_folder_is_refused(tmp_path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_studies(touch(tmp_path, *names))


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        find_studies(tmp_path / "x")


@pytest.mark.parametrize("whole", [True, False])
def test_a_datalist_gives_its_split(tmp_path, whole: bool) -> None:
    touch(tmp_path, "p1.nii", "p2.nii")

    def case(name: str) -> dict:
        return {"subject": name, "label": 0, "group": "NOR", "ed": f"{name}.nii", "es": f"{name}.nii"}

    datalist = {
        "format": 1, "site": "s", "dataset": "d", "task": "binary", "classes": ["NOR", "ABN"], "image_root": ".",
        "seed": 0, "training": [case("p1")], "validation": [], "test": [case("p2")],
    }  # fmt: skip
    (tmp_path / "datalist.json").write_text(json.dumps(datalist))
    path = tmp_path if whole else tmp_path / "datalist.json"
    assert [item["subject"] for item in find_studies(path)] == ["p2"]
    with pytest.raises(DataError, match=r"the validation split of .* is empty"):
        find_studies(path, split="validation")


def test_photographs_are_found_in_order_and_other_files_are_left_alone(tmp_path, caplog) -> None:
    folder = touch(tmp_path / "d", "b.JPG", "a.1.png", "c.jpeg", "d.tif", "e.TIFF", "._b.jpg", "g_ed.nii")
    (folder / "h.png").mkdir()
    names = {"a.1": "a.1.png", "b": "b.JPG", "c": "c.jpeg", "d": "d.tif", "e": "e.TIFF"}
    expected = [{"subject": subject, "image": str(folder / name)} for subject, name in names.items()]
    assert find_studies(folder, modality="image") == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"left out: 1 file ({folder}/._b.jpg): hidden, or one of the system's own files; "
        f"1 file ({folder}/g_ed.nii): no photograph, by the ending of its name"
    ]
    with pytest.raises(DataError, match=r"f\.gif is a picture of a format that is not read"):
        find_studies(touch(folder, "f.gif"), modality="image")


def test_a_csv_lists_cines_with_their_frames(tmp_path) -> None:
    touch(tmp_path, "c.nii.gz")
    (tmp_path / "list.csv").write_text("study,cine,ed_frame,es_frame\np1,c.nii.gz,0,7\n")
    assert find_studies(tmp_path / "list.csv") == [
        {"subject": "p1", "cine": str(tmp_path / "c.nii.gz"), "ed_frame": 0, "es_frame": 7}
    ]


def test_a_csv_lists_photographs_by_paths_relative_to_itself(tmp_path) -> None:
    touch(tmp_path / "d", "b.png", "a.jpg")
    (tmp_path / "list.csv").write_text(f"image,note\nd/b.png,x\n{tmp_path}/d/a.jpg,y\n")
    assert find_studies(tmp_path / "list.csv", modality="image") == [
        {"subject": "b", "image": str(tmp_path / "d" / "b.png")},
        {"subject": "a", "image": str(tmp_path / "d" / "a.jpg")},
    ]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image\nd/b.png\nd/c.png\n", r"c\.png does not exist"),
        ("image,note\nd/b.png,x\n,y\n", r"list\.csv:3: .* given: none"),
        ("file\nd/b.png\n", "column study is missing"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused(tmp_path, table: str, message: str) -> None:
    touch(tmp_path / "d", "b.png", "b.jpg")
    (tmp_path / "list.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        find_studies(tmp_path / "list.csv", modality="image")


def test_photographs_of_one_name_are_told_apart(tmp_path) -> None:
    found = find_studies(touch(tmp_path, "b.png", "b.jpg"), modality="image")
    assert [item["subject"] for item in found] == ["b.jpg", "b.png"]


def test_a_folder_without_photographs_is_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="holds no photograph"):
        find_studies(touch(tmp_path, "p_ed.nii", "p_es.nii"), modality="image")


def test_an_unknown_modality_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no modality 'ct'"):
        find_studies(tmp_path, modality="ct")


NAMES = st.text(st.sampled_from("ab_.- eéds\U0001f600"), min_size=1, max_size=12).filter(lambda n: n not in (".", ".."))


@given(st.lists(st.tuples(NAMES, st.sampled_from(["_ed.nii", "_es.nii.gz", "_ED.NII", ".nii", ""])), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_folder_gives_complete_pairs_or_an_error_that_names_it(tmp_path_factory, files) -> None:
    folder = touch(tmp_path_factory.mktemp("studies"), *(stem + end for stem, end in files))
    try:
        studies = find_studies(folder)
    except DataError as error:
        assert str(folder) in str(error)
    else:
        assert all(Path(study[frame]).is_file() for study in studies for frame in ("ed", "es"))
        assert len({study["subject"] for study in studies}) == len(studies) > 0


@given(st.lists(st.tuples(NAMES, st.sampled_from([".png", ".JPG", ".tiff", ".nii", ""])), max_size=6))
@settings(max_examples=60, deadline=None)
def test_any_folder_gives_distinct_photographs_or_an_error_that_names_it(tmp_path_factory, files) -> None:
    folder = touch(tmp_path_factory.mktemp("photographs"), *(stem + end for stem, end in files))
    try:
        studies = find_studies(folder, modality="image")
    except DataError as error:
        assert str(folder) in str(error)
    else:
        assert all(Path(study["image"]).is_file() for study in studies)
        assert len({study["subject"] for study in studies}) == len(studies) > 0
