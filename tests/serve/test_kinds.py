"""One upload is one study of a kind that the model takes, or a sentence that says why not."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

import pytest

from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.serve.disk import Disk, Share
from monai_fedlora.serve.kinds import make_study
from monai_fedlora.serve.names import stored_suffix
from monai_fedlora.serve.refusal import Refused
from monai_fedlora.serve.uploads import Received, StoredFile
from monai_fedlora.studies.study import CineFile, DicomFiles, Study

DICOM = bytes(128) + b"DICM" + b"rest"
LIMIT = 1 << 22


def received(folder: Path, *files: tuple[str, bytes], modality: str = "cine") -> Received:
    """What is received of files under the names."""
    found = Received()
    for name, content in files:
        suffix = stored_suffix(name, modality)
        if suffix is None:
            found.passed_over.append(name)
            continue
        path = folder / f"{len(found.files):06d}{suffix}"
        path.write_bytes(content)
        found.files.append(StoredFile(path, name))
    return found


def study(folder: Path, *files: tuple[str, bytes], modality: str = "cine") -> Study:
    found = received(folder, *files, modality=modality)
    return make_study(found, modality=modality, folder=folder, limit=LIMIT, share=Share(Disk(1 << 30)))[0]


def packed(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def test_dicom_without_preamble_is_dicom(tmp_path: Path) -> None:
    found = study(tmp_path, ("heart/IM1", b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"))
    assert isinstance(found.files, DicomFiles)


def test_dicom_files_are_the_folder_they_lie_in(tmp_path: Path) -> None:
    found = study(tmp_path, ("heart/IM1", DICOM), ("heart/notes.txt", b"x"), ("heart/README", b"x"))
    files = DicomFiles(tmp_path, names=(("000000.dcm", "heart/IM1"), ("000001.dcm", "heart/README")))
    assert found == Study("heart", files, ("left out: 1 file (heart/notes.txt): of no kind that the model takes",))


def test_loose_files_are_called_after_themselves(tmp_path: Path) -> None:
    assert study(tmp_path, ("IM1.dcm", DICOM)).name == "IM1"
    assert study(tmp_path, ("scan0007", DICOM)).name == "scan0007"
    assert study(tmp_path, ("IM2.dcm", DICOM), ("IM1.dcm", DICOM), ("IM3.dcm", DICOM)).name == "IM1 and 2 more"


def test_nifti_files_are_a_cine_or_a_pair(tmp_path: Path) -> None:
    assert study(tmp_path, ("P1.nii.gz", b"x")) == Study("P1", CineFile(tmp_path / "000000.nii.gz"))
    pair = FramePair(tmp_path / "000001.nii", tmp_path / "000000.nii.gz")
    assert study(tmp_path, ("d/P1_ES.nii.gz", b"x"), ("d/P1_ed.nii", b"x")) == Study("P1", pair)


def test_photograph_is_one_file(tmp_path: Path) -> None:
    found = study(tmp_path, ("mole.JPG", b"x"), ("notes.txt", b"x"), modality="image")
    assert (found.name, found.files) == ("mole", Photograph(tmp_path / "000000.jpg"))
    assert found.quotes == ("left out: 1 file (notes.txt): of no kind that the model takes",)


def test_archive_gives_its_members_and_is_removed(tmp_path: Path) -> None:
    archive = packed(("heart/IM1", DICOM), ("heart/", b""), ("heart/.hidden", DICOM), ("heart/report.pdf", b"x"))
    share = Share(Disk(1 << 30))
    share.take(len(archive))
    found, files = make_study(
        received(tmp_path, ("P7.zip", archive)), modality="cine", folder=tmp_path, limit=LIMIT, share=share
    )
    assert found == Study("P7", DicomFiles(tmp_path, names=(("m000000.dcm", "heart/IM1"),)))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [DICOM]
    assert [file.name for file in files] == ["P7.zip", "heart/IM1"]


def test_archive_may_be_named_in_any_language_and_on_any_system(tmp_path: Path) -> None:
    found = study(tmp_path, ("P7.zip", packed(("10:30\\皮肤", DICOM), ("C:\\IM2", DICOM), ("__MACOSX/._IM2", DICOM))))
    assert found.name == "P7"
    assert isinstance(found.files, DicomFiles)
    assert [name for _, name in found.files.names] == ["10:30/皮肤", "C:/IM2"]


INFO = b"ED: 1\nES: 12\n"


def test_acdc_patient_is_the_frames_that_info_names(tmp_path: Path) -> None:
    files = [(f"p/p061_{frame}.nii.gz", b"x") for frame in ("4d", "frame01", "frame01_gt", "frame12", "frame12_gt")]
    found = study(tmp_path, *files, ("p/Info.cfg", INFO), ("p/notes.txt", b"x"))
    pair = FramePair(tmp_path / "000001.nii.gz", tmp_path / "000003.nii.gz")
    assert (found.name, found.files) == ("p061", pair)
    said = "; ".join(found.quotes)
    assert "p061_4d" in said and "2 files (p/p061_frame01_gt.nii.gz, p/p061_frame12_gt.nii.gz): a segm" in said
    assert "1 file (p/notes.txt): of no kind" in said


def test_acdc_patient_without_its_info_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"which of p061_frame01\.nii, p061_frame12\.nii is end-diastole"):
        study(tmp_path, ("p061_frame01.nii", b"x"), ("p061_frame12.nii", b"x"))


def test_archive_may_hold_a_pair(tmp_path: Path) -> None:
    found = study(tmp_path, ("P7.zip", packed(("P7_ed.nii.gz", b"d"), ("P7_es.nii.gz", b"s"))))
    assert isinstance(found.files, FramePair)
    assert (found.files.ed.read_bytes(), found.files.es.read_bytes()) == (b"d", b"s")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (("../evil", DICOM), "leads outside"),
        (("a/../../evil", DICOM), "leads outside"),
        (("/etc/evil", DICOM), "leads outside"),
        (("..\\evil", DICOM), "leads outside"),
        ((link("IM2"), b"/etc/passwd"), "is a link"),
        (("IM2", bytes(3 << 20)), "times its size"),
    ],
)
def test_dangerous_archive_is_refused(tmp_path: Path, member: tuple[str, bytes], message: str) -> None:
    folder = tmp_path / "upload"
    folder.mkdir()
    with pytest.raises(Refused, match=f"bad.zip cannot be used: .*{message}") as refusal:
        study(folder, ("bad.zip", packed(("IM1", DICOM), member)))
    assert refusal.value.status == 400
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]
    assert [path.name for path in folder.iterdir()] == ["000000.zip"]


def test_archive_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    members = [(f"IM{index}", DICOM + bytes(range(256)) * 3000) for index in range(7)]
    with pytest.raises(Refused, match="unpacks to more than"):
        study(tmp_path, ("large.zip", packed(*members)))


def test_member_that_is_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    honest = packed(("IM1", DICOM * 1000))
    lying = honest.replace((1000 * len(DICOM)).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    assert lying != honest
    with pytest.raises(Refused, match=r"lie.zip cannot be used"):
        study(tmp_path, ("lie.zip", lying))


@pytest.mark.parametrize(
    ("files", "modality", "status", "message"),
    [
        ([], "cine", 415, "no file arrived"),
        ([("run.exe", b"MZ")], "cine", 415, "run.exe is not of a kind that the model takes; send a DICOM study"),
        ([("a.pdf", b"x"), ("b.txt", b"x")], "cine", 415, "none of the 2 files is of a kind"),
        ([("mole.jpg", b"x")], "cine", 415, "mole.jpg is not of a kind"),
        ([("P.nii.gz", b"x")], "image", 415, "P.nii.gz is not of a kind that the model takes; send a JPEG"),
        ([("IM1", b"no DICOM"), ("IM2", b"")], "cine", 415, "none of the 2 files is a DICOM image"),
        ([("empty.zip", packed())], "cine", 400, "empty.zip"),
        ([("x.zip", packed(("x.pdf", b"x")))], "cine", 400, "holds no file that the model takes"),
        ([("x.zip", b"no archive")], "cine", 400, "not a sound zip file"),
        ([("x.zip", packed(("IM1", b"x")))], "cine", 415, "is a DICOM image"),
        ([("x.zip", packed(("IM1", DICOM))), ("IM1", DICOM)], "cine", 400, "together with other files"),
        ([("P.nii", b"x"), ("IM1", DICOM)], "cine", 400, "DICOM and NIfTI"),
        ([("P_ed.nii", b"x")], "cine", 400, "one of two frames"),
        ([("P_ed.nii", b"x"), ("Q_es.nii", b"x")], "cine", 400, "with the same NAME"),
        ([("P_ed.nii", b"x"), ("P_ed.nii.gz", b"x")], "cine", 400, "with the same NAME"),
        ([("P.nii", b"x"), ("Q.nii", b"x")], "cine", 400, "2 NIfTI files"),
        ([("P_ed.nii", b"x"), ("P_es.nii", b"x"), ("P.nii", b"x")], "cine", 400, "3 NIfTI files"),
        ([("a.png", b"x"), ("b.png", b"x")], "image", 400, "send each by itself"),
    ],
)
def test_what_is_no_study_is_refused(
    tmp_path: Path, files: list[tuple[str, bytes]], modality: str, status: int, message: str
) -> None:
    with pytest.raises(Refused, match=message) as refusal:
        study(tmp_path, *files, modality=modality)
    assert refusal.value.status == status
