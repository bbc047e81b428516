"""The M&Ms-2 layout: one csv with trailing empty lines, ED and ES files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import monai_fedlora as fl
from monai_fedlora.data.readers.mnms2 import GROUPS, read_mnms2
from monai_fedlora.errors import DataError

ROWS = [
    "1,NOR,GE MEDICAL SYSTEMS,SIGNA EXCITE,1.5",
    "41,LV,SIEMENS,SymphonyTim,1.5",
    "160,FALL,Philips Medical Systems,Achieva,1.5",
    "161,TRI,SIEMENS,SymphonyTim,1.5",
    "201,RV,SIEMENS,SymphonyTim,3.0",
]


@pytest.fixture
def root(tmp_path, nifti) -> Path:
    root = tmp_path / "MnM2"
    for row in ROWS:
        code = f"{int(row.split(',')[0]):03d}"
        for phase in ("ED", "ES"):
            nifti(root / "dataset" / code / f"{code}_SA_{phase}.nii.gz")
    write(root, ROWS)
    return root


def write(root: Path, rows: list[str]) -> None:
    (root / "dataset_information.csv").write_text(
        "\n".join(["SUBJECT_CODE,DISEASE,VENDOR,SCANNER,FIELD", *rows, ",,,,", ",,,,"]) + "\n"
    )


def test_codes_are_padded_vendors_shortened_and_splits_follow_the_code(root):
    for source in (root, root.parent):
        assert [(r.subject, r.group, r.vendor, r.split) for r in read_mnms2(source)] == [
            ("001", "NOR", "ge", "training"),
            ("041", "LV", "siemens", "training"),
            ("160", "FALL", "philips", "training"),
            ("161", "TRI", "siemens", "validation"),
            ("201", "RV", "siemens", "test"),
        ]
    assert read_mnms2(root)[0].images.es == root / "dataset/001/001_SA_ES.nii.gz"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("one,NOR,SIEMENS,x,1.5", ":2: SUBJECT_CODE must be a whole number"),
        ("0,NOR,SIEMENS,x,1.5", ":2: SUBJECT_CODE 0 is not one of"),
        ("361,NOR,SIEMENS,x,1.5", ":2: SUBJECT_CODE 361 is not one of"),
        ("1,,SIEMENS,x,1.5", ":2: DISEASE is empty"),
        ("1,NORM,SIEMENS,x,1.5", ":2: unknown pathology 'NORM'"),
        ("1,NOR,,x,1.5", ":2: VENDOR is empty"),
        ("2,NOR,SIEMENS,x,1.5", r"002_SA_ED\.nii\.gz does not exist"),
        ("41,NOR,SIEMENS,x,1.5", "041 occurs twice: .*:2 and .*:3"),
    ],
)
def test_a_wrong_line_is_named(root, row, message):
    write(root, [row, *ROWS[1:]])
    with pytest.raises(DataError, match=message):
        read_mnms2(root)


def test_a_missing_es_file_is_named(root):
    (root / "dataset/041/041_SA_ES.nii.gz").unlink()
    with pytest.raises(DataError, match=r"041_SA_ES\.nii\.gz does not exist"):
        read_mnms2(root)


def test_a_folder_without_the_csv_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"dataset_information\.csv does not exist"):
        read_mnms2(tmp_path)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=st.integers(0, 4), column=st.integers(0, 4), cell=st.text(max_size=6))
def test_any_garbled_cell_gives_a_data_error_or_a_known_group(root, line, column, cell):
    cells = ROWS[line].split(",")
    cells[column] = cell
    write(root, [*ROWS[:line], ",".join(cells), *ROWS[line + 1 :]])
    try:
        records = read_mnms2(root)
    except DataError:
        return
    assert {record.group for record in records} <= set(GROUPS)


def test_masks_of_every_other_slice_are_named_with_the_slices_that_are_missing(tmp_path):
    root, rng = tmp_path / "MnM2", np.random.default_rng(0)
    folder = root / "dataset" / "001"
    folder.mkdir(parents=True)
    affine = np.diag([2.0, 2.0, 10.0, 1.0])
    mask = np.zeros((40, 36, 8), np.uint8)
    mask[10:24, 12:24, 1:7], mask[13:20, 14:22, 1:7] = 2, 1
    half = mask * (np.arange(8) % 2 == 1)
    for phase in ("ED", "ES"):
        noise = rng.normal(300, 60, mask.shape).astype(np.int16)
        nibabel.save(nibabel.Nifti1Image(noise, affine), folder / f"001_SA_{phase}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(mask if phase == "ED" else half, affine), folder / f"001_SA_{phase}_gt.nii.gz")
    write(root, ROWS[:1])
    with pytest.raises(DataError, match=r"001_SA_ES_gt\.nii\.gz has nothing in slice 2, 4 .*leave the patient out"):
        fl.prepare("mnms2", source=root, output=tmp_path / "s", site="a", task="segmentation", load_all=True)
    assert not (tmp_path / "s").exists()
