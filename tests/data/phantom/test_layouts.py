from __future__ import annotations

import dataclasses

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from monai_fedlora.data.phantom.layouts import (
    ACDC_LABELS,
    MNMS_COLUMNS,
    MNMS_LABELS,
    encode,
    relabel,
    write_acdc_patient,
    write_mnms_patient,
    write_mnms_table,
)
from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.render import LV, MYO, RV
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.data.readers.acdc import read_acdc
from monai_fedlora.data.readers.mnms import read_mnms
from monai_fedlora.data.records import Cine
from monai_fedlora.transforms.cine import cine_preprocessing
from monai_fedlora.transforms.frames import read_frames
from monai_fedlora.transforms.orientation import is_known


@pytest.fixture(scope="module")
def beat():
    return make_patient("RV", VENDORS["D"], 0, frames=5)


def test_a_file_holds_voxels_size_and_type(beat, tmp_path) -> None:
    volume = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(encode(volume, dataclasses.replace(beat, spacing=(1.5, 1.25, 8.0)), oriented=False))
    image = nibabel.Nifti1Image.from_filename(path)
    assert image.shape == (4, 3, 2) and image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume.transpose())
    np.testing.assert_allclose(nibabel.affines.voxel_sizes(image.affine), (1.5, 1.25, 8.0))
    assert image.header["sform_code"] == image.header["qform_code"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("vendor", "ABCD")
def test_files_of_every_vendor_come_back_in_the_pictures_order(vendor, tmp_path) -> None:
    """What reaches the network is the picture as it was drawn, so that backbones of earlier phantoms still fit."""
    patients = [make_patient("NOR", VENDORS[vendor], seed) for seed in range(2)]
    for patient in patients:
        folder = tmp_path / f"patient{id(patient)}"
        files = write_acdc_patient(patient, folder)
        ed, es = read_frames({"ed": files.ed, "es": files.es})
        np.testing.assert_array_equal(ed.voxels, patient.image[0].transpose())
        np.testing.assert_array_equal(es.voxels, patient.image[1].transpose())
        assert is_known(torch.from_numpy(ed.affine), list(ed.voxels.shape))
        np.testing.assert_allclose(ed.affine[:3, :3] / patient.spacing, patient.directions, atol=1e-5)
        stored = nibabel.load(files.ed)
        np.testing.assert_allclose(stored.get_qform(), stored.get_sform(), atol=1e-3)
    assert not np.allclose(patients[0].directions, patients[1].directions, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("vendor", "ABCD")
def test_the_network_sees_the_same_picture_with_and_without_an_orientation(vendor, tmp_path) -> None:
    """So figures that were measured with phantoms without one hold to rounding."""
    patient = make_patient("DCM", VENDORS[vendor], 3)
    pipeline = Compose(cine_preprocessing(image_size=(48, 48, 8), spacing=(3.3, 3.3, 10.0)))
    images = []
    for oriented in (True, False):
        files = write_acdc_patient(patient, tmp_path / f"patient{oriented:d}", oriented=oriented)
        item = pipeline({"ed": files.ed, "es": files.es})
        assert bool(item["placeholder"]) is not oriented
        images.append(item["image"])
    torch.testing.assert_close(images[0], images[1], atol=1e-5, rtol=0)


def test_a_lost_orientation_is_a_positive_diagonal(scan, tmp_path) -> None:
    patient = scan("NOR", "C")
    files = write_acdc_patient(patient, tmp_path / "patient001", oriented=False)
    image = nibabel.load(files.ed)
    np.testing.assert_array_equal(image.affine[:3, :3], np.diag(np.float32(patient.spacing)))
    np.testing.assert_array_equal(np.asarray(image.dataobj), patient.image[0].transpose())


def test_acdc_layout_is_read_back(scan, tmp_path) -> None:
    patient = scan("HCM")
    folder = tmp_path / "training" / "patient007"
    files = write_acdc_patient(patient, folder, cine=True, oriented=False)
    (record,) = read_acdc(tmp_path)
    assert (record.subject, record.group, record.split) == ("patient007", "HCM", "training")
    assert (record.images.ed, record.images.es) == (files.ed, files.es)
    assert record.spacing == pytest.approx(patient.spacing[0])
    assert {path.name for path in folder.iterdir()} == {
        "Info.cfg", "patient007_4d.nii.gz", "patient007_frame01.nii.gz", "patient007_frame01_gt.nii.gz",
        "patient007_frame02.nii.gz", "patient007_frame02_gt.nii.gz",
    }  # fmt: skip
    keys = [line.partition(": ")[0] for line in (folder / "Info.cfg").read_text().splitlines()]
    assert keys == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
    mask = np.asarray(nibabel.Nifti1Image.from_filename(folder / "patient007_frame01_gt.nii.gz").dataobj)
    np.testing.assert_array_equal(mask == 3, (patient.mask[0] == LV).transpose())
    np.testing.assert_array_equal(mask == 1, (patient.mask[0] == RV).transpose())


def test_mnms_layout_is_read_back(beat, tmp_path) -> None:
    folder = tmp_path / "OpenDataset" / "Training" / "Labeled" / "A0B1C2"
    row = write_mnms_patient(beat, VENDORS["D"], folder, oriented=False)
    table = write_mnms_table([row], tmp_path / "OpenDataset")
    (record,) = read_mnms(tmp_path)
    assert (record.subject, record.group, record.vendor, record.centre) == ("A0B1C2", "ARV", "canon", "5")
    assert record.images == Cine(folder / "A0B1C2_sa.nii.gz", 0, beat.es_frame)
    assert table.read_text().splitlines()[0] == ",".join(MNMS_COLUMNS)
    mask = np.asarray(nibabel.Nifti1Image.from_filename(folder / "A0B1C2_sa_gt.nii.gz").dataobj)
    assert mask.shape == beat.image.shape[::-1]
    assert [frame for frame in range(5) if mask[..., frame].any()] == [0, beat.es_frame]
    np.testing.assert_array_equal(mask[..., 0] == 3, (beat.mask[0] == RV).transpose())


def test_the_two_datasets_number_the_ventricles_differently() -> None:
    mask = np.array([0, LV, MYO, RV], np.uint8)
    np.testing.assert_array_equal(relabel(mask, ACDC_LABELS), [0, 3, 2, 1])
    np.testing.assert_array_equal(relabel(mask, MNMS_LABELS), [0, 1, 2, 3])


def test_the_same_patient_gives_the_same_bytes(beat, tmp_path) -> None:
    again = make_patient("RV", VENDORS["D"], 0, frames=5)
    for name, patient in (("one", beat), ("two", again)):
        write_acdc_patient(dataclasses.replace(patient), tmp_path / name / "patient001", cine=True)
    for path in (tmp_path / "one").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
