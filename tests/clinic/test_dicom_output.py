"""What is written for an archive: valid, readable by others, referring to its study, and free of identities."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_output import _carried, write_dicom
from monai_fedlora.clinic.figure import draw_figure
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction, predict_study
from monai_fedlora.clinic.sr_parts import PRIVATE_SCHEME
from monai_fedlora.errors import ConfigError, DataError, PrivacyError
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from tests.clinic.archive_checks import files, output_of, references, required
from tests.clinic.cine_studies import affine_of, write_nifti, write_study
from tests.clinic.identities import PLANTED, plant

IDENTITIES = ("Doeringer", "Janette", "Q4711", "House", "Gregory", "19500102", "20240102", "101112.131415", PLANTED)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::UserWarning:highdicom")


@pytest.fixture(scope="module")
def prediction(classifier: Classifier, stored_study: Path) -> Prediction:
    return predict_study(classifier, Study("p", DicomFiles(stored_study)))


@pytest.fixture(scope="module")
def figure(prediction: Prediction) -> Image.Image:
    return draw_figure(prediction)


@pytest.fixture(scope="module")
def kept(prediction: Prediction, figure: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What goes back to the archive of the hospital."""
    folder = tmp_path_factory.mktemp("kept")
    write_dicom(prediction, figure, folder, deidentifier=None)
    return folder


@pytest.fixture(scope="module")
def clean(prediction: Prediction, figure: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What may leave it."""
    folder = tmp_path_factory.mktemp("clean")
    write_dicom(prediction, figure, folder, deidentifier=Deidentifier())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("which", ["kept", "clean"])
def test_every_required_attribute_is_there(which: str, request: pytest.FixtureRequest) -> None:
    assert required(request.getfixturevalue(which)) == []


def test_required_attributes_are_missed(kept: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(kept / "report.dcm")
    del dataset.CompletionFlag, dataset.PatientID
    dataset.save_as(tmp_path / "report.dcm")
    assert required(tmp_path) == [("report.dcm", "PatientID"), ("report.dcm", "CompletionFlag")]


def test_report_says_the_answer_in_codes(prediction: Prediction, kept: Path) -> None:
    report = hd.sr.srread(kept / "report.dcm")
    assert isinstance(report, hd.sr.ComprehensiveSR)
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    answer, *chances = report.content.get_image_measurement_groups()
    (evaluation,) = answer.get_qualitative_evaluations(name=codes.SCT.Classification)
    assert evaluation.value.meaning == prediction.predicted
    assert (evaluation.value.scheme_designator, evaluation.value.value) == (PRIVATE_SCHEME, f"CLASS{prediction.best}")
    for index, group in enumerate(chances):
        (measurement,) = group.get_measurements(name=codes.DCM.Probability)
        assert measurement.value == pytest.approx(prediction.probabilities[index], abs=1e-12)
        assert measurement.unit == codes.UCUM.NoUnits
        assert group.finding_type.meaning == prediction.classifier.classes[index]
        assert group.finding_sites[0].value == codes.SCT.Heart
    texts = [item.TextValue for item in answer[0].ContentSequence if item.ValueType == "TEXT"]
    assert NOT_FOR_CLINICAL_USE in texts
    assert f"SHA-256 of model.ts: {prediction.classifier.sha256}" in texts
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("doubts", "reach", "state"),
    [
        (("it may be no heart",), True, "Doubtful"),
        ((), True, "No doubt found"),
        ((), False, "Cannot tell whether it is doubtful"),
    ],
)
def test_state_and_origin_are_coded(
    prediction: Prediction, figure: Image.Image, tmp_path: Path, doubts: tuple[str, ...], reach: bool, state: str
) -> None:
    trust = replace(prediction.classifier.trust, blind=() if reach else ("the bundle has no statistics",))
    said = replace(
        prediction,
        doubts=doubts,
        probabilities=(0.5, 0.5),
        classifier=replace(prediction.classifier, trust=trust),
    )
    write_dicom(said, figure, tmp_path, deidentifier=None)
    answer, *_ = hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
    found = {item.name.meaning: item.value.meaning for item in answer.get_qualitative_evaluations()}
    assert found["State of the answer"] == state
    assert found["Whether the answer is decided"] == "Undecided"
    assert trust.origin.summary in [item.get("TextValue") for item in answer[0].ContentSequence]
    assert "Error" not in output_of("dciodvfy", "-new", tmp_path / "report.dcm")


def test_doubts_stand_in_the_report(prediction: Prediction, figure: Image.Image, tmp_path: Path) -> None:
    doubted = replace(prediction, doubts=("it may be no heart",))
    write_dicom(doubted, figure, tmp_path, deidentifier=None)
    answer, *_ = hd.sr.srread(tmp_path / "report.dcm").content.get_image_measurement_groups()
    assert "Doubtful because it may be no heart." in [item.get("TextValue") for item in answer[0].ContentSequence]


def test_report_tells_end_diastole_and_end_systole_apart(prediction: Prediction, clean: Path) -> None:
    report = hd.sr.srread(clean / "report.dcm")
    (library,) = [item for item in report.ContentSequence if item.name == codes.DCM.ImageLibrary]
    frames = prediction.frames
    assert frames is not None
    times = {"EndDiastole": 10.0 + 50.0 * frames.ed, "EndSystole": 10.0 + 50.0 * frames.es}
    images = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, files(clean / "images"))}
    shown = set()
    for group, (phase, time) in zip(library.ContentSequence, times.items(), strict=True):
        context, *entries = group.ContentSequence
        assert (context.name, context.value) == (codes.SCT.CardiacCyclePhase, getattr(codes.SCT, phase))
        uids = [entry.referenced_sop_instance_uid for entry in entries]
        assert [float(images[uid].TriggerTime) for uid in uids] == [time] * 6
        shown.update(uids)
    assert shown == images.keys()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["kept", "clean"])
def test_a_validator_of_the_standard_finds_no_error(which: str, request: pytest.FixtureRequest) -> None:
    """dicom3tools' ``dciodvfy`` checks modules, values and the relationships of content items."""
    for path in files(request.getfixturevalue(which)):
        assert [line for line in output_of("dciodvfy", "-new", path).splitlines() if "Error" in line] == [], path


def test_the_validator_finds_what_is_wrong(kept: Path, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(kept / "report.dcm")
    del dataset.CompletionFlag
    dataset.save_as(tmp_path / "report.dcm")
    assert "Error" in output_of("dciodvfy", "-new", tmp_path / "report.dcm")


def test_another_toolkit_reads_the_measurements(prediction: Prediction, clean: Path, tmp_path: Path) -> None:
    """dcmqi, on top of dcmtk, knows the template."""
    found = tmp_path / "found.json"
    output_of("tid1500reader", "--inputDICOM", clean / "report.dcm", "--outputMetadata", found)
    content = json.loads(found.read_text())
    answer, *chances = content["Measurements"]
    assert answer["measurementAlgorithmIdentification"]["AlgorithmVersion"] == prediction.classifier.version
    said = {
        item["conceptCode"]["CodeMeaning"]: item["conceptValue"]["CodeMeaning"]
        for item in answer["qualitativeEvaluations"]
        if isinstance(item["conceptValue"], dict)
    }
    assert said["Classification (attribute)"] == prediction.predicted
    for index, group in enumerate(chances):
        (item,) = group["measurementItems"]
        assert group["TrackingIdentifier"] == f"Probability of {prediction.classifier.classes[index]}"
        assert float(item["value"]) == pytest.approx(prediction.probabilities[index], abs=1e-9)


def test_another_toolkit_reads_the_figure(figure: Image.Image, kept: Path) -> None:
    picture = sitk.GetArrayFromImage(sitk.ReadImage(str(kept / "figure.dcm")))
    np.testing.assert_array_equal(picture[0] if picture.ndim == 4 else picture, np.asarray(figure))


def test_kept_identity_joins_the_study_in_the_archive(prediction: Prediction, kept: Path) -> None:
    assert [path.name for path in files(kept)] == ["figure.dcm", "report.dcm"]
    source = prediction.sources[0].dataset
    instances = {source.dataset.SOPInstanceUID for source in prediction.sources}
    series = set()
    for path in files(kept):
        dataset = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate"):
            assert dataset[keyword].value == source[keyword].value
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        series.add(dataset.SeriesInstanceUID)
        assert set(references(dataset)) == instances
        assert "PatientIdentityRemoved" not in dataset
    assert len(series) == 2
    evidence = pydicom.dcmread(kept / "report.dcm").CurrentRequestedProcedureEvidenceSequence[0]
    assert evidence.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID


def test_deidentified_references_lead_to_the_images_beside_them(prediction: Prediction, clean: Path) -> None:
    images = [pydicom.dcmread(path) for path in files(clean / "images")]
    assert len(images) == len(prediction.sources) == 12
    instances = {image.SOPInstanceUID for image in images}
    for name in ("report.dcm", "figure.dcm"):
        dataset = pydicom.dcmread(clean / name)
        assert set(references(dataset)) == instances
        assert dataset.StudyInstanceUID == images[0].StudyInstanceUID
        assert dataset.PatientID == images[0].PatientID
        assert dataset.PatientIdentityRemoved == "YES"
    for image, source in zip(images, prediction.sources, strict=True):
        np.testing.assert_array_equal(image.pixel_array, source.dataset.pixel_array)


@pytest.mark.slow
def test_deidentified_files_hold_no_identity_from_wherever_it_comes(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path
) -> None:
    """Identifiers all over the dictionary, in private attributes, overlays, the file's head and behind the pixels."""

    def change(dataset: Dataset, place: int, frame: int) -> None:
        plant(dataset, every=20)
        dataset.PixelData = dataset.PixelData + PLANTED.encode() + b" "

    folder = write_study(tmp_path / "planted", cine[:, :, :3, :6], change=change)
    study, series = (
        pydicom.dcmread(next(folder.iterdir()))[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID")
    )
    prediction = predict_study(classifier, Study(PLANTED, DicomFiles(folder)), overlay=False)
    written = write_dicom(prediction, draw_figure(prediction), tmp_path / "O", deidentifier=Deidentifier())
    assert len(written) == 8
    originals = {source.dataset.SOPInstanceUID for source in prediction.sources}
    for path in written:
        content = path.read_bytes()
        for trace in (*IDENTITIES, study, series, *originals):
            assert trace.encode() not in content, (path.name, trace)


@pytest.mark.slow
def test_burned_in_text_is_refused_unless_the_identity_is_kept(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path
) -> None:
    folder = write_study(tmp_path / "burned", cine[:, :, :3, :6], BurnedInAnnotation="YES")
    prediction = predict_study(classifier, Study("p", DicomFiles(folder)), overlay=False)
    figure = draw_figure(prediction)
    with pytest.raises(PrivacyError, match="burned"):
        write_dicom(prediction, figure, tmp_path / "clean", deidentifier=Deidentifier())
    assert not (tmp_path / "clean").exists()
    assert len(write_dicom(prediction, figure, tmp_path / "kept", deidentifier=None)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        dict.fromkeys(("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber")),
        {"StudyDate": "20240000", "StudyTime": "99", "PatientBirthDate": "00000000"},
        {"PatientName": "Łukasz^Ünïcode", "ReferringPhysicianName": None, "StudyID": None, "Manufacturer": None},
    ],
)
@pytest.mark.parametrize("deidentifier", [None, Deidentifier()])
def test_headers_as_scanners_write_them_are_carried_over(
    classifier: Classifier, cine: np.ndarray, tmp_path: Path, changes: dict[str, Any], deidentifier: Deidentifier | None
) -> None:
    folder = write_study(tmp_path / "study", cine[:, :, :3, :6], **changes)
    prediction = predict_study(classifier, Study("p", DicomFiles(folder)), overlay=False)
    write_dicom(prediction, draw_figure(prediction), tmp_path / "O", deidentifier=deidentifier)
    assert required(tmp_path / "O") == []
    hd.sr.srread(tmp_path / "O" / "report.dcm")


def test_a_study_keeps_a_date_that_a_report_leaves_empty() -> None:
    source = pydicom.Dataset()
    source.file_meta = pydicom.dataset.FileMetaDataset()
    source.StudyDate, source.StudyTime, source.PatientName = "20240000", "120000", "A^B"
    copy = _carried(source)
    assert (copy.StudyDate, copy.StudyTime, copy.PatientID) == ("", "120000", "")
    assert source.StudyDate == "20240000"
    assert "PatientID" not in source


def test_study_that_was_not_read_from_dicom_has_no_report(
    classifier: Classifier, cine: np.ndarray, figure: Image.Image, tmp_path: Path
) -> None:
    path = write_nifti(tmp_path / "p.nii", cine, affine_of(cine))
    prediction = predict_study(classifier, Study("p", CineFile(path)), overlay=False)
    with pytest.raises(DataError, match="not read from DICOM"):
        write_dicom(prediction, figure, tmp_path / "O", deidentifier=None)


def test_missing_package_is_named(
    prediction: Prediction, figure: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ConfigError, match=r"monai-fedlora\[dicom\]"):
        write_dicom(prediction, figure, tmp_path, deidentifier=None)
