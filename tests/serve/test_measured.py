"""The page of models that measure: numbers with their usual errors, and outlines over a photograph."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from monai_fedlora.clinic.measuring import Estimator, PhotographSegmenter
from tests.serve.browsing import choose, nameless, serving, until_done
from tests.serve.conftest import ADDRESS, finished, send

pytestmark = pytest.mark.slow


def test_a_regression_is_served_without_a_class(
    make_app: Callable[..., FastAPI], estimator: Estimator, heart: bytes
) -> None:
    with TestClient(make_app(estimator), base_url=ADDRESS) as browser:
        browser.get("/")
        model = browser.get("/api/model").json()
        assert model["classes"] == [] and "lv_ef in %, lv_edv in mL" in model["gives"]
        assert model["card"]["Test mean absolute error of lv_ef"].startswith("6.1")
        study = finished(browser, send(browser, ("heart.zip", heart)).json()["id"])
        result = study["result"]
        assert result["probabilities"] is None and "stability" not in result
        assert [number["name"] for number in result["numbers"]] == ["lv_ef", "lv_edv"]
        assert {"volume", "figure", "json"} == set(study["files"])
        assert any("there is no DICOM report" in note for note in result["notes"])
        browser.put(f"/api/studies/{study['id']}/frames", json={"ed": 1, "es": 6})
        again = finished(browser, study["id"])["result"]
        assert again["frames"]["by_person"] and again["numbers"] != result["numbers"]


def test_masks_of_photographs_are_served_on_their_own_pixels(
    make_app: Callable[..., FastAPI], lesion_segmenter: PhotographSegmenter, wide_photograph: Path
) -> None:
    with TestClient(make_app(lesion_segmenter), base_url=ADDRESS) as browser:
        browser.get("/")
        study = finished(browser, send(browser, ("p.png", wide_photograph.read_bytes())).json()["id"])
        assert {"image", "figure", "mask", "outline", "json"} == set(study["files"])
        mask, outline = (
            np.asarray(Image.open(io.BytesIO(browser.get(study["files"][kind]).content)))
            for kind in ("mask", "outline")
        )
        assert mask.shape == (72, 96) and outline.shape == (72, 96, 4)
        (area,) = study["result"]["numbers"]
        assert (area["value"] or 0) == pytest.approx(100 * (mask == 1).mean())
        assert bool((outline[..., 3] > 0).any()) == bool((mask == 1).any())


def test_the_page_shows_numbers_with_their_usual_errors(
    open_page: Any, estimator: Estimator, heart: bytes, tmp_path: Path
) -> None:
    with serving(estimator, tmp_path) as address:  # type: ignore[arg-type]
        page = open_page(address)
        assert "neither a class nor a probability" in page.locator("#about").inner_text()
        choose(page, "heart.zip", heart)
        until_done(page)
        assert page.locator(".measured .numbers tr").count() == 2
        text = page.locator(".measured").inner_text()
        assert "off by 6.12 points on average" in text and "no probability" in text
        assert "lv_ef" in page.locator("#list").inner_text()
        assert page.locator(".bars").count() == 0 and page.locator("#opinion-heading").count() == 0
        assert nameless(page) == []
        page.context.close()  # before the server, which it asks for more


def test_the_page_lays_outlines_over_a_photograph(
    open_page: Any, lesion_segmenter: PhotographSegmenter, wide_photograph: Path, tmp_path: Path
) -> None:
    with serving(lesion_segmenter, tmp_path) as address:  # type: ignore[arg-type]
        page = open_page(address)
        choose(page, "p.png", wide_photograph.read_bytes())
        until_done(page)
        outlines = page.locator("img.over")
        page.get_by_role("checkbox", name="Show the outlines").uncheck()
        assert not outlines.is_visible()
        page.get_by_role("checkbox", name="Show the outlines").check()
        assert outlines.is_visible() and page.locator("#download-mask").count() == 1
        assert (
            "of the picture" in page.locator(".measured").inner_text()
            or "not found" in page.locator(".measured").inner_text()
        )
        assert nameless(page) == []
        page.context.close()
