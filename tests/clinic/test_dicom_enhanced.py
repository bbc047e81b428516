"""Enhanced (multi-frame) objects: the same heart as from classic images, and the same refusals."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_output import write_dicom
from monai_fedlora.clinic.dicom_pixels import read_voxels
from monai_fedlora.clinic.dicom_stack import Stack, find_stack
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.prediction import Prediction, predict_study
from monai_fedlora.errors import DataError, FedLoraError, PrivacyError
from monai_fedlora.studies.study import DicomFiles, Study
from tests.clinic.cine_studies import (
    affine_of,
    classic_images,
    enhanced_dataset,
    save,
    shuffled,
    write_study,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")

SHORT = np.random.default_rng(0).integers(0, 900, (9, 8, 4, 6)).astype(np.int16)


def read(folder: Path, *datasets: Dataset) -> tuple[Stack, np.ndarray]:
    files = [save(dataset, folder / str(index)) for index, dataset in enumerate(datasets)]
    stack = find_stack(read_image_headers(files, folder), folder)
    return stack, read_voxels(stack)


@pytest.fixture(scope="module")
def enhanced_study(cine: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enhanced")
    save(enhanced_dataset(classic_images(cine, shuffled(cine))), folder / "IM0")
    return folder


@pytest.fixture(scope="module")
def prediction(classifier: Classifier, enhanced_study: Path) -> Prediction:
    return predict_study(classifier, Study("p", DicomFiles(enhanced_study)), overlay=False)


@pytest.mark.slow
@given(
    seed=st.integers(0, 2**16),
    slices=st.integers(3, 4),
    frames=st.integers(6, 7),
    files=st.sampled_from(["one", "by slice"]),
    in_time=st.booleans(),
    kind=st.sampled_from([np.int16, np.uint16, np.uint8]),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_enhanced_objects_are_read_as_the_classic_images_they_stand_for(
    seed: int, slices: int, frames: int, files: str, in_time: bool, kind: Any
) -> None:
    generator = np.random.default_rng(seed)
    cine = generator.integers(0, 200, (6, 5, slices, frames)).astype(kind)
    indices = np.arange(slices * frames).reshape(slices, frames)
    parts = [indices.ravel()] if files == "one" else list(indices[generator.permutation(slices)])
    if in_time:  # without trigger times the order of the frames is all that tells
        parts = [generator.permutation(part) for part in parts]
    classic = classic_images(cine)
    for image in classic:
        image.RescaleSlope = f"{generator.uniform(0.5, 2):.6g}" if in_time else "1"
        image.RescaleIntercept = f"{generator.uniform(-9, 9):.6g}" if in_time else "0"
    made = [enhanced_dataset([classic[index] for index in part], in_time=in_time) for part in parts]
    with tempfile.TemporaryDirectory() as folder:
        expected, expected_voxels = read(Path(folder) / "classic", *classic)
        found, voxels = read(Path(folder) / "enhanced", *made)
    np.testing.assert_array_equal(voxels, expected_voxels)
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.times == (expected.times if in_time else None)
    assert found.doubts == expected.doubts


@pytest.mark.slow
def test_the_same_heart_gives_the_same_prediction(
    classifier: Classifier, prediction: Prediction, stored_study: Path, cine: np.ndarray
) -> None:
    classic = predict_study(classifier, Study("p", DicomFiles(stored_study)), overlay=False)
    assert prediction.to_json() == classic.to_json()
    np.testing.assert_array_equal(prediction.prepared, classic.prepared)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [{}, {"TriggerTime": "0"}, {"RescaleSlope": "2", "RescaleIntercept": "-7"}])
def test_legacy_converted_objects_are_read_as_the_classic_images_they_were_made_of(
    tmp_path: Path, change: dict[str, str]
) -> None:
    images = classic_images(SHORT, shuffled(SHORT), **change)
    made = hd.legacy.LegacyConvertedEnhancedMRImage(
        images, series_instance_uid=hd.UID(), series_number=5, sop_instance_uid=hd.UID(), instance_number=1
    )
    for number, image in enumerate(images):
        image.InstanceNumber = shuffled(SHORT)[number] + 1
    expected, expected_voxels = read(tmp_path / "classic", *images)
    found, voxels = read(tmp_path / "converted", made)
    assert (found.times, found.doubts) == (expected.times, expected.doubts)
    np.testing.assert_array_equal(voxels, expected_voxels)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)
    with pytest.raises(PrivacyError, match="enhanced"):
        Deidentifier().image(made)


@pytest.mark.slow
@pytest.mark.parametrize("sequence", ["MRModifierSequence", "MREchoSequence"])
def test_frames_of_several_inversion_or_echo_times_are_no_cine(tmp_path: Path, sequence: str) -> None:
    def change(group: Dataset, number: int) -> None:
        item = Dataset()
        item.EffectiveEchoTime, item.InversionTimes = 1.0 + number, [100.0 * number]
        setattr(group, sequence, [item])

    maps = enhanced_dataset(classic_images(SHORT), change=change)
    maps.SeriesInstanceUID, maps.SeriesNumber = "1.2.3.9", 40
    stack, voxels = read(tmp_path, maps, *classic_images(SHORT))
    np.testing.assert_array_equal(voxels, SHORT)
    (omission,) = stack.omissions
    assert (omission.count, omission.series) == (24, (40,))
    assert "times differ within a slice" in omission.why


def test_temporal_positions_order_frames_without_trigger_times(tmp_path: Path) -> None:
    order = shuffled(SHORT)

    def number_times(group: Dataset, number: int) -> None:
        group.FrameContentSequence = [Dataset()]
        group.FrameContentSequence[0].TemporalPositionIndex = order[number - 1] % 6 + 1

    stack, voxels = read(tmp_path, enhanced_dataset(classic_images(SHORT, order), in_time=False, change=number_times))
    np.testing.assert_array_equal(voxels, SHORT)
    np.testing.assert_allclose(stack.affine, affine_of(SHORT), atol=1e-3)
    assert stack.times is None
    assert "order of their instance numbers" in stack.notes[1]


@pytest.mark.slow
def test_frames_own_groups_win_over_shared_ones(tmp_path: Path) -> None:
    def move(group: Dataset, number: int) -> None:
        group.PixelMeasuresSequence = [Dataset()]
        group.PixelMeasuresSequence[0].PixelSpacing = [3.0, 2.0]

    stack, _ = read(tmp_path, enhanced_dataset(classic_images(SHORT), change=move))
    assert stack.images[0][0].spacing == (2.0, 3.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keyword", "value"),
    [("FrameType", ["ORIGINAL", "PRIMARY", "VELOCITY", "NONE"]), ("ComplexImageComponent", "PHASE")],
)
def test_phases_beside_the_grey_levels_are_left_out(tmp_path: Path, keyword: str, value: Any) -> None:
    images = classic_images(SHORT)

    def every_second(group: Dataset, number: int) -> None:
        if number > len(images):
            group.MRImageFrameTypeSequence = [Dataset()]
            setattr(group.MRImageFrameTypeSequence[0], keyword, value)

    _, voxels = read(tmp_path, enhanced_dataset([*images, *classic_images(SHORT[::-1])], change=every_second))
    np.testing.assert_array_equal(voxels, SHORT)


@pytest.mark.slow
def test_an_object_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    dataset = enhanced_dataset(classic_images(SHORT))
    _, voxels = read(tmp_path, dataset, dataset)
    np.testing.assert_array_equal(voxels, SHORT)


def drop(count: int) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        del dataset.PerFrameFunctionalGroupsSequence[-count:]

    return change


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([index for index in range(24) if index // 6 != 1], "3 parallel slices|mm apart"),
        ([index for index in range(24) if index != 8], r"slice 2 from the base has 5 frames, and the others 6"),
        ([*range(24), *range(24)], "stored twice"),
        (range(12), "no short-axis cine"),
    ],
)
def test_missing_and_repeated_frames_are_refused_as_in_classic_images(
    tmp_path: Path, order: Sequence[int], message: str
) -> None:
    images = classic_images(SHORT, order)
    with pytest.raises(DataError, match=message) as enhanced:
        read(tmp_path / "enhanced", enhanced_dataset(images))
    with pytest.raises(DataError, match=message) as classic:
        read(tmp_path / "classic", *images)
    said = [re.sub(r"enhanced|classic|of \d+ ms", "", str(error.value)) for error in (enhanced, classic)]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(1), "says that it has 24 frames, and describes 23"),
        (lambda dataset: delattr(dataset, "NumberOfFrames"), "says that it has no frames, and describes 24"),
        (lambda dataset: delattr(dataset, "PerFrameFunctionalGroupsSequence"), "24 frames, and describes 0"),
        (lambda dataset: delattr(dataset, "SharedFunctionalGroupsSequence"), "no usable PixelSpacing"),
        (lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-300]), "cannot be decoded|unusable pixels"),
    ],
)
def test_objects_that_contradict_themselves_are_refused(
    tmp_path: Path, change: Callable[[Dataset], Any], message: str
) -> None:
    dataset = enhanced_dataset(classic_images(SHORT))
    change(dataset)
    with pytest.raises(DataError, match=message):
        read(tmp_path, dataset)


@pytest.mark.slow
@given(
    place=st.integers(0, 23),
    keyword=st.sampled_from(["PlanePositionSequence", "CardiacSynchronizationSequence", "PixelMeasuresSequence"]),
    content=st.sampled_from(
        [None, [], {"ImagePositionPatient": [1, 2]}, {"NominalCardiacTriggerDelayTime": float("nan")},
         {"PixelSpacing": [0, 0]}, {"PixelSpacing": [float(10**9), 1]}, {"ImagePositionPatient": [0, 0, 0]}]
    ),
)  # fmt: skip
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_functional_groups_are_data_errors_or_leave_the_heart_as_it_is(
    place: int, keyword: str, content: Any
) -> None:
    dataset = enhanced_dataset(classic_images(SHORT))
    group = dataset.PerFrameFunctionalGroupsSequence[place]
    if content is None:
        group.pop(pydicom.datadict.tag_for_keyword(keyword), None)
    else:
        item = Dataset()
        for name, value in dict(content).items():
            setattr(item, name, value)
        setattr(group, keyword, [item] if content else [])
    with tempfile.TemporaryDirectory() as folder:
        try:
            _, voxels = read(Path(folder), dataset)
        except FedLoraError:
            return
    np.testing.assert_array_equal(np.sort(voxels, axis=None), np.sort(SHORT, axis=None))


def test_report_and_figure_refer_to_the_frames(prediction: Prediction, tmp_path: Path, cine: np.ndarray) -> None:
    write_dicom(prediction, draw_figure(prediction), tmp_path, deidentifier=None)
    (source,) = prediction.sources
    order = shuffled(cine)
    frames = prediction.frames
    assert frames is not None
    ends = [
        sorted(number for number, index in enumerate(order, 1) if index % 10 == end) for end in (frames.ed, frames.es)
    ]
    expected = sorted([*ends[0], *ends[1]])
    assert [list(source.ed), list(source.es), list(source.frames)] == [*ends, expected]
    source = source.dataset
    report = hd.sr.srread(tmp_path / "report.dcm")
    (reference,) = report.content.get_image_measurement_groups()[0].source_images
    assert reference.referenced_sop_instance_uid == source.SOPInstanceUID
    assert list(reference.referenced_frame_numbers) == expected
    (library,) = [item for item in report.ContentSequence if item.name == codes.DCM.ImageLibrary]
    for group, numbers in zip(library.ContentSequence, ends, strict=True):
        (image,) = group.ContentSequence[1:]
        assert list(image.referenced_frame_numbers) == numbers
    figure = pydicom.dcmread(tmp_path / "figure.dcm")
    (shown,) = figure.SourceImageSequence
    assert (shown.ReferencedSOPClassUID, shown.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
    assert list(shown.ReferencedFrameNumber) == expected
    assert figure.PatientID == source.PatientID


@pytest.mark.slow
def test_classic_images_are_referred_to_without_frames(classifier: Classifier, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "classic", SHORT.repeat(5, 0).repeat(5, 1))
    prediction = predict_study(classifier, Study("p", DicomFiles(folder)), overlay=False)
    assert len(prediction.sources) == 8
    assert [source.frames for source in prediction.sources] == [()] * 8


def test_enhanced_objects_are_not_deidentified(prediction: Prediction, tmp_path: Path) -> None:
    with pytest.raises(PrivacyError, match=r"enhanced \(multi-frame\).*--keep-identity"):
        write_dicom(prediction, draw_figure(prediction), tmp_path / "O", deidentifier=Deidentifier())
    assert not (tmp_path / "O").exists()
