"""One heart gives one answer, in whatever order of axes, rows, slices, files and bytes it is stored."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.cine_orders import ANOTHER_ORDER, NOT_KNOWN, NOT_ORIENTED
from monai_fedlora.clinic.prediction import Prediction, predict_study
from monai_fedlora.clinic.reading import load_study
from monai_fedlora.data.records import FramePair
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from monai_fedlora.transforms.orientation import N_ORDERS, all_orders, reordered_affine
from tests.clinic.cine_studies import ES_FRAME, affine_of, axes, write_nifti, write_study

NEAR = 1e-4
ALL_48 = list(itertools.product(itertools.permutations(range(3)), itertools.product([False, True], repeat=3)))
IN_PLANE = list(itertools.product([False, True], repeat=3))


@pytest.fixture(scope="module")
def answer(classifier: Classifier, cine: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, ...]:
    """Of the heart as a pair of files in the order in which it is made up."""
    return answers(classifier, pair(tmp_path_factory.mktemp("pair"), cine, affine_of(cine)))


def answers(classifier: Classifier, study: Study) -> tuple[float, ...]:
    loaded = load_study(study, classifier)
    assert loaded.orientation == "known"
    assert loaded.image_affine is not None
    return classifier.probabilities(loaded.image, torch.from_numpy(loaded.image_affine))


def pair(folder: Path, cine: np.ndarray, affine: np.ndarray) -> Study:
    ed, es = (
        write_nifti(folder / f"p_{name}.nii", np.ascontiguousarray(cine[..., frame]), affine)
        for name, frame in (("ed", 0), ("es", ES_FRAME))
    )
    return Study("p", FramePair(ed, es))


def stored(cine: np.ndarray, order: tuple[tuple[int, ...], tuple[bool, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """The heart (X, Y, Z, T) in another order of its first three axes, and its affine."""
    new_axes, backwards = order
    affine = torch.from_numpy(affine_of(cine))
    moved = reordered_affine(affine, list(cine.shape[:3]), list(new_axes), list(backwards))
    steps = tuple(slice(None, None, -1) if back else slice(None) for back in backwards)
    return np.transpose(cine, (*new_axes, 3))[steps], moved.numpy()


@pytest.mark.slow
def test_all_48_orders_of_a_file_give_one_answer(
    classifier: Classifier, cine: np.ndarray, answer: tuple[float, ...], tmp_path: Path
) -> None:
    for order in ALL_48:
        assert answers(classifier, pair(tmp_path, *stored(cine, order))) == pytest.approx(answer, abs=NEAR), order


@pytest.mark.parametrize("order", [((2, 0, 1), (True, False, True)), ((1, 0, 2), (False, True, True))])
def test_orders_of_a_file_with_all_frames_give_one_answer(
    classifier: Classifier, cine: np.ndarray, answer: tuple[float, ...], tmp_path: Path, order: tuple
) -> None:
    voxels, affine = stored(cine, order)
    path = write_nifti(tmp_path / "p.nii", np.ascontiguousarray(voxels), affine)
    assert answers(classifier, Study("p", CineFile(path))) == pytest.approx(answer, abs=NEAR)


def test_frames_stored_in_different_orders_belong_together(
    classifier: Classifier, cine: np.ndarray, answer: tuple[float, ...], tmp_path: Path
) -> None:
    study = pair(tmp_path, cine, affine_of(cine))
    voxels, affine = stored(cine, ((2, 1, 0), (False, True, True)))
    write_nifti(tmp_path / "p_es.nii", np.ascontiguousarray(voxels[..., ES_FRAME]), affine)
    assert answers(classifier, study) == pytest.approx(answer, abs=NEAR)


def test_bytes_of_a_file_in_either_order_give_one_answer(
    classifier: Classifier, cine: np.ndarray, answer: tuple[float, ...], tmp_path: Path
) -> None:
    for name, frame in (("ed", 0), ("es", ES_FRAME)):
        header = nibabel.Nifti1Header(endianness=">")
        image = nibabel.Nifti1Image(cine[..., frame].astype(">i2"), affine_of(cine), header)
        nibabel.save(image, tmp_path / f"p_{name}.nii")
        assert (tmp_path / f"p_{name}.nii").read_bytes()[:4] == b"\0\0\x01\x5c"
    study = Study("p", FramePair(tmp_path / "p_ed.nii", tmp_path / "p_es.nii"))
    assert answers(classifier, study) == pytest.approx(answer, abs=NEAR)


def turned(cine: np.ndarray, exchanged: bool, rows: bool, columns: bool, folder: Path, **more: object) -> Study:
    """The DICOM study with its images turned or mirrored, and the geometry that goes with it."""
    across, down = axes()
    corner = np.array([-30.0, -120.0, 60.0])
    images = cine
    if columns:
        corner, across, images = corner + across * 4.0 * (cine.shape[0] - 1), -across, images[::-1]
    if rows:
        corner, down, images = corner + down * 4.0 * (cine.shape[1] - 1), -down, images[:, ::-1]
    if exchanged:
        across, down, images = down, across, images.transpose(1, 0, 2, 3)
    base = np.cross(*axes())

    def place(dataset: Dataset, slice_: int, frame: int) -> None:
        position = corner - 10.0 * slice_ * base
        dataset.ImagePositionPatient = [f"{value:.6g}" for value in position]
        if more.get("syntax"):
            encode(dataset, more["syntax"])

    write_study(folder, np.ascontiguousarray(images), plane=np.stack([across, down]), change=place)
    return Study("p", DicomFiles(folder))


def encode(dataset: Dataset, syntax: object) -> None:
    """Store the pixels in another transfer syntax."""
    if syntax == RLELossless:
        dataset.compress(RLELossless)
        return
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<i2").astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax


@pytest.mark.slow
@pytest.mark.parametrize("turn", IN_PLANE, ids=str)
def test_every_turn_and_mirror_of_dicom_images_gives_one_answer(
    classifier: Classifier, cine: np.ndarray, answer: tuple[float, ...], tmp_path: Path, turn: tuple[bool, bool, bool]
) -> None:
    """Slices have no order in DICOM but by their positions, so that these 8 are all 16."""
    found = answers(classifier, turned(cine, *turn, tmp_path / "dicom"))
    assert found == pytest.approx(answer, abs=NEAR)


@pytest.mark.slow
@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless], ids=str
)
def test_every_transfer_syntax_gives_one_answer(
    classifier: Classifier, cine: np.ndarray, answer: tuple[float, ...], tmp_path: Path, syntax: object
) -> None:
    study = turned(cine, False, True, False, tmp_path / "dicom", syntax=syntax)
    assert {str(pydicom.dcmread(path).file_meta.TransferSyntaxUID) for path in (tmp_path / "dicom").iterdir()} == {
        str(syntax)
    }
    assert answers(classifier, study) == pytest.approx(answer, abs=NEAR)


@pytest.mark.slow
def test_order_of_files_and_slices_does_not_matter(
    classifier: Classifier, stored_study: Path, answer: tuple[float, ...], tmp_path: Path
) -> None:
    for number, path in enumerate(sorted(stored_study.iterdir(), reverse=True)):
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber = number + 1
        dataset.save_as(tmp_path / f"{number:03d}.dcm")
    assert answers(classifier, Study("p", DicomFiles(tmp_path))) == pytest.approx(answer, abs=NEAR)


def predicted(classifier: Classifier, study: Study) -> Prediction:
    return predict_study(classifier, study, overlay=False)


def test_a_lost_orientation_is_said_with_the_range_of_the_answers(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path
) -> None:
    study = pair(tmp_path, cine, np.diag([4.0, 4.0, 10.0, 1.0]))
    assert load_study(study, classifier).orientation == "placeholder"
    prediction = predicted(classifier, study)
    assert NOT_KNOWN in prediction.notes
    loaded = load_study(study, classifier)
    assert loaded.image_affine is not None
    prepared = classifier.prepare(loaded.image, torch.from_numpy(loaded.image_affine))
    in_orders = classifier.batch_log_probabilities(all_orders(prepared)).double().exp()
    assert prediction.stability is not None
    ranges = prediction.stability.ranges(prediction.probabilities)
    for index, (low, high) in enumerate(ranges):
        assert low <= float(in_orders[:, index].min()) + 1e-6
        assert high >= float(in_orders[:, index].max()) - 1e-6
    assert prediction.stability.changes.count(ANOTHER_ORDER) == N_ORDERS


def test_a_class_that_depends_on_the_order_is_a_doubt(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_corner(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        dark = images[:, 0, : images.shape[2] // 2].mean(dim=(1, 2, 3)) > images[:, 0].mean(dim=(1, 2, 3))
        return torch.where(dark[:, None], torch.tensor([0.6, 0.4]), torch.tensor([0.3, 0.7])).log()

    monkeypatch.setattr(Classifier, "batch_log_probabilities", by_corner)
    study = pair(tmp_path, cine, np.diag([4.0, 4.0, 10.0, 1.0]))
    prediction = predicted(classifier, study)
    doubts = [doubt for doubt in prediction.doubts if ANOTHER_ORDER in doubt]
    assert len(doubts) == 1
    assert f"of {N_ORDERS})" in doubts[0]
    assert prediction.undecided
    assert prediction.stability is not None
    low, high = prediction.stability.ranges(prediction.probabilities)[classifier.classes.index("NOR")]
    assert low <= 0.3 + 1e-6 and high >= 0.6 - 1e-6


def test_a_known_orientation_says_nothing(classifier: Classifier, cine: np.ndarray, tmp_path: Path) -> None:
    prediction = predicted(classifier, pair(tmp_path, cine, affine_of(cine)))
    assert not [text for text in (*prediction.notes, *prediction.doubts) if "patient lies" in text]


def test_a_bundle_that_knows_no_orientation_says_so(classifier: Classifier) -> None:
    assert NOT_ORIENTED.startswith("this bundle was exported by an earlier version")
    assert classifier.takes_affine


ROOT = os.environ.get("MONAI_FEDLORA_REAL_DATA")


@pytest.mark.realdata
@pytest.mark.skipif(not ROOT, reason="MONAI_FEDLORA_REAL_DATA names no folder")
def test_a_real_heart_gives_one_answer_in_every_order(classifier: Classifier, tmp_path: Path) -> None:
    """All 48 orders of NIfTI, and a turn by half and rows from below in DICOM."""
    source = Path(str(ROOT)) / "sunnybrook_dicom" / "SCD0000301"
    expected = answers(classifier, Study("p", DicomFiles(source)))
    loaded = load_study(Study("p", DicomFiles(source)), classifier)
    assert loaded.frames is not None and loaded.cine is not None and loaded.cine_affine is not None
    for new_axes, backwards in ALL_48:
        affine = torch.from_numpy(loaded.cine_affine)
        moved = reordered_affine(affine, list(loaded.cine.shape[:3]), list(new_axes), list(backwards)).numpy()
        steps = tuple(slice(None, None, -1) if back else slice(None) for back in backwards)
        for name, frame in (("ed", loaded.frames.ed), ("es", loaded.frames.es)):
            voxels = np.transpose(loaded.cine[..., frame], new_axes)[steps]
            write_nifti(tmp_path / f"p_{name}.nii", np.ascontiguousarray(voxels), moved)
        study = Study("p", FramePair(tmp_path / "p_ed.nii", tmp_path / "p_es.nii"))
        assert answers(classifier, study) == pytest.approx(expected, abs=NEAR), (new_axes, backwards)
    for turns in (1, 2):
        folder = tmp_path / f"turned {turns}"
        folder.mkdir()
        for number, path in enumerate(sorted(source.glob("*.dcm"))):
            dataset = pydicom.dcmread(path)
            _turn(dataset, columns=turns == 2)
            dataset.save_as(folder / f"{number:03d}.dcm")
        assert answers(classifier, Study("p", DicomFiles(folder))) == pytest.approx(expected, abs=NEAR)


def _turn(dataset: Dataset, *, columns: bool) -> None:
    """Store an image with its rows from below, and its columns from the right, and say so in the geometry."""
    across, down = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    place, pixels = np.array(dataset.ImagePositionPatient, float), dataset.pixel_array[::-1]
    place, down = place + down * float(dataset.PixelSpacing[0]) * (dataset.Rows - 1), -down
    if columns:
        place, across = place + across * float(dataset.PixelSpacing[1]) * (dataset.Columns - 1), -across
        pixels = pixels[:, ::-1]
    dataset.ImageOrientationPatient = [f"{value:.8f}" for value in (*across, *down)]
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in place]
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()
