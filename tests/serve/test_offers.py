"""What is given out of studies cannot be mixed up, and names nobody where it may not."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pydicom
import pytest
from PIL import Image
from starlette.testclient import TestClient

from monai_fedlora.clinic import figure_title
from monai_fedlora.clinic.dicom_output import FIGURE_NAME
from tests.clinic.cine_studies import affine_of, write_nifti
from tests.serve.conftest import finished, send, stored, stranger, zipped

KEY, OTHER = "a" * 64, "b" * 64
TAB = {"X-Page-Key": KEY}


@pytest.fixture
def frames(cine: np.ndarray, tmp_path: Path) -> list[tuple[str, bytes]]:
    affine = affine_of(cine)
    paths = [write_nifti(tmp_path / f"P1_{name}.nii.gz", cine[..., at], affine) for name, at in (("ed", 0), ("es", 4))]
    return [(path.name, path.read_bytes()) for path in paths]


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that is written above figures."""
    written: list[str] = []
    lettering = figure_title.lettering

    def record(text: str, size: int) -> Any:
        written.append(text)
        return lettering(text, size)

    monkeypatch.setattr(figure_title, "lettering", record)
    return written


def called(answer: Any) -> str:
    """The name under which a browser keeps what it was given."""
    disposition = answer.headers["content-disposition"]
    name = disposition.partition("filename*=utf-8''")[2] or disposition.partition('filename="')[2].rstrip('"')
    return unquote(name)


def studies_of(browser: TestClient, **options: Any) -> list[dict[str, Any]]:
    return browser.get("/api/session", **options).json()["studies"]


@pytest.mark.slow
def test_files_are_called_after_their_study_but_dicom_after_a_pseudonym_alone(
    client: TestClient, stored_study: Path, titles: list[str]
) -> None:
    study = finished(client, send(client, ("Doeringer Janette.zip", zipped(stored_study))).json()["id"])
    assert study["name"] == study["result"]["study"] == "Doeringer Janette"
    sign = study["short_id"]
    names = {kind: called(client.get(address)) for kind, address in study["files"].items()}
    assert names["figure"] == f"Doeringer_Janette-{sign}-figure.png"
    assert names["json"] == f"Doeringer_Janette-{sign}-result.json"
    assert names["dicom"] == f"study-{sign}-dicom.zip"
    assert titles == [f"Doeringer Janette ({sign})"]
    answer = client.put(f"/api/studies/{study['id']}/name", json={"name": " Fall\n 7 "})
    assert answer.json()["name"] == answer.json()["result"]["study"] == "Fall 7"
    content = {kind: client.get(address) for kind, address in study["files"].items()}
    assert {kind: called(file) for kind, file in content.items() if kind in names} == {
        kind: f"Fall_7-{sign}-{name.rpartition('-')[2]}" for kind, name in names.items()
    }
    assert titles[1:] == [f"Fall 7 ({sign})"]
    assert json.loads(content["json"].content)["study"] == "Fall 7"
    with zipfile.ZipFile(io.BytesIO(content["dicom"].content)) as packed:
        assert not any(b"Doeringer" in packed.read(name) or "Doeringer" in name for name in packed.namelist())


def test_result_of_a_study_with_a_pseudonym_quotes_neither_files_nor_series(
    client: TestClient, frames: list[tuple[str, bytes]]
) -> None:
    study = finished(client, send(client, *frames, ("Doeringer notes.txt", b"x")).json()["id"])
    address = study["files"]["json"]
    notes = client.get(address).json()["notes"]
    quotes = [note for note in notes if "Doeringer notes.txt" in note]
    assert len(quotes) == 1
    client.put(f"/api/studies/{study['id']}/name", json={"name": "case 7"})
    assert client.get(address).json()["notes"] == [note for note in notes if note not in quotes]
    assert client.get(f"/api/studies/{study['id']}").json()["result"]["notes"] == notes, "its sender's page"


@pytest.mark.slow
def test_figure_has_the_name_above_it_and_the_dicom_object_has_the_figure_without(
    client: TestClient, stored_study: Path
) -> None:
    study = finished(client, send(client, ("heart.zip", zipped(stored_study))).json()["id"])
    figure = np.asarray(Image.open(io.BytesIO(client.get(study["files"]["figure"]).content)))
    with zipfile.ZipFile(io.BytesIO(client.get(study["files"]["dicom"]).content)) as packed:
        capture = pydicom.dcmread(io.BytesIO(packed.read(FIGURE_NAME))).pixel_array
    title = figure.shape[0] - capture.shape[0]
    np.testing.assert_array_equal(figure[title:], capture)
    assert figure[: title - 2].min() < 100


@pytest.mark.slow
def test_two_studies_of_one_name_are_told_apart(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    both = [finished(client, send(client, *frames).json()["id"]) for _ in range(2)]
    assert [study["name"] for study in both] == [study["result"]["study"] for study in both] == ["P1", "P1 (2)"]
    assert len({called(client.get(study["files"]["figure"])) for study in both}) == 2
    answer = client.put(f"/api/studies/{both[1]['id']}/name", json={"name": "p1"})
    assert answer.status_code == 400
    assert "another study here is called" in answer.json()["error"]


@pytest.mark.parametrize("content", [b"no json", b"[]", b'{"name": "\\u0000"}', b"{}", b'{"name": "' + bytes(1 << 14)])
def test_name_that_is_none_is_refused_and_changes_nothing(
    client: TestClient, frames: list[tuple[str, bytes]], content: bytes
) -> None:
    identity = send(client, *frames).json()["id"]
    answer = client.put(f"/api/studies/{identity}/name", content=content)
    assert answer.status_code in (400, 413)
    assert answer.json()["error"]
    assert client.get(f"/api/studies/{identity}").json()["name"] == "P1"


def test_name_in_another_script_is_that_of_the_file(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    study = finished(client, send(client, *frames).json()["id"])
    client.put(f"/api/studies/{study['id']}/name", json={"name": "Иванов 张三"})
    figure = client.get(study["files"]["figure"])
    assert called(figure) == f"Иванов_张三-{study['short_id']}-figure.png"
    assert Image.open(io.BytesIO(figure.content)).width > 500


@pytest.mark.slow
def test_another_tab_lists_and_removes_everything(
    client: TestClient, frames: list[tuple[str, bytes]], scratch: Path
) -> None:
    client.headers.update(TAB)
    first = finished(client, send(client, *frames).json()["id"])
    another = stranger(client, headers=TAB)
    another.get("/")
    listed = studies_of(another)
    assert listed == [client.get(f"/api/studies/{first['id']}").json()]
    assert another.get(first["files"]["figure"]).status_code == 200
    assert another.get("/api/session").json()["seconds_left"] > 1700
    assert another.delete("/api/session").status_code == 204
    assert studies_of(client) == []
    assert stored(scratch) == []


def test_nobody_lists_what_another_browser_sent(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    client.headers.update(TAB)
    send(client, *frames)
    for options in (
        {},
        {"headers": {"X-Page-Key": OTHER}},
        {"cookies": dict(client.cookies), "headers": {"X-Page-Key": OTHER}},
    ):
        other = stranger(client, **options)
        assert other.get("/api/session").json() == {"studies": [], "seconds_left": None}
        assert other.delete("/api/session").status_code == 204
    assert stranger(client, headers={"X-Page-Key": "short"}).get("/api/session").status_code == 400
    assert len(studies_of(client)) == 1


@pytest.fixture
def half(client: TestClient, frames: list[tuple[str, bytes]]) -> Iterator[tuple[str, threading.Event, list[Any]]]:
    """An upload that stays in the middle: its number, what ends it, and what its sender was answered."""
    client.headers.update(TAB)
    go, answers, number = threading.Event(), [], "c" * 64
    body = b'--B\r\nContent-Disposition: form-data; name="files"; filename="P1.nii.gz"\r\n\r\n' + frames[0][1]

    def pieces() -> Iterator[bytes]:
        yield body
        go.wait(20)
        yield b"\r\n--B--\r\n"

    def sending() -> None:
        sender = stranger(client, headers=TAB)
        headers = {"X-Upload-Id": number, "Content-Type": "multipart/form-data; boundary=B"}
        answers.append(sender.post("/api/studies", content=pieces(), headers=headers))

    thread = threading.Thread(target=sending)
    thread.start()
    for _ in range(200):
        if studies_of(client):
            break
        time.sleep(0.02)
    yield number, go, answers
    go.set()
    thread.join(20)


def test_study_that_another_tab_sends_is_listed(
    client: TestClient, half: tuple[str, threading.Event, list[Any]]
) -> None:
    number, go, answers = half
    (study,) = studies_of(client)
    assert (study["state"], study["upload_id"], study["name"]) == ("sending", number, "")
    go.set()
    for _ in range(200):
        if answers:
            break
        time.sleep(0.02)
    (study,) = studies_of(client)
    assert study["state"] != "sending"
    assert (study["upload_id"], study["name"]) == (number, "P1")


def test_upload_number_is_none_of_ones_own_making(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    answer = client.post("/api/studies", files=[("files", file) for file in frames], headers={"X-Upload-Id": "<b>"})
    assert answer.status_code == 400


@pytest.mark.slow
def test_upload_that_is_cut_off_leaves_nothing(address: str, scratch: Path) -> None:
    import httpx2

    host, port = address.removeprefix("http://").split(":")
    head = (
        f"POST /api/studies HTTP/1.1\r\nHost: {host}:{port}\r\nX-Page-Key: {KEY}\r\nContent-Length: 5000\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
        '--B\r\nContent-Disposition: form-data; name="files"; filename="P1.nii.gz"\r\n\r\nhalf of it'
    )
    with socket.create_connection((host, int(port))) as sender:
        sender.sendall(head.encode())
        for _ in range(100):
            if found := httpx2.get(f"{address}/api/session", headers=TAB).json()["studies"]:
                break
            time.sleep(0.05)
        assert [study["state"] for study in found] == ["sending"]
    for _ in range(100):
        if not httpx2.get(f"{address}/api/session", headers=TAB).json()["studies"]:
            break
        time.sleep(0.05)
    assert httpx2.get(f"{address}/api/session", headers=TAB).json()["studies"] == []
    assert [path for path in stored(scratch.parent) if path.suffix == ".gz" and "upload" in path.parts] == []
