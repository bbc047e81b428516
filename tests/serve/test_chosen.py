"""An answer is computed again with frames that a person chose, after what was sent is gone."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.prediction import predict_study
from monai_fedlora.errors import DataError
from monai_fedlora.serve import results
from monai_fedlora.studies.study import CineFile, DicomFiles, Study
from tests.clinic.cine_studies import affine_of, write_nifti
from tests.serve.conftest import ADDRESS, finished, send, stored, stranger, zipped

PATIENT = (b"Doeringer", b"Janette", b"PID-Q4711-ZZQ")
ED, ES = 9, 5


@pytest.fixture(autouse=True)
def _without_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the places that an answer hangs on takes long, and is tested elsewhere."""
    monkeypatch.setattr(results, "explain", lambda prediction, **options: prediction)


@pytest.fixture
def heart(client: TestClient, stored_study: Path) -> dict[str, Any]:
    """A DICOM study that was answered."""
    return finished(client, send(client, ("heart.zip", zipped(stored_study))).json()["id"])


def choose(browser: TestClient, identity: str, ed: Any = ED, es: Any = ES) -> Any:
    return browser.put(f"/api/studies/{identity}/frames", json={"ed": ed, "es": es})


def again(browser: TestClient, identity: str, **frames: int) -> dict[str, Any]:
    answer = choose(browser, identity, **frames)
    assert answer.status_code == 202, answer.text
    return finished(browser, identity)


@pytest.mark.slow
def test_answer_is_that_of_the_chosen_frames(
    client: TestClient, heart: dict[str, Any], classifier: Classifier, stored_study: Path
) -> None:
    expected = predict_study(classifier, Study("heart", DicomFiles(stored_study, (ED, ES))), overlay=False)
    result = again(client, heart["id"])["result"]
    assert result["probabilities"] == dict(zip(classifier.classes, expected.probabilities, strict=True))
    assert result["probabilities"] != heart["result"]["probabilities"]
    assert sorted(result["doubts"]) == sorted(expected.doubts)
    frames = result["frames"]
    assert (frames["ed"], frames["es"], frames["counted_from"], frames["by_person"]) == (ED, ES, 0, True)
    assert frames["how"] == "chosen by a person"
    assert frames["found"] == [heart["result"]["frames"][name] for name in ("ed", "es")]
    assert any("a person chose frame 10" in note and "counted from 1" in note for note in result["notes"])


@pytest.mark.slow
def test_figure_report_and_result_are_made_again_and_name_the_choice(client: TestClient, heart: dict[str, Any]) -> None:
    before = {kind: client.get(address).content for kind, address in heart["files"].items()}
    study = again(client, heart["id"])
    assert set(study["files"]) == set(heart["files"])
    after = {kind: client.get(address) for kind, address in study["files"].items()}
    assert after["volume"].content == before["volume"]
    for kind in ("figure", "dicom", "json"):
        assert study["files"][kind] != heart["files"][kind], "a browser may show what it kept"
        assert after[kind].content != before[kind]
        assert "answer2" in after[kind].headers["content-disposition"]
    assert Image.open(io.BytesIO(after["figure"].content)).width > 500
    with zipfile.ZipFile(io.BytesIO(after["dicom"].content)) as archive:
        objects = {name: archive.read(name) for name in archive.namelist()}
    report = pydicom.dcmread(io.BytesIO(objects["report.dcm"]))
    said = [str(item.value) for item in report.iterall() if item.keyword == "TextValue"]
    assert any("a person chose frame 10" in text for text in said)
    images = [pydicom.dcmread(io.BytesIO(objects[name])) for name in objects if "images/" in name]
    referred = {item.value for item in report.iterall() if item.keyword == "ReferencedSOPInstanceUID"}
    assert referred == {image.SOPInstanceUID for image in images}
    with zipfile.ZipFile(io.BytesIO(before["dicom"])) as archive:
        first = pydicom.dcmread(io.BytesIO(archive.read("report.dcm")))
    assert report.StudyInstanceUID == first.StudyInstanceUID
    assert {image.StudyInstanceUID for image in images} == {first.StudyInstanceUID}
    times = {float(image.TriggerTime) for image in images}
    assert len(times) == 2
    assert times != {float(item.value) for item in first.iterall() if item.keyword == "TriggerTime"}


@pytest.mark.slow
def test_nothing_that_is_kept_names_the_patient_and_all_goes_with_the_study(
    client: TestClient, heart: dict[str, Any], scratch: Path
) -> None:
    again(client, heart["id"])
    kept = stored(scratch)
    assert kept
    assert not any("upload" in path.parts for path in kept)
    assert not any(word in path.read_bytes() for path in kept for word in PATIENT)
    disk = client.app.state.sessions.disk
    assert disk.used == sum(path.stat().st_size for path in kept)
    client.delete(f"/api/studies/{heart['id']}")
    assert stored(scratch) == []
    assert disk.used == 0


@pytest.mark.slow
def test_answer_of_before_is_gone_as_soon_as_another_is_asked_for(
    client: TestClient, heart: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Any:
        go_on.wait(20)
        raise DataError("the model refuses this image")

    monkeypatch.setattr(results, "predict_loaded", slow)
    now = choose(client, heart["id"]).json()
    assert now["result"] is None
    assert set(now["files"]) == {"volume"}
    assert client.get(heart["files"]["json"]).status_code == 404
    assert choose(client, heart["id"]).status_code == 409
    go_on.set()
    failed = finished(client, heart["id"], state="failed")
    assert failed["result"] is None
    assert failed["error"] == "the model refuses this image"
    monkeypatch.undo()
    monkeypatch.setattr(results, "explain", lambda prediction, **options: prediction)
    assert again(client, heart["id"], ed=1, es=4)["result"]["frames"]["ed"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 0.37], ids=["whole numbers", "rescaled"])
def test_grey_levels_are_kept_exactly(
    client: TestClient, classifier: Classifier, cine: np.ndarray, tmp_path: Path, scale: float
) -> None:
    voxels = cine * np.float32(scale) if scale != 1.0 else cine
    path = write_nifti(tmp_path / "cine.nii.gz", voxels, affine_of(cine))
    expected = predict_study(classifier, Study("cine", CineFile(path, (ED, ES))), overlay=False)
    identity = send(client, ("cine.nii.gz", path.read_bytes())).json()["id"]
    finished(client, identity)
    study = again(client, identity)
    assert study["result"]["probabilities"] == dict(zip(classifier.classes, expected.probabilities, strict=True))
    assert "dicom" not in study["files"]


def test_frames_that_cannot_be_are_refused_and_cost_nothing(client: TestClient, heart: dict[str, Any]) -> None:
    numbers = [(0, 0), (0, 10), (-1, 4)]
    for frames in [*numbers, (True, 4), ("1", 4), (1.0, 4), (None, 4)]:
        answer = choose(client, heart["id"], *frames)
        assert answer.status_code == 400
        assert ("0 to 9" if frames in numbers else "whole") in answer.json()["error"]
    assert client.get(f"/api/studies/{heart['id']}").json()["result"] == heart["result"]


def test_two_files_have_no_frames_to_choose_from(client: TestClient, cine: np.ndarray, tmp_path: Path) -> None:
    files = [
        (path.name, path.read_bytes())
        for name, frame in (("ed", 0), ("es", 4))
        for path in [write_nifti(tmp_path / f"p_{name}.nii.gz", cine[..., frame], affine_of(cine))]
    ]
    study = finished(client, send(client, *files).json()["id"])
    assert not study["can_choose_frames"]
    assert choose(client, study["id"]).status_code == 404


def test_only_its_sender_chooses(client: TestClient, heart: dict[str, Any]) -> None:
    assert heart["can_choose_frames"]
    other = stranger(client)
    other.get("/")
    assert choose(other, heart["id"]).status_code == 404


@pytest.mark.slow
def test_images_that_cannot_be_de_identified_are_not_kept_and_that_is_said_again(
    client: TestClient, stored_study: Path, tmp_path: Path, scratch: Path
) -> None:
    for path in stored_study.iterdir():
        image = pydicom.dcmread(path)
        image.BurnedInAnnotation = "YES"
        image.save_as(tmp_path / path.name)
    files = [(f"heart/{path.name}", path.read_bytes()) for path in sorted(tmp_path.iterdir()) if path.is_file()]
    study = finished(client, send(client, *files).json()["id"])
    assert not any(path.suffix == ".dcm" for path in stored(scratch))
    chosen = again(client, study["id"])
    assert "dicom" not in chosen["files"]
    assert any("burned into" in note for note in chosen["result"]["notes"])


@pytest.mark.slow
def test_studies_that_wait_leave_no_room(
    make_app: Callable[..., FastAPI], stored_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    with TestClient(make_app(max_waiting=1), base_url=ADDRESS) as browser:
        browser.get("/")
        first = finished(browser, send(browser, ("heart.zip", zipped(stored_study))).json()["id"])
        monkeypatch.setattr(results, "load_study", lambda *arguments, **options: go_on.wait(20) and 1 / 0)
        send(browser, ("other.zip", zipped(stored_study)))
        assert choose(browser, first["id"]).status_code == 429
        assert browser.get(f"/api/studies/{first['id']}").json()["result"] == first["result"]
        go_on.set()
