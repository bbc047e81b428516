"""A server that outlines hearts: with a class, and alone."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.clinic.cine_studies import beating_heart, write_study
from tests.clinic.outliners import GreyOutliner
from tests.serve.conftest import ADDRESS, finished, send, zipped


@pytest.fixture(scope="module")
def long_heart(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A heart with its apex and base, as a zip of DICOM files."""
    return zipped(write_study(tmp_path_factory.mktemp("long") / "heart", beating_heart(slices=8)))


@pytest.mark.slow
def test_outlines_alone_are_served_without_a_class(make_app: Callable[..., FastAPI], long_heart: bytes) -> None:
    with TestClient(make_app(None, outliner=GreyOutliner()), base_url=ADDRESS) as browser:
        browser.get("/")
        assert browser.get("/api/model").json()["classes"] == []
        study = finished(browser, send(browser, ("heart.zip", long_heart)).json()["id"])
        heart = study["result"]["heart"]
        assert study["result"]["probabilities"] is None and heart["function"]["lv_edv"] > 10
        contours = browser.get(study["files"]["contours"])
        assert len(json.loads(contours.content)["frames"]) == 10
        assert "figure" not in study["files"] and browser.get(study["files"]["outlines"]).content[:4] == b"\x89PNG"
        with zipfile.ZipFile(io.BytesIO(browser.get(study["files"]["dicom"]).content)) as packed:
            assert {"mask_ed.dcm", "mask_es.dcm", "measures.dcm"} == {n for n in packed.namelist() if "/" not in n}


@pytest.mark.slow
def test_outlines_stand_beside_a_class_and_follow_other_frames(
    make_app: Callable[..., FastAPI], long_heart: bytes
) -> None:
    with TestClient(make_app(outliner=GreyOutliner()), base_url=ADDRESS) as browser:
        browser.get("/")
        assert browser.get("/api/model").json()["outlines"]["name"] == "grey hearts"
        study = finished(browser, send(browser, ("heart.zip", long_heart)).json()["id"])
        assert {"figure", "outlines", "contours", "volume", "dicom", "json"} <= set(study["files"])
        first = study["result"]["heart"]
        assert first["frames"]["es"] == 4 and "volume" in first["frames"]["how"]
        browser.put(f"/api/studies/{study['id']}/frames", json={"ed": 1, "es": 6})
        again = finished(browser, study["id"])
        second = again["result"]["heart"]
        assert (second["frames"]["ed"], second["frames"]["es"]) == (1, 6) and "person" in second["frames"]["how"]
        assert second["function"]["lv_esv"] > first["function"]["lv_esv"]
        with zipfile.ZipFile(io.BytesIO(browser.get(again["files"]["dicom"]).content)) as packed:
            assert {"mask_ed.dcm", "mask_es.dcm", "measures.dcm", "report.dcm"} <= set(packed.namelist())


@pytest.mark.slow
def test_outlines_that_fail_cost_no_class(make_app: Callable[..., FastAPI], long_heart: bytes) -> None:
    outliner = GreyOutliner(structures=("lesion",))
    with TestClient(make_app(outliner=outliner), base_url=ADDRESS) as browser:
        browser.get("/")
        result = finished(browser, send(browser, ("heart.zip", long_heart)).json()["id"])["result"]
        assert result["prediction"] and result["heart"] is None
        assert any("there are no outlines: " in note for note in result["notes"])
