"""Opinions are kept where whoever runs the server says, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from monai_fedlora.clinic.reader_feedback import last_opinions, read_opinions
from monai_fedlora.serve import feedback_store, results
from tests.clinic.cine_studies import affine_of, write_nifti
from tests.serve.conftest import ADDRESS, finished, send, zipped


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
    return browser.post(f"/api/studies/{identity}/feedback", json={"answer": 1} | content)


@pytest.mark.slow
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
     {"opinion": "disagree", "because": "x", "instead": "none"}, {"opinion": "agree", "answer": None},
     {"opinion": "agree", "answer": True}, {"opinion": "agree", "answer": "1"}],
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
    monkeypatch.setattr(feedback_store, "_MOST", 2)
    identity = finished(keeping, send(keeping, *frames).json()["id"])["id"]
    assert [give(keeping, identity, opinion="agree").status_code for _ in range(3)] == [200, 200, 429]
    assert len(read_opinions(table)) == 2


@pytest.mark.slow
def test_opinion_on_an_answer_of_before_is_refused_and_answers_are_told_apart(
    keeping: TestClient, stored_study: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "explain", lambda prediction, **options: prediction)
    study = finished(keeping, send(keeping, ("heart.zip", zipped(stored_study))).json()["id"])
    assert study["answer"] == 1
    assert give(keeping, study["id"], opinion="agree").status_code == 200
    keeping.put(f"/api/studies/{study['id']}/frames", json={"ed": 9, "es": 5})
    for _ in range(2):  # while the other answer is computed, and when it is there
        refused = give(keeping, study["id"], opinion="agree", answer=1)
        assert refused.status_code == 409
        assert "another answer" in refused.json()["error"]
        study = finished(keeping, study["id"])
        assert (study["answer"], study["opinion"]) == (2, None)
    keeping.put(f"/api/studies/{study['id']}/name", json={"name": "case 7"})
    assert give(keeping, study["id"], opinion="disagree", because="x", answer=2).json()["opinion"]
    assert give(keeping, study["id"], opinion="agree", answer=2).status_code == 200
    told = read_opinions(table)
    assert [opinion.answer for opinion in told] == [f"{study['short_id']}-answer{number}" for number in (1, 2, 2)]
    assert last_opinions(told) == [told[0], told[2]]
