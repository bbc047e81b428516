"""A cine and its overlay lie on each other in the patient's frame."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.overlay import colours, in_depth
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.data.records import FramePair
from monai_fedlora.serve.viewer_volumes import network_affine, write_cine, write_overlay
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from tests.clinic.cine_studies import affine_of, write_nifti

SHEARED = np.array([[1.2, 0.1, 0.3, -40.0], [0.05, -1.3, 0.2, 60.0], [0.0, 0.2, 8.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_cine_comes_back_where_it_was(tmp_path: Path, cine: np.ndarray, scale: float) -> None:
    write_cine(tmp_path / "v.nii.gz", cine * np.float32(scale), SHEARED)
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert image.get_data_dtype() == (np.int16 if scale == 1.0 else np.float32)
    assert image.header.get_xyzt_units() == ("mm", "sec")
    assert int(image.header["sform_code"]) == 1
    np.testing.assert_allclose(image.affine, SHEARED, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(image.dataobj), cine * np.float32(scale))


def test_constant_cine_is_written(tmp_path: Path) -> None:
    write_cine(tmp_path / "v.nii.gz", np.full((2, 3, 4, 5), 0.5, np.float32), np.eye(4))
    assert nibabel.load(tmp_path / "v.nii.gz").shape == (2, 3, 4, 5)


def test_colours_come_back_with_a_border_of_nothing(tmp_path: Path) -> None:
    """Viewers draw the outermost voxels on beyond the grid; these are transparent."""
    painted = colours(np.linspace(-0.3, 0.3, 120).reshape(4, 5, 6))
    write_overlay(tmp_path / "o.nii.gz", painted, SHEARED)
    image = nibabel.load(tmp_path / "o.nii.gz")
    found = np.asarray(image.dataobj)
    assert found.shape == (6, 7, 8)
    channels = np.stack([found[name] for name in "RGBA"], axis=-1)
    np.testing.assert_array_equal(channels[1:-1, 1:-1, 1:-1], painted)
    assert channels[0].max() == channels[:, -1].max() == channels[:, :, 0].max() == 0
    np.testing.assert_allclose(apply_affine(image.affine, (1, 1, 1)), SHEARED[:3, 3], atol=1e-4)


def studies(stored_study: Path, cine: np.ndarray, folder: Path) -> dict[str, Study]:
    """One heart as DICOM, as a 4D file, and as two frames with less of the chest."""
    whole = write_nifti(folder / "c.nii.gz", cine, affine_of(cine))
    part = cine[3:, 5:]
    affine = affine_of(cine) @ nibabel.affines.from_matvec(np.eye(3), (3, 5, 0))
    ed, es = (
        write_nifti(folder / f"p_{name}.nii.gz", part[..., frame], affine) for name, frame in (("ed", 0), ("es", 4))
    )
    return {
        "dicom": Study("d", DicomFiles(stored_study)),
        "file": Study("c", CineFile(whole)),
        "pair": Study("p", FramePair(ed, es)),
    }


@pytest.fixture(params=["dicom", "file", "pair"])
def loaded(
    request: pytest.FixtureRequest, stored_study: Path, cine: np.ndarray, classifier: Classifier, tmp_path: Path
) -> LoadedStudy:
    return load_study(studies(stored_study, cine, tmp_path)[request.param], classifier)


def test_volume_lies_in_the_patient(loaded: LoadedStudy, cine: np.ndarray) -> None:
    """The mark in one corner of the made-up heart is found at its place in the world."""
    assert loaded.cine is not None
    assert loaded.cine_affine is not None
    place = apply_affine(affine_of(cine), (4, 8, 2))
    voxel = np.rint(apply_affine(np.linalg.inv(loaded.cine_affine), place)).astype(int)
    np.testing.assert_array_equal(loaded.cine[(*voxel, 0)], cine[4, 8, 2, 0])


def test_network_saw_what_the_volume_shows_there(loaded: LoadedStudy, classifier: Classifier) -> None:
    """At the places of the network's grid the volume shows what the network saw; a voxel off it does not."""
    assert loaded.image_affine is not None
    prepared = classifier.prepare(loaded.image)
    affine = network_affine(loaded.image, prepared, loaded.image_affine)
    assert affine is not None
    assert similarity(loaded, prepared, affine) > 0.9999
    for axis in range(3):
        for step in (-1, 1):
            moved = affine.copy()
            moved[:3, 3] += step * affine[:3, axis]
            assert similarity(loaded, prepared, moved) < 0.995


def similarity(loaded: LoadedStudy, prepared: torch.Tensor, affine: np.ndarray) -> float:
    """Correlation of end-diastole as the network saw it and as the volume has it at the same places."""
    assert loaded.cine is not None
    assert loaded.cine_affine is not None
    grid = np.moveaxis(np.indices(prepared.shape[1:]), 0, -1)
    places = apply_affine(np.linalg.inv(loaded.cine_affine) @ affine, grid)
    frame = loaded.cine[..., 0 if loaded.frames is None else loaded.frames.ed]
    sampled = map_coordinates(frame, np.moveaxis(places, -1, 0), order=1, mode="nearest")
    seen = prepared[0].numpy()
    clear = (seen > 0.01) & (seen < 0.99)
    return float(np.corrcoef(sampled[clear], seen[clear])[0, 1])


def test_peak_of_the_overlay_lies_where_the_place_is(
    loaded: LoadedStudy, classifier: Classifier, tmp_path: Path
) -> None:
    """A place of the network's grid that matters is, read back from the file, at its world's place in the volume."""
    prepared = classifier.prepare(loaded.image)
    relevance = torch.zeros(prepared.shape[1:3])
    relevance[11, 17] = 1.0
    assert loaded.image_affine is not None
    affine = network_affine(loaded.image, prepared, loaded.image_affine)
    assert affine is not None
    write_overlay(tmp_path / "o.nii.gz", colours(in_depth(relevance, prepared).numpy()), affine)
    write_cine(tmp_path / "v.nii.gz", loaded.cine, loaded.cine_affine)
    overlay, shown = nibabel.load(tmp_path / "o.nii.gz"), nibabel.load(tmp_path / "v.nii.gz")
    peak = np.unravel_index(np.asarray(overlay.dataobj)["A"].argmax(), overlay.shape)
    assert peak[:2] == (12, 18)
    voxel = apply_affine(np.linalg.inv(shown.affine) @ overlay.affine, peak)
    ed = shown.dataobj[..., 0 if loaded.frames is None else loaded.frames.ed]
    sampled = map_coordinates(np.asarray(ed, dtype=float), voxel[:, None], order=1)[0]
    again = torch.as_tensor(loaded.image)[0]
    inside = np.rint(apply_affine(np.linalg.inv(loaded.image_affine) @ overlay.affine, peak)).astype(int)
    np.testing.assert_allclose(sampled, float(again[tuple(inside)]), rtol=0.01)


def test_narrow_image_is_padded_on_both_sides(classifier: Classifier) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 20, 60, 3, generator=generator)
    prepared = classifier.prepare(image)
    affine = network_affine(image, prepared, np.diag([5.0, 5.0, 10.0, 1.0]))
    assert affine is not None
    assert affine[0, 3] == -30.0  # six voxels of padding before the first of twenty
    assert affine[2, 3] == 0.0


def test_place_is_unknown_if_the_model_cuts_in_another_way(loaded: LoadedStudy, classifier: Classifier) -> None:
    prepared = classifier.prepare(loaded.image)
    assert loaded.image_affine is not None
    for other in (prepared.roll(1, dims=1), prepared.flip(2), prepared.transpose(1, 2), prepared * 0.9):
        assert network_affine(loaded.image, other, loaded.image_affine) is None
