"""Whole DICOM studies as they really come: the same heart gives the same image, and nothing is lost in silence."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_stack import find_stack
from monai_fedlora.clinic.many import DicomOutput, predict_all
from monai_fedlora.clinic.prediction import Prediction, predict_study
from monai_fedlora.clinic.reading import LoadedStudy, load_study
from monai_fedlora.errors import FedLoraError
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.cine_studies import save, write_study
from tests.formats.test_dicom_files import stored

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")

MISSING = ", so that a part of the heart may be missing"
APEX = 4


def load(folder: Path, classifier: Classifier) -> LoadedStudy:
    return load_study(Study("p", DicomFiles(folder)), classifier)


def omitted(loaded: LoadedStudy | Prediction) -> list[tuple[int, str]]:
    return [(omission.count, omission.why) for omission in loaded.omissions]


@pytest.fixture(scope="module")
def plain(classifier: Classifier, stored_study: Path) -> LoadedStudy:
    return load(stored_study, classifier)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("syntax", "bare"),
    [
        (ExplicitVRBigEndian, False),
        (ExplicitVRBigEndian, True),
        (ImplicitVRLittleEndian, True),
        (DeflatedExplicitVRLittleEndian, False),
        (RLELossless, False),
    ],
)
def test_every_way_to_store_a_study_gives_the_same_heart_under_any_names(
    classifier: Classifier, plain: LoadedStudy, stored_study: Path, tmp_path: Path, syntax: str, bare: bool
) -> None:
    """Big-endian pixels, apical slices without preamble, deflated and compressed files; the order of the files too."""
    for number, path in enumerate(sorted(stored_study.iterdir(), reverse=True)):
        dataset = pydicom.dcmread(path)
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)
            dataset.save_as(tmp_path / f"{number:03d}")
        else:
            (tmp_path / f"{number:03d}").write_bytes(stored(dataset, syntax, bare=bare))
    loaded = load(tmp_path, classifier)
    torch.testing.assert_close(loaded.image, plain.image, rtol=0, atol=0)
    assert (loaded.notes, loaded.doubts, loaded.quotes) == (plain.notes, plain.doubts, plain.quotes)
    clean = [Deidentifier().image(source.dataset) for source in loaded.sources]
    for one, source in zip(clean, plain.sources, strict=True):
        np.testing.assert_array_equal(one.pixel_array, source.dataset.pixel_array)


def crop(dataset: Dataset) -> None:
    pixels = dataset.pixel_array[4:-4, 4:-4]
    rows, columns = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    moved = np.array(dataset.ImagePositionPatient, float) + (rows + columns) * 4 * 4.0
    dataset.ImagePositionPatient = [f"{value:.6g}" for value in moved]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = np.ascontiguousarray(pixels).tobytes()


def tilt(dataset: Dataset) -> None:
    rows, columns = np.array(dataset.ImageOrientationPatient, float).reshape(2, 3)
    turned = np.cos(np.radians(1)) * columns + np.sin(np.radians(1)) * np.cross(rows, columns)
    dataset.ImageOrientationPatient = [f"{value:.7g}" for value in (*rows, *turned)]


def widen(dataset: Dataset) -> None:
    dataset.PixelSpacing = ["4.2", "4.2"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [crop, tilt, widen])
def test_apical_slices_of_another_geometry_are_doubted_by_their_number(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path, change: Callable[[Dataset], None]
) -> None:
    folder = write_study(
        tmp_path / "heart", cine, change=lambda dataset, place, frame: change(dataset) if place >= APEX else None
    )
    loaded = load(folder, classifier)
    why = f"another matrix, pixel size or orientation than the slices used{MISSING}"
    assert omitted(loaded) == [(20, why)]
    assert f"20 images of series 5 were left out: {why}" in loaded.doubts
    assert loaded.notes == ("the cine is series 5: 4 slices of 10 frames",)
    assert loaded.cine is not None
    assert loaded.cine.shape[2] == APEX


def beside(folder: Path, change: Callable[[Dataset, int], Any], *, images: int = 1, series: int = 40) -> None:
    """Add copies of some images of a study as another series."""
    uid = generate_uid()
    kept = sorted(folder.iterdir())
    by_place: dict[str, list[Dataset]] = {}
    for path in kept:
        dataset = pydicom.dcmread(path)
        by_place.setdefault(str(dataset.ImagePositionPatient), []).append(dataset)
    for place in by_place.values():
        for number, dataset in enumerate(sorted(place, key=lambda one: float(one.TriggerTime))[:images]):
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            dataset.SeriesInstanceUID, dataset.SeriesNumber = uid, series
            change(dataset, number)
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            save(dataset, folder / f"other-{dataset.SOPInstanceUID}")


def t1(dataset: Dataset, number: int) -> None:
    dataset.SeriesDescription, dataset.InversionTime = "T1 MOLLI", str(100 + 80 * number)
    dataset.TriggerTime = str(600 + number)


def t1_map(dataset: Dataset, number: int) -> None:
    dataset.SeriesDescription, dataset.ImageType = "T1 map", ["DERIVED", "PRIMARY", "M", "T1 MAP"]


def unsaid_map(dataset: Dataset, number: int) -> None:
    """Nothing but few frames and one time of the beat tells that it is none."""
    dataset.TriggerTime = str(600 + number)


def echoes(dataset: Dataset, number: int) -> None:
    dataset.EchoTime = str(2.0 + 2 * number)


def colour(dataset: Dataset, number: int) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(dataset.Rows * dataset.Columns * 3)


def no_spacing(dataset: Dataset, number: int) -> None:
    del dataset.PixelSpacing


def report(dataset: Dataset, number: int) -> None:
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "images", "why"),
    [
        (t1, 8, "inversion times differ within a slice"),
        (echoes, 8, "echo times differ within a slice"),
        (t1_map, 8, "parametric maps"),
        (unsaid_map, 8, "a cine of fewer slices or frames"),
        (colour, 1, "no grey levels (MONOCHROME2)"),
        (no_spacing, 1, "no usable PixelSpacing"),
        (report, 1, "no MR image but Basic Text SR Storage"),
        (lambda dataset, number: None, 1, "fewer than 6 frames a slice"),
    ],
)
def test_what_lies_beside_a_good_cine_changes_nothing_and_is_counted(
    classifier: Classifier, plain: LoadedStudy, study_folder: Path, change: Any, images: int, why: str
) -> None:
    beside(study_folder, change, images=images)
    loaded = load(study_folder, classifier)
    torch.testing.assert_close(loaded.image, plain.image, rtol=0, atol=0)
    assert loaded.doubts == plain.doubts
    assert omitted(loaded) == [(6 * images, why)]
    of = "" if change is report else " of series 40"
    unit = "files" if change is report else "images"
    assert loaded.notes == (*plain.notes, f"{6 * images} {unit}{of} were left out: {why}")
    assert ("T1 MOLLI" in " ".join(loaded.quotes)) == (change is t1)


@pytest.mark.slow
def test_the_cine_is_taken_though_a_map_has_more_slices(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "heart", cine)
    beside(folder, t1, images=8)
    images = {path: pydicom.dcmread(path) for path in folder.iterdir()}
    apex = min(float(image.ImagePositionPatient[2]) for image in images.values())
    for path, image in images.items():
        if image.SeriesNumber == 5 and float(image.ImagePositionPatient[2]) == apex:
            path.unlink()
    loaded = load(folder, classifier)
    assert loaded.notes[0] == "the cine is series 5: 5 slices of 10 frames"


@pytest.mark.slow
@pytest.mark.parametrize("keyword", ["RescaleSlope", "RescaleIntercept", "PatientID", "SeriesNumber", "InversionTime"])
def test_empty_attributes_mean_absent_ones_from_file_to_clean_copy(
    classifier: Classifier, plain: LoadedStudy, study_folder: Path, keyword: str
) -> None:
    for path in study_folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.add_new(keyword, pydicom.datadict.dictionary_VR(keyword), None)
        dataset.FrameOfReferenceUID = None
        dataset.save_as(path)
    loaded = load(study_folder, classifier)
    torch.testing.assert_close(loaded.image, plain.image, rtol=0, atol=0)
    assert loaded.doubts == plain.doubts
    clean = Deidentifier().image(loaded.sources[0].dataset)
    assert keyword not in clean or keyword in ("PatientID", "SeriesNumber")
    assert "FrameOfReferenceUID" not in clean


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "zip", "renamed"])
def test_files_that_are_no_images_are_called_as_people_call_them(
    classifier: Classifier, study_folder: Path, tmp_path: Path, kind: str
) -> None:
    (study_folder / "deep").mkdir()
    (study_folder / "deep" / "notes.txt").write_text("no DICOM")
    files = DicomFiles(study_folder, names=(("deep/notes.txt", "letter"),) if kind == "renamed" else ())
    if kind == "zip":
        files = DicomFiles(Path(shutil.make_archive(str(tmp_path / "packed"), "zip", study_folder)))
    loaded = load_study(Study("p", files), classifier)
    assert loaded.quotes[1] == f"files that were left out: {'letter' if kind == 'renamed' else 'deep/notes.txt'}"


@pytest.mark.slow
def test_table_and_json_name_what_was_left_out_and_figure_and_report_name_no_person(
    classifier: Classifier, study_folder: Path, tmp_path: Path
) -> None:
    def described(dataset: Dataset, number: int) -> None:
        t1(dataset, number)
        dataset.SeriesDescription = "T1 Mr Doeringer"

    beside(study_folder, described, images=8)
    (study_folder / "Doeringer.txt").write_text("no DICOM")
    study = Study("p", DicomFiles(study_folder))
    predict_all(classifier, [study], tmp_path / "O", overlay=False, dicom=DicomOutput(deidentifier=Deidentifier()))
    content = json.loads((tmp_path / "O" / "studies" / "p.json").read_text())
    maps = {
        "count": 48,
        "unit": "image",
        "why": "inversion times differ within a slice",
        "series": [40],
        "doubt": False,
    }
    other = {"count": 1, "unit": "file", "why": "no DICOM", "series": [], "doubt": False}
    assert content["left_out"] == [other, maps]
    (row,) = csv.DictReader(io.StringIO((tmp_path / "O" / "predictions.csv").read_text()))
    for said in (" ".join(content["notes"]), row["notes"]):
        assert "the cine is series 5: 6 slices of 10 frames" in said
        assert "48 images of series 40 were left out: inversion times differ within a slice" in said
        assert "series 40 is 'T1 Mr Doeringer'" in said
        assert "files that were left out: Doeringer.txt" in said
    written = b"".join(path.read_bytes() for path in (tmp_path / "O" / "dicom").rglob("*.dcm"))
    assert b"48 images of series 40 were left out" in written
    assert b"Doeringer" not in written
    prediction = predict_study(classifier, study, overlay=False)
    assert "Doeringer" not in " ".join((*prediction.notes, *prediction.doubts))


SHORT = np.random.default_rng(0).integers(0, 900, (9, 8, 5, 6)).astype(np.int16)


def rewrite(folder: Path, place: int, change: Callable[[Dataset], Any], *, whole: bool) -> None:
    """Change the images of a slice, or one of them."""
    heights = sorted({float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in folder.glob("IM*")})
    for path in sorted(folder.glob("IM*")):
        dataset = pydicom.dcmread(path)
        if float(dataset.ImagePositionPatient[2]) == heights[place % len(heights)]:
            changed = change(dataset)
            if isinstance(changed, bytes):
                path.write_bytes(changed)
            elif changed is None:
                dataset.save_as(path)
            if not whole:
                return


FAULTS: dict[str, Callable[[Path, int], Any]] = {
    "text": lambda folder, place: (folder / "a.txt").write_text("a"),
    "cut": lambda folder, place: (folder / "cut").write_bytes(next(folder.glob("IM*")).read_bytes()[:300]),
    "copy": lambda folder, place: shutil.copy(next(folder.glob("IM*")), folder / "copy"),
    "colour": lambda folder, place: beside(folder, colour, series=41),
    "report": lambda folder, place: beside(folder, report),
    "maps": lambda folder, place: beside(folder, t1, images=6),
    "no spacing": lambda folder, place: rewrite(folder, place, lambda one: no_spacing(one, 0), whole=True),
    "no spacing in one": lambda folder, place: rewrite(folder, place, lambda one: no_spacing(one, 0), whole=False),
    "tilt": lambda folder, place: rewrite(folder, place, tilt, whole=True),
    "wide": lambda folder, place: rewrite(folder, place, widen, whole=True),
    "empty": lambda folder, place: rewrite(folder, place, lambda one: setattr(one, "RescaleSlope", None), whole=True),
    "big": lambda folder, place: rewrite(folder, place, lambda one: stored(one, ExplicitVRBigEndian), whole=True),
    "bare": lambda folder, place: rewrite(
        folder, place, lambda one: stored(one, ExplicitVRLittleEndian, bare=True), whole=True
    ),
    "late": lambda folder, place: rewrite(
        folder, place, lambda one: setattr(one, "TriggerTime", str(float(one.TriggerTime) + 400)), whole=True
    ),
    "broken": lambda folder, place: rewrite(
        folder, place, lambda one: stored(one, ExplicitVRLittleEndian)[:250], whole=True
    ),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("small") / "heart", SHORT)


@pytest.mark.slow
@given(
    faults=st.lists(st.tuples(st.sampled_from(sorted(FAULTS)), st.integers(0, 4)), max_size=3, unique_by=lambda f: f[0])
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_file_is_used_or_named_or_the_study_is_refused(small: Path, faults: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(small, Path(scratch) / "heart"))
        try:
            for fault, place in faults:
                FAULTS[fault](folder, place)
        except (AttributeError, pydicom.errors.InvalidDicomError):
            return  # faults that do not go together
        files = sorted(path for path in folder.iterdir())
        try:
            stack = find_stack(read_image_headers(files, folder), folder)
        except FedLoraError as error:
            assert str(folder) in str(error)
            return
        used = {image.path for images in stack.images for image in images}
        assert len(used) == stack.shape[2] * stack.shape[3]
        assert len(used) + sum(omission.count for omission in stack.omissions) == len(files)
        told = (*stack.notes, *stack.doubts)
        assert all(str(omission) in told for omission in stack.omissions)
        if stack.shape[2] < SHORT.shape[2]:
            assert any(MISSING in doubt for doubt in stack.doubts)
