"""What inputs mean: files, pairs, folders, archives and lists; nothing in them vanishes."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import DataError
from monai_fedlora.studies.finding import Found, find_studies
from monai_fedlora.studies.study import CineFile, DicomFiles, LeftOut, Packed, Study, Unusable


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def cines(*inputs: Path) -> list[Study]:
    return list(find_studies(inputs, modality="cine").studies)


def photographs(*inputs: Path) -> list[Study]:
    return list(find_studies(inputs, modality="image").studies)


@pytest.mark.parametrize(
    ("ed", "es"), [("p_ed.nii.gz", "p_es.nii.gz"), ("p_ED.nii", "p_ES.NII.GZ"), ("p_ed.nii", "p_es.nii.gz")]
)
@pytest.mark.parametrize("given", ["ed", "es", "both", "folder", "patients"])
def test_a_pair_is_one_study_however_it_is_given(tmp_path: Path, ed: str, es: str, given: str) -> None:
    first, second = touch(tmp_path, f"x/{ed}", f"x/{es}")
    inputs = {
        "ed": [first], "es": [second], "both": [second, first], "folder": [first.parent], "patients": [tmp_path],
    }[given]  # fmt: skip
    assert cines(*inputs) == [Study("p", FramePair(first, second))]


def test_a_line_break_in_a_name_parts_no_pair(tmp_path: Path) -> None:
    first, second = touch(tmp_path, "a\nb_ed.nii.gz", "a\nb_es.nii.gz")
    assert cines(tmp_path) == [Study("a\\nb", FramePair(first, second))]


def test_missing_partner_is_looked_for_when_the_study_is_read(tmp_path: Path) -> None:
    (ed,) = touch(tmp_path, "fred_ed.nii.gz")
    assert cines(ed) == cines(tmp_path) == [Study("fred", FramePair(ed, tmp_path / "fred_es.nii.gz"))]


def test_other_nifti_files_are_cines_and_single_files_dicom(tmp_path: Path) -> None:
    four, upper, single = touch(tmp_path, "a.b.nii.gz", "C.NII.GZ", "d.dcm")
    assert cines(four, upper, single) == [
        Study("a.b", CineFile(four)),
        Study("C", CineFile(upper)),
        Study("d", DicomFiles(single)),
    ]


def test_dicom_folder_is_one_study_whatever_lies_beside_the_images(study_folder: Path) -> None:
    touch(study_folder, "notes.txt", ".hidden.nii", "__MACOSX/._IM0001")
    assert cines(study_folder) == [Study("heart", DicomFiles(study_folder))]
    archive = Path(shutil.make_archive(str(study_folder.parent / "P7"), "zip", study_folder))
    assert cines(archive) == [Study("P7", DicomFiles(archive))]


def test_photographs_are_studies_by_file(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", ".c.png", "sub/d.tif")
    found = find_studies([tmp_path], modality="image")
    assert list(found.studies) == [
        Study("a", Photograph(tmp_path / "a.png")),
        Study("b", Photograph(tmp_path / "b.JPG")),
        Study("d", Photograph(tmp_path / "sub/d.tif")),
    ]
    assert {Path(entry.file).name for entry in found.left_out} == {"notes.txt", ".c.png"}


def test_a_mask_beside_its_photograph_is_left_out_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "ISIC_1.jpg", "ISIC_1_segmentation.png", "ISIC_2_Segmentation.png", "more/ISIC_1_segmentation.png")
    found = find_studies([tmp_path], modality="image")
    assert [study.name for study in found.studies] == ["ISIC_1", "ISIC_2_Segmentation", "ISIC_1_segmentation"]
    (left,) = found.left_out
    assert Path(left.file) == tmp_path / "ISIC_1_segmentation.png" and left.reason == "a segmentation of another file"


def test_picture_of_another_format_is_a_study_that_fails(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "d.HEIC", "e.dng")
    _, heic, raw = photographs(tmp_path)
    assert isinstance(heic.files, Unusable) and isinstance(raw.files, Unusable)
    assert (heic.name, raw.name) == ("d", "e")
    assert "d.HEIC is a picture of a format that is not read" in heic.files.reason


def test_studies_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = touch(tmp_path, "x/a.png", "y/a.png", "x/a.jpg", "x/b.png")
    assert [study.name for study in photographs(*files)] == ["x/a", "y/a", "a.jpg", "b"]
    touch(tmp_path, "c/p1/cine.nii", "c/p2/cine.nii", "d/p1/cine.nii")
    assert [study.name for study in cines(tmp_path / "c")] == ["p1/cine", "p2/cine"]
    assert [study.name for study in cines(tmp_path / "c", tmp_path / "d")] == [
        "c/p1/cine.nii",
        "p2/cine",
        "d/p1/cine.nii",
    ]


def test_the_same_study_twice_is_one(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "a.png")
    assert len(photographs(file, file)) == 1


def test_names_may_be_in_any_encoding(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"l\xe9sion.jpg"), "a\nb.jpg")
    assert [study.name for study in photographs(tmp_path)] == [r"a\nb", r"l\xe9sion"]


def test_mistyped_input_is_refused_before_anything_else(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        photographs(file, tmp_path / "b.png")


@pytest.mark.parametrize("modality", ["cine", "image"])
def test_inputs_without_a_study_are_refused_with_what_they_hold(tmp_path: Path, modality: str) -> None:
    with pytest.raises(DataError, match=r"nothing to classify: .* holds no file"):
        find_studies([tmp_path], modality=modality)
    touch(tmp_path, "notes.txt")
    with pytest.raises(DataError, match=r"holds 1 other files, such as .*notes\.txt"):
        find_studies([tmp_path], modality=modality)
    with pytest.raises(DataError, match="no input"):
        find_studies([], modality=modality)


def test_dicom_that_names_no_study_is_told_from_what_is_no_dicom(study_folder: Path) -> None:
    import pydicom

    files = [path for path in study_folder.rglob("*") if path.is_file()]
    for path in files[2:]:
        path.unlink()
    for path in files[:2]:
        dataset = pydicom.dcmread(path)
        del dataset.StudyInstanceUID
        dataset.save_as(path)
    touch(study_folder, "notes.txt")
    with pytest.raises(DataError, match=r"holds 3 other files.* 2 files .*: DICOM without a StudyInstanceUID"):
        cines(study_folder)


def test_folder_without_a_study_does_not_end_the_others(tmp_path: Path) -> None:
    touch(tmp_path, "empty/notes.txt")
    (file,) = touch(tmp_path, "a.png")
    empty, good = photographs(tmp_path / "empty", file)
    assert isinstance(empty.files, Unusable) and empty.name == "empty"
    assert good == Study("a", Photograph(file))


INFO = "ED: 1\nES: 12\nGroup: DCM\nNbFrame: 30\n"


def acdc(folder: Path, info: str | None, *frames: str) -> list[Path]:
    files = touch(folder, *(f"patient061_{frame}.nii.gz" for frame in frames))
    if info is not None:
        (folder / "Info.cfg").write_text(info)
    return files


def test_acdc_patient_is_the_frames_that_info_names(tmp_path: Path) -> None:
    files = acdc(tmp_path / "patient061", INFO, "4d", "frame01", "frame01_gt", "frame12", "frame12_gt")
    pair = Study("patient061", FramePair(files[1], files[3]))
    found = find_studies([tmp_path], modality="cine")
    assert [(study.name, study.files) for study in found.studies] == [("patient061", pair.files)]
    assert {(Path(entry.file).name, entry.reason) for entry in found.left_out} == {
        ("patient061_4d.nii.gz", "Info.cfg names frames 1 and 12, which are files of their own"),
        ("patient061_frame01_gt.nii.gz", "a segmentation of another file"),
        ("patient061_frame12_gt.nii.gz", "a segmentation of another file"),
    }
    assert "3 file" not in found.studies[0].quotes[0] and "left out beside it" in found.studies[0].quotes[0]
    assert cines(files[1]) == cines(files[3], files[1]) == [pair]
    assert cines(files[0])[0].files == CineFile(files[0])
    with pytest.raises(DataError, match="a segmentation of another file"):
        cines(files[2])


def test_acdc_patient_without_frames_is_the_whole_cine(tmp_path: Path) -> None:
    (whole,) = acdc(tmp_path, INFO, "4d")
    assert cines(tmp_path) == [Study("patient061", CineFile(whole, (0, 11)))]
    (tmp_path / "Info.cfg").unlink()
    assert cines(tmp_path) == [Study("patient061_4d", CineFile(whole))]


@pytest.mark.parametrize(
    ("info", "frames", "message"),
    [
        (None, ("frame01", "frame12"), "no Info.cfg"),
        ("ED: 1\nGroup: DCM\n", ("frame01", "frame12"), "one frame as ED and one as ES"),
        (INFO, ("frame01",), "ES is frame 12, which is not there"),
    ],
)
def test_acdc_patient_with_something_missing_is_told_what(
    tmp_path: Path, info: str | None, frames: tuple[str, ...], message: str
) -> None:
    acdc(tmp_path / "p", info, *frames)
    for path in (tmp_path, tmp_path / "p" / "patient061_frame01.nii.gz"):
        with pytest.raises(DataError, match=message):
            cines(path)


def test_mnms_patients_are_their_cines(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}/{name}_sa{end}.nii.gz" for name in ("A1", "B2") for end in ("", "_gt")), "data.csv")
    found = find_studies([tmp_path], modality="cine")
    assert [study.name for study in found.studies] == ["A1_sa", "B2_sa"]
    assert {Path(entry.file).name for entry in found.left_out} == {"A1_sa_gt.nii.gz", "B2_sa_gt.nii.gz", "data.csv"}


def pack(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            packed.writestr(name, b"")
    return path


def test_archive_may_hold_many_studies(tmp_path: Path) -> None:
    names = ["Müller: 3/p_ed.nii.gz", "Müller: 3/p_es.nii.gz", "q\\r.nii", "__MACOSX/p/._p_ed.nii.gz", "inner.zip"]
    archive = pack(tmp_path / "batch.zip", *names)
    found = find_studies([tmp_path], modality="cine")
    assert list(found.studies) == [
        Study("p", Packed(archive, FramePair(Path(names[0]), Path(names[1])))),
        Study("r", Packed(archive, CineFile(Path("q/r.nii")))),
    ]
    assert {(Path(entry.file).name, entry.reason[:13]) for entry in found.left_out} == {
        ("._p_ed.nii.gz", "hidden, or on"),
        ("inner.zip", "an archive in"),
    }
    pictures = pack(tmp_path / "pictures.zip", "a.jpg", "b/a.png")
    assert photographs(pictures) == [
        Study("a.jpg", Packed(pictures, Photograph(Path("a.jpg")))),
        Study("a.png", Packed(pictures, Photograph(Path("b/a.png")))),
    ]


def test_damaged_archive_costs_itself_alone(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    pack(tmp_path / "good.zip", "a.nii")
    pack(tmp_path / "none.zip", "a.txt")
    bad, good, none = cines(tmp_path)
    assert isinstance(bad.files, Unusable) and "bad.zip cannot be unpacked" in bad.files.reason
    assert isinstance(none.files, Unusable) and "holds no short-axis cine" in none.files.reason
    assert good.name == "a"


@pytest.fixture
def two_studies(stored_study: Path, tmp_path: Path) -> Path:
    """A folder with one DICOM study twice, under two UIDs, in patients' folders."""
    import pydicom

    folder = tmp_path / "export"
    for patient, uid in (("p1", "1.2.1"), ("p2", "1.2.2")):
        for file in sorted(stored_study.rglob("*"))[:6]:
            if file.is_file():
                dataset = pydicom.dcmread(file)
                dataset.StudyInstanceUID = uid
                (folder / patient / "series").mkdir(parents=True, exist_ok=True)
                dataset.save_as(folder / patient / "series" / file.name)
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_folder_of_dicom_studies_is_a_batch(two_studies: Path, packed: bool) -> None:
    (two_studies / "p1" / "series" / "notes.txt").write_text("x")
    (two_studies / "readme.txt").write_text("x")
    origin = Path(shutil.make_archive(str(two_studies), "zip", two_studies)) if packed else two_studies
    found = find_studies([origin], modality="cine")
    assert [study.name for study in found.studies] == ["p1", "p2"]
    for study in found.studies:
        assert isinstance(study.files, DicomFiles) and study.files.path == origin
        assert all(member.startswith(f"{study.name}/series/") for member in study.files.members)
    assert [Path(entry.file).name for entry in found.left_out] == ["readme.txt"]
    assert "p1/series/notes.txt" in found.studies[0].files.members  # its reader names it


def test_deep_and_linked_folders_are_left_out_by_name(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 18)
    touch(tmp_path, f"{deep}/a.png", "b.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = find_studies([tmp_path], modality="image")
    assert [study.name for study in found.studies] == ["b"]
    assert {entry.reason for entry in found.left_out} == {"a link to a folder", "more than 16 folders deep"}


NAMES = st.sampled_from(
    ["a.nii", "a_ed.nii.gz", "a_es.nii", "a_ES.nii.gz", "a_gt.nii", "p_frame01.nii", "p_frame02.nii.gz", "p_4d.nii.gz",
     "a.jpg", "a.PNG", "b.heic", "x.txt", "Info.cfg", "._a.nii", "Thumbs.db", "IM1", "b.tif", "l\udce9.jpg"]
)  # fmt: skip
TREES = st.lists(st.builds("/".join, st.tuples(st.sampled_from(["x", "x/y", "z", "__MACOSX"]), NAMES)), unique=True)


def accounted(found: Found, root: Path, files: list[Path]) -> set[Path]:
    """The files that are a study's, named in a reason, or left out."""
    left = {entry.file for entry in found.left_out}
    used: set[Path] = set()
    for study in found.studies:
        if isinstance(study.files, FramePair):
            used |= {study.files.ed, study.files.es}
        elif isinstance(study.files, (CineFile, Photograph)):
            used.add(study.files.file)
        elif isinstance(study.files, DicomFiles):
            used |= set(files) if not study.files.members else {root / name for name in study.files.members}
        elif isinstance(study.files, Unusable):
            used |= {file for file in files if file.name in study.files.reason}
    shown = {file: str(file).replace("\udce9", r"\xe9") for file in files}
    return {file for file in files if file in used or any(shown[file].startswith(name) for name in left)}


@given(names=TREES, modality=st.sampled_from(["cine", "image"]))
def test_every_file_is_used_or_named(tmp_path_factory: pytest.TempPathFactory, names: list[str], modality: str) -> None:
    root = tmp_path_factory.mktemp("tree")
    files = touch(root, *names)
    try:
        found = find_studies([root], modality=modality)
    except DataError as error:
        assert "nothing to classify" in str(error)
        return
    lost = set(files) - accounted(found, root, files)
    assert {file.name for file in lost} <= {"Info.cfg"}  # what was read of it is in the study
    assert len({study.name for study in found.studies}) == len(found.studies)
    assert all(isinstance(entry, LeftOut) and entry.reason for entry in found.left_out)
