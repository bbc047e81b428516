"""Opinions are kept where whoever runs the server says, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from monai_fedlora.clinic.feedback import read_opinions
from monai_fedlora.serve import feedback
from tests.clinic.hearts import affine_of, write_nifti
from tests.serve.conftest import ADDRESS, finished, send


@pytest.fixture
def frames(cine: np.ndarray, tmp_path: Path) -> list[tuple[str, bytes]]:
    affine = affine_of(cine)
    paths = [write_nifti(tmp_path / f"P1_{name}.nii.gz", cine[..., at], affine) for name, at in (("ed", 0), ("es", 4))]
    return [(path.name, path.read_bytes()) for path in paths]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "kept"


@pytest.fixture
def keeping(make_app: Callable[..., FastAPI], table: Path) -> Iterator[TestClient]:
    with TestClient(make_app(feedback=table), base_url=ADDRESS) as browser:
        browser.get("/")
        yield browser


def give(browser: TestClient, identity: str, **content: Any) -> Any:
    return browser.post(f"/api/studies/{identity}/feedback", json=content)


def test_opinion_is_kept_under_a_pseudonym_or_the_sign(
    keeping: TestClient, frames: list[tuple[str, bytes]], table: Path
) -> None:
    assert keeping.get("/api/model").json()["keeps_feedback"] is True
    study = finished(keeping, send(keeping, *frames).json()["id"])
    assert study["opinion"] is None
    answer = give(keeping, study["id"], opinion="agree")
    assert answer.json()["opinion"] == {"opinion": "agree", "instead": "", "because": ""}
    keeping.put(f"/api/studies/{study['id']}/name", json={"name": "case 7"})
    (other,) = {"NOR", "ABN"} - {study["result"]["prediction"]}
    said = {"opinion": "disagree", "because": "thin", "instead": other}
    assert give(keeping, study["id"], **said).json()["opinion"] == said
    first, second = read_opinions(table)
    assert [first.study, second.study] == [study["short_id"], "case 7"]
    assert (second.prediction, second.instead, second.state) == (
        study["result"]["prediction"], other, study["result"]["state"],
    )  # fmt: skip
    assert "P1" not in (table / "feedback.csv").read_text()
    keeping.delete("/api/session")
    assert len(read_opinions(table)) == 2


@pytest.mark.parametrize(
    "content",
    [{}, {"opinion": "maybe"}, {"opinion": "disagree"}, {"opinion": "disagree", "because": 7}, {"opinion": ["agree"]},
     {"opinion": "disagree", "because": "x", "instead": "none"}],
)  # fmt: skip
def test_opinion_that_is_none_is_refused(
    keeping: TestClient, frames: list[tuple[str, bytes]], table: Path, content: dict[str, Any]
) -> None:
    identity = finished(keeping, send(keeping, *frames).json()["id"])["id"]
    answer = give(keeping, identity, **content)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert not (table / "feedback.csv").exists()


def test_server_that_was_not_told_to_keeps_nothing(client: TestClient, frames: list[tuple[str, bytes]]) -> None:
    assert client.get("/api/model").json()["keeps_feedback"] is False
    study = finished(client, send(client, *frames).json()["id"])
    answer = give(client, study["id"], opinion="agree")
    assert answer.status_code == 404
    assert "--feedback FOLDER" in answer.json()["error"]


def test_nobody_fills_the_disk_with_opinions(
    keeping: TestClient, frames: list[tuple[str, bytes]], table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "_MOST", 2)
    identity = finished(keeping, send(keeping, *frames).json()["id"])["id"]
    assert [give(keeping, identity, opinion="agree").status_code for _ in range(3)] == [200, 200, 429]
    assert len(read_opinions(table)) == 2
