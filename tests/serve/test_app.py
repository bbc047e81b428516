"""Studies go in, results come out, and nothing stays."""

from __future__ import annotations

import hashlib
import io
import logging
import re
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from fastapi import FastAPI
from nibabel import FileHolder, Nifti1Image
from PIL import Image
from starlette.testclient import TestClient

from monai_fedlora.clinic import overlay
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.prediction import predict_study
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.serve import app as app_module
from monai_fedlora.serve import results
from monai_fedlora.serve.served_study import Removed
from monai_fedlora.studies.finding import find_studies
from tests.clinic.cine_studies import affine_of, write_nifti
from tests.serve.conftest import ADDRESS, finished, send, stored, stranger, zipped

Make = Callable[..., FastAPI]
PATIENT = (b"Doeringer", b"Janette", b"PID-Q4711-ZZQ")
FILES = {"volume", "overlay", "figure", "dicom", "json"}


@pytest.fixture(autouse=True)
def _known_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model reacts to nothing; let one place matter, so that there is an overlay."""
    explain = results.explain

    def explained(prediction: Any, **options: Any) -> Any:
        answer = explain(prediction, **options)
        answer.relevance[5, 5] = 1.0
        return answer

    monkeypatch.setattr(results, "explain", explained)


@pytest.fixture
def photographs(make_app: Make, image_classifier: Classifier) -> Iterator[TestClient]:
    with TestClient(make_app(image_classifier), base_url=ADDRESS) as browser:
        browser.get("/")
        yield browser


@pytest.fixture
def frames(cine: np.ndarray, tmp_path: Path) -> list[tuple[str, bytes]]:
    """Names and contents of a pair of frames."""
    affine = affine_of(cine)
    paths = [write_nifti(tmp_path / f"P1_{name}.nii.gz", cine[..., at], affine) for name, at in (("ed", 0), ("es", 4))]
    return [(path.name, path.read_bytes()) for path in paths]


def photograph(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(60, 200, (48, 64, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="JPEG")
    return content.getvalue()


def nifti(content: bytes) -> Nifti1Image:
    import gzip

    return Nifti1Image.from_file_map({"image": FileHolder(fileobj=io.BytesIO(gzip.decompress(content)))})


def short_id(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def send_heart(browser: TestClient, stored_study: Path) -> str:
    answer = send(browser, ("heart.zip", zipped(stored_study)))
    assert answer.status_code == 202, answer.text
    assert answer.json()["name"] == "heart"
    return answer.json()["id"]


def test_dicom_study_comes_back_classified_with_everything_that_is_offered(
    client: TestClient, classifier: Classifier, stored_study: Path, cine: np.ndarray
) -> None:
    study = finished(client, send_heart(client, stored_study))
    (same,) = find_studies([stored_study], modality="cine").studies
    expected = predict_study(classifier, same).to_json()
    assert study["result"]["overlay"].startswith("Red: hiding the place lowers the probability")
    assert {name: value for name, value in study["result"].items() if name != "overlay"} == expected
    assert study["error"] is None
    assert study["name"] == "heart"
    assert set(study["files"]) == FILES
    content = {kind: client.get(address) for kind, address in study["files"].items()}
    assert {answer.status_code for answer in content.values()} == {200}
    volume, overlay = nifti(content["volume"].content), nifti(content["overlay"].content)
    np.testing.assert_array_equal(np.asarray(volume.dataobj), cine)
    np.testing.assert_allclose(volume.affine, affine_of(cine), atol=1e-3)
    assert overlay.shape == (34, 34, 6)
    assert np.asarray(overlay.dataobj)["A"].max() > 150
    assert content["json"].json() == study["result"]
    assert Image.open(io.BytesIO(content["figure"].content)).format == "PNG"
    with zipfile.ZipFile(io.BytesIO(content["dicom"].content)) as archive:
        objects = {name: archive.read(name) for name in archive.namelist()}
    report, capture = (pydicom.dcmread(io.BytesIO(objects[name])) for name in ("report.dcm", "figure.dcm"))
    assert report.SOPClassUID.name == "Comprehensive SR Storage"
    assert capture.SOPClassUID.name == "Secondary Capture Image Storage"
    assert report.StudyInstanceUID == capture.StudyInstanceUID
    assert report.PatientIdentityRemoved == "YES"
    images = {pydicom.dcmread(io.BytesIO(objects[name])).SOPInstanceUID for name in objects if "images/" in name}
    assert len(images) == len(objects) - 2
    for made in (report, capture):
        assert {item.value for item in made.iterall() if item.keyword == "ReferencedSOPInstanceUID"} == images
    for answer in (*(answer.content for answer in content.values()), *objects.values()):
        assert not any(word in answer for word in PATIENT)
    for answer in content.values():
        assert answer.headers["cache-control"] == "no-store"
    assert content["volume"].headers["content-type"] == "application/gzip"
    assert "content-encoding" not in content["volume"].headers


@pytest.mark.slow
def test_files_of_a_folder_are_one_study(client: TestClient, stored_study: Path) -> None:
    files = [(f"heart/{path.name}", path.read_bytes()) for path in sorted(stored_study.iterdir())]
    answer = send(client, *files, ("heart/.DS_Store", b"x"), ("heart/report.pdf", b"x"))
    assert answer.json()["name"] == "heart"
    assert set(finished(client, answer.json()["id"])["files"]) == FILES


def test_pair_of_frames_has_two_frames_and_no_report(
    client: TestClient, cine: np.ndarray, frames: list[tuple[str, bytes]]
) -> None:
    study = finished(client, send(client, *frames).json()["id"])
    assert study["name"] == "P1"
    assert set(study["files"]) == FILES - {"dicom"}
    volume = nifti(client.get(study["files"]["volume"]).content)
    np.testing.assert_array_equal(np.asarray(volume.dataobj), cine[..., [0, 4]])


def test_photograph_is_shown_without_what_its_file_says(photographs: TestClient) -> None:
    study = finished(photographs, send(photographs, ("mole.jpg", photograph())).json()["id"])
    assert set(study["files"]) == {"image", "figure", "json"}
    answer = photographs.get(study["files"]["image"])
    shown = Image.open(io.BytesIO(answer.content))
    assert (shown.format, shown.size) == ("PNG", (64, 48))
    with Image.open(io.BytesIO(photograph())) as sent:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(sent.convert("RGB")))
    assert answer.headers["content-disposition"].startswith("inline")


def test_large_photograph_is_shown_smaller(photographs: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "LONGEST_SIDE", 32)
    study = finished(photographs, send(photographs, ("mole.jpg", photograph())).json()["id"])
    shown = Image.open(io.BytesIO(photographs.get(study["files"]["image"]).content))
    assert shown.size == (32, 24)


def test_result_is_there_while_places_are_looked_for(
    client: TestClient, frames: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    explain = results.explain

    def slow(prediction: Any, **options: Any) -> Any:
        seen.append(client.get(f"/api/studies/{identity}").json())
        return explain(prediction, **options)

    monkeypatch.setattr(results, "explain", slow)
    monkeypatch.setattr(client.app.state.worker, "_queue", waiting := _Gate(client.app.state.worker._queue))
    identity = send(client, *frames).json()["id"]
    assert client.get(f"/api/studies/{identity}").json() == {
        "id": identity, "short_id": short_id(identity), "upload_id": "", "name": "P1", "is_pseudonym": False,
        "state": "waiting", "error": None, "result": None, "opinion": None, "answer": 1, "can_choose_frames": False,
        "chosen": None, "files": {},
    }  # fmt: skip
    waiting.open()
    final = finished(client, identity)
    assert [study["state"] for study in seen] == ["explaining"]
    assert seen[0]["result"]["probabilities"] == final["result"]["probabilities"]
    assert set(seen[0]["files"]) == {"volume"}


class _Gate:
    """A queue that hands on when it is opened."""

    def __init__(self, queue: Any) -> None:
        self._queue, self._items, self._open = queue, [], False

    def put(self, item: Any) -> None:
        if self._open or item is None:
            self._queue.put(item)
        else:
            self._items.append(item)

    def get(self) -> Any:
        return self._queue.get()

    def open(self) -> None:
        self._open = True
        for item in self._items:
            self._queue.put(item)


@pytest.mark.slow
def test_uploaded_files_are_gone_when_the_study_is_done(client: TestClient, stored_study: Path, scratch: Path) -> None:
    study = finished(client, send_heart(client, stored_study))
    kept = {path.name for path in stored(scratch) if path.parent.name != "images"}
    assert kept == {address.rpartition("/")[2] for address in study["files"].values()}


@pytest.mark.slow
def test_deleted_study_leaves_no_file(client: TestClient, frames: list[tuple[str, bytes]], scratch: Path) -> None:
    keep, drop = (finished(client, send(client, *frames).json()["id"]) for _ in range(2))
    assert client.delete(f"/api/studies/{drop['id']}").status_code == 204
    assert client.get(f"/api/studies/{drop['id']}").status_code == 404
    assert client.get(drop["files"]["figure"]).status_code == 404
    assert client.delete(f"/api/studies/{drop['id']}").status_code == 404
    assert client.get(keep["files"]["figure"]).status_code == 200
    assert len(stored(scratch)) == len(keep["files"])
    assert client.delete("/api/session").status_code == 204
    assert client.get(f"/api/studies/{keep['id']}").status_code == 404
    assert stored(scratch) == []
    assert send(client, *frames).status_code == 202


@pytest.mark.slow
def test_study_that_is_deleted_while_it_is_classified_leaves_no_file(
    client: TestClient, frames: list[tuple[str, bytes]], scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explain, ended = results.explain, []

    def deleting(prediction: Any, *, on_batch: Callable[[], None]) -> Any:
        assert client.delete(f"/api/studies/{identity}").status_code == 204
        try:
            return explain(prediction, on_batch=on_batch)
        except Removed as error:
            ended.append(error)
            raise

    monkeypatch.setattr(client.app.state.worker, "_queue", waiting := _Gate(client.app.state.worker._queue))
    identity = send(client, *frames).json()["id"]
    monkeypatch.setattr(results, "explain", deleting)
    waiting.open()
    for _ in range(200):
        if client.get(f"/api/studies/{identity}").status_code == 404:
            break
        time.sleep(0.02)
    monkeypatch.setattr(results, "explain", explain)
    finished(client, send(client, *frames).json()["id"])
    assert len(ended) == 1
    assert len({path.parent for path in stored(scratch)}) == 1


def test_shutdown_leaves_nothing(make_app: Make, frames: list[tuple[str, bytes]], scratch: Path) -> None:
    with TestClient(make_app(), base_url=ADDRESS) as browser:
        finished(browser, send(browser, *frames).json()["id"])
        send(browser, *frames)
        assert stored(scratch)
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_idle_session_is_removed_by_itself(make_app: Make, frames: list[tuple[str, bytes]], scratch: Path) -> None:
    with TestClient(make_app(idle_minutes=0.005), base_url=ADDRESS) as browser:
        finished(browser, send(browser, *frames).json()["id"])
        for _ in range(100):
            if not stored(scratch):
                break
            time.sleep(0.05)
        assert stored(scratch) == []


@pytest.mark.slow
def test_stranger_sees_no_study(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    study = finished(client, send(client, *frames).json()["id"])
    other = stranger(client)
    for _ in range(2):
        for address in (f"/api/studies/{study['id']}", *study["files"].values()):
            assert other.get(address).status_code == 404
        assert other.delete(f"/api/studies/{study['id']}").status_code == 404
        assert other.delete("/api/session").status_code == 204
        other.get("/")
        send(other, *frames)
    assert client.get(f"/api/studies/{study['id']}").status_code == 200


def test_studies_that_are_sent_at_once_share_the_session_of_the_page(
    client: TestClient, frames: list[tuple[str, bytes]]
) -> None:
    before = dict(client.cookies)
    ids = [send(stranger(client, cookies=before), *frames).json()["id"] for _ in range(3)]
    assert [client.get(f"/api/studies/{identity}").status_code for identity in ids] == [200] * 3
    client.get("/")
    assert dict(client.cookies) == before


def test_session_cookie_is_closed_to_scripts_and_other_sites(make_app: Make) -> None:
    with TestClient(make_app(port=8123), base_url=ADDRESS) as browser:
        cookie = browser.get("/").headers["set-cookie"]
    assert cookie.startswith("monai-fedlora-session-8123=")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("run.exe", b"MZ", 415),
        ("mole.jpg", b"x", 415),
        ("IM1", b"no DICOM", 415),
        ("x.zip", b"no archive", 400),
        ("P_ed.nii.gz", b"x", 400),
    ],
)
def test_wrong_upload_is_refused_in_a_sentence_and_leaves_nothing(
    client: TestClient, scratch: Path, name: str, content: bytes, status: int
) -> None:
    answer = send(client, (name, content))
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert stored(scratch) == []


def test_too_large_upload_is_refused_announced_or_not(make_app: Make, scratch: Path) -> None:
    with TestClient(make_app(max_upload_bytes=100_000), base_url=ADDRESS) as browser:
        announced = send(browser, ("P.nii.gz", bytes(8_000_000)))
        just_more = send(browser, ("P.nii.gz", bytes(100_001)))

        def pieces() -> Iterator[bytes]:
            yield b'--B\r\nContent-Disposition: form-data; name="files"; filename="P.nii.gz"\r\n\r\n'
            for _ in range(200):
                yield bytes(1000)

        headers = {"Content-Type": "multipart/form-data; boundary=B"}
        streamed = browser.post("/api/studies", content=pieces(), headers=headers)
        assert "content-length" not in streamed.request.headers
        for answer in (announced, just_more, streamed):
            assert answer.status_code == 413
            assert "at most" in answer.json()["error"]
        assert stored(scratch) == []


@pytest.mark.slow
def test_too_many_studies_are_refused(make_app: Make, frames: list[tuple[str, bytes]]) -> None:
    with TestClient(make_app(max_waiting=2, max_kept=3), base_url=ADDRESS) as browser:
        browser.get("/")
        browser.app.state.worker._queue = gate = _Gate(browser.app.state.worker._queue)
        ids = [send(browser, *frames).json()["id"] for _ in range(2)]
        full = send(browser, *frames)
        assert full.status_code == 429
        assert "2 studies wait" in full.json()["error"]
        gate.open()
        for identity in ids:
            finished(browser, identity)
        finished(browser, send(browser, *frames).json()["id"])
        kept = send(browser, *frames)
        assert kept.status_code == 429
        assert "kept already" in kept.json()["error"]


def test_full_disk_is_said(
    client: TestClient, frames: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(app_module, "make_study", full)
    answer = send(client, *frames)
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["error"]
    assert stored(scratch) == []


def test_study_that_fails_says_why_in_its_senders_words_and_stops_nothing(
    client: TestClient, frames: list[tuple[str, bytes]], scratch: Path
) -> None:
    cut = [(name, content[:200]) for name, content in frames]
    bad = send(client, *cut).json()["id"]
    good = send(client, *frames).json()["id"]
    study = finished(client, bad, state="failed")
    assert "P1_ed.nii.gz" in study["error"]
    assert str(scratch) not in study["error"]
    assert (study["result"], study["files"]) == (None, {})
    finished(client, good)


@pytest.mark.slow
def test_defect_stops_nothing_and_the_log_names_nobody(
    client: TestClient,
    frames: list[tuple[str, bytes]],
    stored_study: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    figure = results.draw_figure

    def broken(prediction: Any) -> Any:
        raise ZeroDivisionError(f"about {prediction.study}")

    monkeypatch.setattr(results, "draw_figure", broken)
    study = finished(client, send(client, *frames).json()["id"], state="failed")
    assert "defect" in study["error"]
    assert study["result"]["prediction"]
    monkeypatch.setattr(results, "draw_figure", figure)
    finished(client, send_heart(client, stored_study))
    finished(client, send(client, *[(name, b"x") for name, _ in frames]).json()["id"], state="failed")
    for _ in range(100):  # a study is finished a moment before the log says so
        said = [record for record in caplog.records if record.name.startswith("monai_fedlora")]
        if len(said) == 3:
            break
        time.sleep(0.05)
    lines = [record.getMessage() for record in said]
    assert [re.sub(r"[\d.]+ s$", "T", re.sub(r"py:\d+", "py:L", line)) for line in lines] == [
        "a study failed (ZeroDivisionError at results.py:L) after T",
        "a study was classified after T",
        "a study failed (DataError) after T",
    ]
    everything = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    for word in ("P1", "heart", "Doeringer", "PID-Q4711", study["id"]):
        assert word not in everything


def test_defect_of_a_request_is_a_sentence_and_the_log_names_nobody(
    client: TestClient,
    frames: list[tuple[str, bytes]],
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("about P1")

    monkeypatch.setattr(app_module, "make_study", broken)
    answer = send(client, *frames)
    assert answer.status_code == 500
    assert "defect" in answer.json()["error"]
    assert "content-security-policy" in answer.headers
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("monai_fedlora"))
    assert line.startswith("a request failed (ZeroDivisionError at app.py:")
    assert "P1" not in line
    assert stored(scratch) == []


@pytest.mark.slow
@pytest.mark.parametrize("error", [PrivacyError("text is burned in"), ConfigError("highdicom is missing")])
def test_missing_report_is_noted(
    client: TestClient, stored_study: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(results, "write_dicom", refuse)
    study = finished(client, send_heart(client, stored_study))
    assert set(study["files"]) == FILES - {"dicom"}
    assert f"there is no DICOM report: {error}" in study["result"]["notes"]


def test_overlay_that_cannot_be_placed_is_left_out_and_noted(
    client: TestClient, frames: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "network_affine", lambda *args: None)
    study = finished(client, send(client, *frames).json()["id"])
    assert "overlay" not in study["files"]
    assert results.UNKNOWN_PLACE in study["result"]["notes"]


def test_answer_that_hangs_on_no_place_has_no_overlay(
    client: TestClient, frames: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "THRESHOLD", 1.5)
    study = finished(client, send(client, *frames).json()["id"])
    assert "overlay" not in study["files"]
    assert results.NO_PLACE in study["result"]["notes"]


def test_places_that_cannot_be_found_cost_the_overlay_alone(
    client: TestClient, frames: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(prediction: Any, **options: Any) -> Any:
        raise ConfigError("a package is missing")

    monkeypatch.setattr(results, "explain", missing)
    study = finished(client, send(client, *frames).json()["id"])
    assert set(study["files"]) == {"volume", "figure", "json"}
    assert "there is no overlay: a package is missing" in study["result"]["notes"]


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "vendor",
        "",
        "x.js",
        "/etc/passwd",
        "..\\app.py",
        "%00",
        ".gitignore",
    ],
)
def test_pages_lead_nowhere_else(client: TestClient, name: str) -> None:
    answer = client.get(f"/static/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]


def test_only_known_kinds_of_files_are_pages(tmp_path: Path) -> None:
    from monai_fedlora.serve.pages import find_pages

    (tmp_path / "vendor").mkdir()
    for name in ("index.html", "vendor/niivue.js", "notes.md", "secret.py", "key"):
        (tmp_path / name).write_text("x")
    (tmp_path / "link.js").symlink_to(tmp_path / "secret.py")
    assert set(find_pages(tmp_path)) == {"index.html", "vendor/niivue.js"}


@pytest.mark.slow
def test_offered_files_are_asked_for_by_name_alone(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    study = finished(client, send(client, *frames).json()["id"])
    for name in ("report.dcm", "../upload/000000.nii.gz", "..%2f..%2f", "result.json/x", "nothing"):
        assert client.get(f"/api/studies/{study['id']}/{name}").status_code == 404


@pytest.mark.slow
def test_server_asks_no_other_machine_for_anything(
    make_app: Make, stored_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: asked.append(args) or [])
    with TestClient(make_app(), base_url=ADDRESS) as browser:
        browser.get("/")
        study = finished(browser, send_heart(browser, stored_study))
        for address in study["files"].values():
            browser.get(address)
    assert asked == []


def test_model_says_what_it_takes_and_where_the_limits_are(make_app: Make, classifier: Classifier) -> None:
    with TestClient(make_app(max_upload_bytes=12345), base_url=ADDRESS) as browser:
        model = browser.get("/api/model").json()
    assert set(model) == {
        "name", "version", "sha256", "modality", "classes", "notice", "limits", "intended_use", "accepts",
        "max_upload_bytes", "viewer", "card", "overlay", "trained_on", "blind", "warnings", "keeps_feedback",
        "origin_doubts", "gives",
    }  # fmt: skip
    assert model["max_upload_bytes"] == 12345
    assert model["sha256"] == classifier.sha256
    origin = classifier.trust.origin
    assert model["trained_on"] == {**origin.to_json(), "summary": origin.summary}
