"""The page in a real browser: the viewer, and whether everybody can use the page."""

from __future__ import annotations

import itertools
import re
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.predict import Prediction
from monai_fedlora.serve.pages import FOLDER, VIEWER
from tests.serve.browsing import choose, nameless, table, until_done

pytestmark = pytest.mark.slow
with_viewer = pytest.mark.skipif(not (FOLDER / VIEWER).is_file(), reason="the viewer is not there; make web fetches it")


def slider(page: Any, name: str) -> Any:
    return page.get_by_role("slider", name=name)


def pixels(page: Any) -> np.ndarray:
    """(height, width, 3) of the canvas."""
    return np.asarray(Image.open(BytesIO(page.locator("canvas").screenshot())).convert("RGB")).astype(int)


def redness(picture: np.ndarray) -> int:
    """Largest difference between red and blue, whichever is more."""
    return int(np.abs(picture[..., 0] - picture[..., 2]).max())


@with_viewer
def test_the_viewer_shows_frames_slices_and_overlay(
    open_page: Any, address: str, heart: bytes, expected: Prediction
) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    assert expected.frames is not None
    first = pixels(page)
    assert (first.max(axis=2) > 60).mean() > 0.2
    assert "end-diastole" in page.get_by_text("of 0 to 9").inner_text()
    page.wait_for_timeout(500)
    assert (pixels(page) == first).all(), "the cine runs although nobody started it"

    slider(page, "Frame").fill(str(expected.frames.es))
    contracted = pixels(page)
    assert np.abs(contracted - first).max() > 60
    page.get_by_role("button", name=re.compile("^ED")).click()
    assert np.abs(pixels(page) - first).max() < 8
    page.get_by_role("button", name=re.compile("^ES")).click()
    assert np.abs(pixels(page) - contracted).max() < 8
    slider(page, "Slice").fill("0")
    assert np.abs(pixels(page) - contracted).max() > 60

    page.locator("canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.get_by_text("2 of 6", exact=True).is_visible()
    assert slider(page, "Frame").input_value() == str((expected.frames.es + 1) % 10)
    single = pixels(page)
    page.get_by_role("button", name="All slices").click()
    assert np.abs(pixels(page) - single).max() > 60

    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "before => document.querySelector('.value').textContent !== before",
        arg=page.locator(".value").first.inner_text(),
    )
    page.get_by_role("button", name="Pause").click()


@with_viewer
def test_a_slice_lies_as_it_was_acquired_and_can_be_enlarged(open_page: Any, address: str, heart: bytes) -> None:
    """The bright mark of the made-up heart lies at its first columns and rows."""
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    page.wait_for_function("() => document.querySelector('.edge.top').textContent")
    letters = {name: page.locator(f".edge.{name}").inner_text() for name in ("left", "right", "top", "bottom")}
    assert letters == {"left": "RA", "right": "LP", "top": "HL", "bottom": "FR"}

    whole = pixels(page)
    height, width = whole.shape[:2]
    bright = whole[2 : height // 3, 2 : width // 4].min(axis=2) > 140
    rows, columns = (np.flatnonzero(bright.sum(axis=axis) > 8) + 2 for axis in (1, 0))
    scale = min(width / 44, height / 40)
    middle = (width / 2, height / 2)
    edges = (columns[0], columns[-1], rows[0], rows[-1])
    stored = [middle[0] + scale * (x - 22) for x in (2, 6)] + [middle[1] + scale * (y - 20) for y in (3, 12)]
    assert edges == pytest.approx(stored, abs=0.6 * scale)

    slider(page, "Zoom").fill("2")
    enlarged = pixels(page)
    assert np.abs(enlarged - whole).max() > 60
    place = page.locator("canvas").bounding_box()
    page.mouse.move(place["x"] + 100, place["y"] + 100)
    page.mouse.down()
    page.mouse.move(place["x"] + 160, place["y"] + 140, steps=3)
    page.mouse.up()
    moved = pixels(page)
    overlap = np.abs(moved[60:-60, 80:-80] - enlarged[20:-100, 20:-140])
    assert (overlap > 40).mean() < 0.02
    slider(page, "Zoom").fill("1")
    assert np.abs(pixels(page) - whole).max() < 8


@with_viewer
def test_the_overlay_lies_on_the_images_and_is_called_an_aid(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    switch = page.get_by_label("Show the places the answer hangs on")
    page.wait_for_selector(".viewer input[type=checkbox]:enabled")
    plain = pixels(page)
    assert redness(plain) < 8
    switch.check()
    strong = pixels(page)
    assert redness(strong) > 30
    slider(page, "Opacity").fill("0.2")
    faint = pixels(page)
    assert 4 < redness(faint) < redness(strong) - 20
    assert "not evidence" in page.locator(".viewer").inner_text()
    assert "20 percentage points" in page.locator(".legend").inner_text()
    switch.uncheck()
    assert np.abs(pixels(page) - plain).max() < 8


@pytest.mark.parametrize(
    ("script", "changes", "sentence"),
    [
        ("HTMLCanvasElement.prototype.getContext = () => null", {"viewer": True}, "WebGL 2"),
        ("", {"viewer": False}, "make web"),
    ],
    ids=["no WebGL", "no viewer"],
)
def test_without_a_viewer_the_figure_is_shown_with_a_sentence(
    open_page: Any, address: str, heart: bytes, script: str, changes: dict[str, Any], sentence: str
) -> None:
    page = open_page(address, script=script)

    def change(route: Any) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | changes)

    page.route("**/api/model", change)
    page.reload()
    choose(page, "heart.zip", heart)
    until_done(page)
    assert sentence in page.locator(".images").inner_text()
    page.wait_for_function("() => document.querySelector('.images img').naturalWidth > 500")
    assert page.locator("canvas").count() == 0


def opened(page: Any) -> Any:
    """The file chooser that Enter opens; on a busy machine Chromium may not take the first press for a person's."""
    from playwright.sync_api import TimeoutError as NotOpened

    for patience in (10_000, 10_000, 60_000):
        try:
            with page.expect_file_chooser(timeout=patience) as chooser:
                page.keyboard.press("Enter")
            return chooser.value
        except NotOpened as error:
            reason = error
    raise reason


def test_the_keyboard_is_enough(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate("document.activeElement.textContent || document.activeElement.ariaLabel || ''")
            if focused.startswith(name):
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
                return
        raise AssertionError(f"{name} cannot be reached with Tab")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the result"
    tab_to("Choose files")
    opened(page).set_files({"name": "heart.zip", "mimeType": "application/zip", "buffer": heart})
    until_done(page)
    tab_to("heart")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "study-heading"
    tab_to("All limits")
    tab_to("DICOM SR")
    with page.expect_download():
        page.keyboard.press("Enter")
    page.locator("#study-heading").focus()
    tab_to("Remove this study")
    page.keyboard.press("Enter")
    tab_to("Remove")
    page.keyboard.press("Enter")
    page.wait_for_selector("#list-empty:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "choose-files"


@with_viewer
def test_a_volume_that_cannot_be_drawn_is_replaced_by_the_figure(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address, expected="niivue-error")
    page.route("**/volume.nii.gz", lambda route: route.fulfill(body=b"no volume"))
    choose(page, "heart.zip", heart)
    until_done(page)
    assert "could not show the images" in page.wait_for_selector(".images .message").inner_text()
    page.wait_for_function("() => document.querySelector('.images img').naturalWidth > 500")


def test_a_photograph_is_shown_with_its_figure(
    open_page: Any, image_address: str, image_classifier: Classifier
) -> None:
    content = BytesIO()
    levels = np.random.default_rng(0).integers(0, 40, (90, 120, 3)) + np.array([190, 120, 100])
    Image.fromarray(levels.astype(np.uint8)).save(content, format="PNG")
    page = open_page(image_address)
    choose(page, "skin.png", content.getvalue())
    until_done(page)
    assert set(table(page)) == set(image_classifier.classes)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.images img')].filter(i => i.naturalWidth).length === 2"
    )
    assert page.locator(".images img").first.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [120, 90]
    assert "not evidence" in page.locator(".images").inner_text()
    assert nameless(page) == []


def test_every_control_has_a_name_and_headings_are_in_order(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    until_done(page)
    assert nameless(page) == []
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((heading) => +heading.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert {page.locator(tag).count() for tag in ("header", "main", "nav")} == {1}


@pytest.mark.parametrize("size", [(1024, 700), (512, 350)], ids=["small screen", "the same at 200 %"])
def test_nothing_is_cut_off_on_a_small_screen(
    open_page: Any, address: str, heart: bytes, size: tuple[int, int]
) -> None:
    page = open_page(address, viewport={"width": size[0], "height": size[1]})
    choose(page, "heart.zip", heart)
    until_done(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.evaluate("document.querySelector('.bars').scrollIntoView({ block: 'center' })")
    assert page.locator("#notice").bounding_box()["height"] < 0.25 * size[1]
