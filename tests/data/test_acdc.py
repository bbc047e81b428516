"""ACDC's own layout, its variants and its accidents."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import monai_fedlora as fl
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.readers.acdc import GROUPS, read_acdc
from monai_fedlora.data.records import Cine, FramePair
from monai_fedlora.errors import DataError

SHORT = "ED: 1\nES: 12\nGroup: {group}\n"
LONG = "ED: 1\nES: 12\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"


@pytest.fixture
def patient(nifti):
    """Return ``add(folder, number, group, info=..., files=...)``."""

    def add(folder: Path, number: int, group: str = "DCM", *, info: str = SHORT, files=("frame01", "frame12")) -> Path:
        name = f"patient{number:03d}"
        for stem in files:
            nifti(folder / name / f"{name}_{stem}.nii.gz", (4, 4, 3, 20) if stem == "4d" else (4, 4, 3))
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "Info.cfg").write_text(info.format(group=group))
        return folder / name

    return add


def test_both_folders_are_read_with_their_published_split(tmp_path, patient):
    patient(tmp_path / "database" / "training", 2, "NOR", info=LONG)
    patient(tmp_path / "database" / "training", 1, "DCM")
    patient(tmp_path / "database" / "testing", 101, "RV")
    for source in (tmp_path, tmp_path / "database"):
        records = read_acdc(source)
        assert [(r.subject, r.group, r.split) for r in records] == [
            ("patient001", "DCM", "training"),
            ("patient002", "NOR", "training"),
            ("patient101", "RV", "test"),
        ]
    assert {(r.vendor, r.centre, round(r.spacing, 3)) for r in records} == {("siemens", "dijon", 1.5)}
    assert [r.split for r in read_acdc(tmp_path / "database" / "testing")] == ["test"]


def test_files_as_published_are_read_by_the_form_that_agrees_with_their_voxel_sizes(tmp_path, patient):
    """An sform of 1 mm, while the qform, half a turn about z, and pixdim tell the truth."""
    folder = patient(tmp_path, 1)
    for file in folder.glob("*.nii.gz"):
        header = bytearray(gzip.decompress(file.read_bytes()))
        spacing = struct.unpack_from("<3f", header, 80)
        struct.pack_into("<hh6f", header, 252, 1, 1, 0, 0, 1, 0, 0, 0)
        struct.pack_into("<12f", header, 280, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0)
        file.write_bytes(gzip.compress(bytes(header)))
    (record,) = read_acdc(tmp_path)
    assert record.spacing == pytest.approx(spacing[0])
    assert spacing[0] != 1
    assert any("sform" in note for note in record.notes)


def test_a_plain_folder_of_patients_has_no_published_split(tmp_path, patient):
    patient(tmp_path, 1)
    assert [r.split for r in read_acdc(tmp_path)] == [None]


def test_frame_files_are_preferred_and_the_4d_file_counts_from_one(tmp_path, patient):
    folder = patient(tmp_path, 1, files=("frame01", "frame12", "4d"))
    frames = [folder / f"patient001_frame{number}.nii.gz" for number in ("01", "12")]
    assert read_acdc(tmp_path)[0].images == FramePair(*frames)
    frames[1].unlink()
    assert read_acdc(tmp_path)[0].images == Cine(folder / "patient001_4d.nii.gz", 0, 11)


def test_uncompressed_files_are_found(tmp_path, patient, nifti):
    folder = patient(tmp_path, 1, files=())
    for number in ("01", "12"):
        nifti(folder / f"patient001_frame{number}.nii")
    files = read_acdc(tmp_path)[0].files()
    assert [file.name for file in files] == ["patient001_frame01.nii", "patient001_frame12.nii"]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("", r"Info\.cfg has no line 'ED"),
        ("ED: 1\nGroup: DCM\n", r"Info\.cfg has no line 'ES"),
        ("ED: 1\nES: 12\n", r"Info\.cfg has no line 'Group"),
        ("ED: 1\nES 12\nGroup: DCM\n", r"Info\.cfg:2: expected 'key: value'"),
        ("ED: 1\nES:\nGroup: DCM\n", r"Info\.cfg:2: expected 'key: value'"),
        ("ED: 1\nES: twelve\nGroup: DCM\n", r"Info\.cfg:2: ES must be a whole number"),
        ("ED: 0\nES: 12\nGroup: DCM\n", r"Info\.cfg:1: ED is 0, but frames count from 1"),
        ("ED: 12\nES: 12\nGroup: DCM\n", r"Info\.cfg: ED and ES are the same"),
        ("ED: 1\n\nES: 12\nGroup: XYZ\n", r"Info\.cfg:4: unknown pathology 'XYZ'"),
        ("ED: 1\nED: 2\nES: 12\nGroup: DCM\n", r"Info\.cfg:2: ED occurs twice"),
    ],
)
def test_a_wrong_info_line_is_named(tmp_path, patient, info, message):
    patient(tmp_path, 1, info=info)
    with pytest.raises(DataError, match=f"patient001/{message}"):
        read_acdc(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("frame01",), r"patient001_frame12\.nii\.gz \(ES\)"),
        (("frame12",), r"patient001_frame01\.nii\.gz \(ED\)"),
        ((), r"patient001_frame01\.nii\.gz \(ED\)"),
    ],
)
def test_a_missing_frame_is_named(tmp_path, patient, files, message):
    patient(tmp_path, 1, files=files)
    with pytest.raises(DataError, match=message):
        read_acdc(tmp_path)


def test_a_missing_info_file_is_named(tmp_path, patient):
    (patient(tmp_path, 1) / "Info.cfg").unlink()
    with pytest.raises(DataError, match=r"patient001/Info\.cfg does not exist"):
        read_acdc(tmp_path)


def test_a_frame_beyond_the_4d_file_is_named(tmp_path, patient):
    patient(tmp_path, 1, info="ED: 1\nES: 21\nGroup: DCM\n", files=("4d",))
    with pytest.raises(DataError, match=r"Info\.cfg: ES is frame 20 counted from 0.*20 frames"):
        read_acdc(tmp_path)


def test_frames_of_different_grids_are_refused(tmp_path, patient, nifti):
    folder = patient(tmp_path, 1)
    nifti(folder / "patient001_frame12.nii.gz", (4, 4, 2))
    read_acdc(tmp_path)
    nifti(folder / "patient001_frame12.nii.gz", (5, 4, 3))
    with pytest.raises(DataError, match="not on the same grid"):
        read_acdc(tmp_path)


def test_a_patient_in_two_folders_is_refused(tmp_path, patient):
    patient(tmp_path / "training", 1)
    patient(tmp_path / "testing", 1)
    with pytest.raises(DataError, match=r"patient001 occurs twice.*training.*testing"):
        read_acdc(tmp_path)


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(DataError, match="no ACDC patient"):
        read_acdc(tmp_path)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=40)
    | st.lists(st.tuples(st.sampled_from(["ED", "ES", "Group", "x"]), st.sampled_from(["1", "12", "RV", "-", ""])))
    .map(lambda pairs: "\n".join(": ".join(pair) for pair in pairs))
    .map(str.encode)
)
def test_any_info_file_gives_a_data_error_or_a_group(tmp_path, patient, content):
    info = patient(tmp_path, 1) / "Info.cfg"
    info.write_bytes(content)
    try:
        records = read_acdc(tmp_path)
    except DataError:
        return
    assert records[0].group in GROUPS


@pytest.mark.realdata
@pytest.mark.skipif("MONAI_FEDLORA_REAL_DATA" not in os.environ, reason="MONAI_FEDLORA_REAL_DATA is not set")
def test_the_real_dataset_is_read_completely():
    records = read_acdc(Path(os.environ["MONAI_FEDLORA_REAL_DATA"]) / "acdc")
    folders = list(Path(os.environ["MONAI_FEDLORA_REAL_DATA"]).glob("acdc/database/t*ing/patient*"))
    assert len(records) == len(folders) >= 80
    assert {record.group for record in records} == set(GROUPS)
    assert all(0.5 < record.spacing < 3 for record in records)


def test_a_phantom_with_masks_is_prepared_as_a_segmentation_site(tmp_path):
    hearts = fl.phantom("acdc", output=tmp_path / "acdc", patients=5)
    prepared = fl.prepare("acdc", source=hearts, output=tmp_path / "sites", site="north", task="segmentation")

    (datalist,) = prepared.datalists
    assert load_datalist(tmp_path / "sites" / "north" / "datalist.json") == datalist
    assert (datalist.task, datalist.classes) == ("segmentation", ("LV", "MYO", "RV"))
    (item, *_) = datalist.items("training")
    assert item["mask_values"] == [3, 2, 1] and Path(item["ed_mask"]).is_file()
    assert prepared.table().rows[0][:2] == ["north", "all"]


def test_a_mask_of_one_frame_alone_is_named(tmp_path):
    hearts = fl.phantom("acdc", output=tmp_path / "acdc", patients=5)
    sorted(Path(hearts).rglob("*_gt.nii.gz"))[0].unlink()
    with pytest.raises(DataError, match=r"has a mask of one frame"):
        fl.prepare("acdc", source=hearts, output=tmp_path / "sites", site="north", task="segmentation")


def test_a_csv_with_masks_of_one_structure_says_so(tmp_path):
    hearts = Path(fl.phantom("acdc", output=tmp_path / "acdc", patients=4))
    lines = ["subject,label,ed_image,es_image,ed_mask,es_mask"]
    for mask in sorted(hearts.rglob("*_frame01_gt.nii.gz")):
        es = next(m for m in sorted(mask.parent.glob("*_gt.nii.gz")) if m != mask)
        images = [str(file).replace("_gt", "") for file in (mask, es)]
        lines.append(",".join([mask.parent.name, "NOR", *images, str(mask), str(es)]))
    (tmp_path / "all.csv").write_text("\n".join(lines))
    (site,) = fl.prepare(
        "csv",
        source=tmp_path / "all.csv",
        output=tmp_path / "sites",
        site="a",
        task="segmentation",
        mask_values={"LV": 3},
    ).datalists

    assert site.classes == ("LV", "MYO", "RV") and site.training[0].mask_values == (3, 0, 0)
