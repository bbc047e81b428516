"""The M&Ms layout: one csv, 4D files in four folders."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import monai_fedlora as fl
from monai_fedlora.data.readers.mnms import GROUPS, read_mnms
from monai_fedlora.data.records import Cine
from monai_fedlora.errors import DataError
from monai_fedlora.transforms.cine import LoadCined

NAME = "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv"
HEADER = ",External code,VendorName,Vendor,Centre,ED,ES,Age,Pathology,Sex,Height,Weight"
ROWS = [
    "0,A0S9V9,Siemens,A,1,0,9,28,HCM,M,168.0,72.0",
    "1,B1K2P5,Philips,B,2,13.0,5.0,40,NOR,F,,",
    "2,C5C2D2,GE,C,4,0,7,60,Other,M,168.0,72.0",
    "3,D7Q8R9,Canon,D,5,19,8,60,DCM,F,168.0,72.0",
]
FOLDERS = ["Training/Labeled", "Training/Unlabeled", "Validation", "Testing"]


@pytest.fixture
def root(tmp_path, nifti) -> Path:
    root = tmp_path / "OpenDataset"
    for row, folder in zip(ROWS, FOLDERS, strict=True):
        code = row.split(",")[1]
        nifti(root / folder / code / f"{code}_sa.nii.gz", (4, 4, 3, 20))
        nifti(root / folder / code / f"{code}_sa_gt.nii.gz", (4, 4, 3, 20))
    write(root, ROWS)
    return root


def write(root: Path, rows: list[str], header: str = HEADER, name: str = NAME) -> None:
    (root / name).write_text("\n".join([header, *rows]) + "\n")


def test_the_open_dataset_is_read_with_vendor_centre_and_split(root):
    for source in (root, root.parent):
        records = read_mnms(source)
        assert [(r.subject, r.group, r.vendor, r.centre, r.split) for r in records] == [
            ("A0S9V9", "HCM", "siemens", "1", "training"),
            ("B1K2P5", "NOR", "philips", "2", "training"),
            ("C5C2D2", "Other", "ge", "4", "validation"),
            ("D7Q8R9", "DCM", "canon", "5", "test"),
        ]
    assert records[1].images == Cine(root / "Training/Unlabeled/B1K2P5/B1K2P5_sa.nii.gz", 13, 5)


def older(row: str) -> str:
    cells = row.split(",")
    return ",".join([cells[1], *cells[3:7]])


def test_the_older_csv_gives_no_group_and_the_newer_is_preferred(root):
    write(root, [older(row) for row in ROWS], "External code,Vendor,Centre,ED,ES", "older.csv")
    assert [r.group for r in read_mnms(root)] == ["HCM", "NOR", "Other", "DCM"]
    (root / NAME).unlink()
    assert [(r.group, r.vendor) for r in read_mnms(root)] == [
        (None, "siemens"),
        (None, "philips"),
        (None, "ge"),
        (None, "canon"),
    ]


def test_a_csv_of_something_else_is_passed_over(root):
    (root / "another.csv").write_bytes(b"\xff\xfe")
    (root / "empty.csv").touch()
    assert len(read_mnms(root)) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0,A0S9V9,Siemens,A,1,,9,28,HCM,M,1,1", ":2: ED is empty"),
        ("0,A0S9V9,Siemens,A,1,0,,28,HCM,M,1,1", ":2: ES is empty"),
        ("0,A0S9V9,Siemens,A,1,0,20,28,HCM,M,1,1", ":2: ES is frame 20 counted from 0.*20 frames"),
        ("0,A0S9V9,Siemens,A,1,9,9,28,HCM,M,1,1", ":2: ED and ES are the same frame 9"),
        ("0,A0S9V9,Siemens,A,1,0,9.5,28,HCM,M,1,1", ":2: ES must be a whole number"),
        ("0,A0S9V9,Siemens,A,1,0,9,28,HCMX,M,1,1", ":2: unknown pathology 'HCMX'"),
        ("0,A0S9V9,Siemens,A,1,0,9,28,,M,1,1", ":2: Pathology is empty"),
        ("0,A0S9V9,Siemens,E,1,0,9,28,HCM,M,1,1", ":2: vendor 'E' is unknown"),
        ("0,A0S9V9,Philips,A,1,0,9,28,HCM,M,1,1", ":2: vendor A is siemens"),
        ("0,Z9Z9Z9,Siemens,A,1,0,9,28,HCM,M,1,1", ":2: no folder has Z9Z9Z9_sa"),
        ("0,B1K2P5,Siemens,A,1,0,9,28,HCM,M,1,1", "B1K2P5 occurs twice: .*:2 and .*:3"),
    ],
)
def test_a_wrong_line_is_named(root, row, message):
    write(root, [row, *ROWS[1:]])
    with pytest.raises(DataError, match=message):
        read_mnms(root)


def test_folders_and_csv_must_list_the_same_patients(root, nifti):
    write(root, ROWS[:3])
    with pytest.raises(DataError, match="D7Q8R9 is not listed in"):
        read_mnms(root)
    write(root, ROWS)
    nifti(root / "Testing/A0S9V9/A0S9V9_sa.nii.gz", (4, 4, 3, 20))
    with pytest.raises(DataError, match=r"A0S9V9 lies in .*Labeled/A0S9V9 and in .*Testing/A0S9V9"):
        read_mnms(root)


def test_a_3d_file_in_place_of_the_cine_is_named(root, nifti):
    nifti(root / "Testing/D7Q8R9/D7Q8R9_sa.nii.gz", (4, 4, 3))
    with pytest.raises(DataError, match=r"D7Q8R9_sa\.nii\.gz has 3 axes"):
        read_mnms(root)


def test_a_folder_without_the_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match="no readable csv with a column 'External code'"):
        read_mnms(tmp_path)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.integers(0, 3), column=st.integers(0, 11), cell=st.text(max_size=6))
def test_any_garbled_cell_gives_a_data_error_or_a_known_group(root, line, column, cell):
    cells = ROWS[line].split(",")
    cells[column] = cell
    write(root, [*ROWS[:line], ",".join(cells), *ROWS[line + 1 :]])
    try:
        records = read_mnms(root)
    except DataError:
        return
    assert {record.group for record in records} <= set(GROUPS)
    for record in records:
        assert isinstance(record.images, Cine)
        assert 0 <= record.images.ed < 20
        assert 0 <= record.images.es < 20


def test_what_a_mac_puts_beside_files_is_passed_over_and_capital_endings_are_read(root):
    for folder in (root / "Testing/D7Q8R9", root / "Testing/__MACOSX/D7Q8R9", root / "Testing/__MACOSX"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "._D7Q8R9_sa.nii.gz").write_bytes(b"\0\5\x16\7")
    (root / f"._{NAME}").write_bytes(b"\0\5\x16\7")
    file = root / "Testing/D7Q8R9/D7Q8R9_sa.nii.gz"
    file.rename(file.with_name("D7Q8R9_SA.NII.GZ"))
    assert read_mnms(root)[3].images == Cine(file.with_name("D7Q8R9_SA.NII.GZ"), 19, 8)


@pytest.mark.slow
def test_a_phantom_with_masks_is_prepared_and_read_as_a_segmentation_site(tmp_path):
    hearts = fl.phantom("mnms", output=tmp_path / "mnms", patients=4)
    (site,) = fl.prepare("mnms", source=hearts, output=tmp_path / "sites", site="north", task="segmentation").datalists

    loaded = LoadCined()(site.items("training")[0])

    assert site.training[0].mask_values == (1, 2, 3)
    assert loaded["mask"].shape == loaded["image"].shape and loaded["mask"].unique().tolist() == [0, 1, 2, 3]
