"""The page in a real browser: the viewer, and whether everybody can use the page."""

from __future__ import annotations

import itertools
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.prediction import Prediction
from monai_fedlora.serve.pages import FOLDER, VIEWER
from tests.clinic.cine_studies import write_nifti
from tests.serve.browsing import choose, nameless, table, until_done, until_said

pytestmark = pytest.mark.slow
with_viewer = pytest.mark.skipif(not (FOLDER / VIEWER).is_file(), reason="the viewer is not there; make web fetches it")


def slider(page: Any, name: str) -> Any:
    return page.get_by_role("slider", name=name)


def pixels(page: Any) -> np.ndarray:
    """(height, width, 3) of the canvas."""
    page.evaluate("scrollTo(0, 0)")  # below the banner that stays in view
    return picture_of(page.locator(".stage"))


def picture_of(element: Any) -> np.ndarray:
    """(height, width, 3) of an element of the page."""
    return np.asarray(Image.open(BytesIO(element.screenshot())).convert("RGB")).astype(int)


def drag(page: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag over the canvas, from its corner."""
    page.evaluate("scrollTo(0, 0)")
    place = page.locator(".stage canvas").bounding_box()
    page.mouse.move(place["x"] + start[0], place["y"] + start[1])
    page.mouse.down()
    page.mouse.move(place["x"] + end[0], place["y"] + end[1], steps=3)
    page.mouse.up()


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
    assert page.locator(".frames .value").inner_text().endswith("of 10, end-diastole")
    page.wait_for_timeout(500)
    assert (pixels(page) == first).all(), "the cine runs although nobody started it"

    slider(page, "Frame").fill(str(expected.frames.es + 1))
    contracted = pixels(page)
    assert np.abs(contracted - first).max() > 60
    page.get_by_role("button", name=re.compile("^ED .*show")).click()
    assert np.abs(pixels(page) - first).max() < 8
    page.get_by_role("button", name=re.compile("^ES .*show")).click()
    assert np.abs(pixels(page) - contracted).max() < 8
    slider(page, "Slice").fill("0")
    assert np.abs(pixels(page) - contracted).max() > 60

    page.locator(".stage canvas").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.get_by_text("2 of 6", exact=True).is_visible()
    assert slider(page, "Frame").input_value() == str((expected.frames.es + 1) % 10 + 1)
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
    drag(page, (100, 100), (160, 140))
    moved = pixels(page)
    overlap = np.abs(moved[60:-60, 80:-80] - enlarged[20:-100, 20:-140])
    assert (overlap > 40).mean() < 0.02
    slider(page, "Zoom").fill("1")
    assert np.abs(pixels(page) - whole).max() < 8


@with_viewer
def test_end_diastole_is_shown_beside_end_systole(
    open_page: Any, address: str, heart: bytes, expected: Prediction
) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    page.get_by_role("button", name="ED beside ES").click()
    page.evaluate("scrollTo(0, 0)")
    sides = [picture_of(canvas)[:, :280] for canvas in page.locator(".pair canvas").all()]
    assert np.abs(sides[0] - sides[1]).max() > 60
    assert page.locator(".phase").all_inner_texts()[0].startswith("ED, frame 1")
    slider(page, "Slice").fill("0")
    page.evaluate("scrollTo(0, 0)")
    assert np.abs(picture_of(page.locator(".pair canvas").first)[:, :280] - sides[0]).max() > 60
    assert page.get_by_role("button", name="Play").is_disabled()
    page.get_by_role("button", name="One slice").click()
    assert page.locator(".pair").is_hidden()


@with_viewer
def test_contrast_is_set_by_sliders_and_by_dragging_and_reset(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    plain = pixels(page)
    slider(page, "Level").fill("190")
    assert pixels(page).mean() < plain.mean() - 20
    page.get_by_role("button", name="Reset contrast").click()
    assert np.abs(pixels(page) - plain).max() < 3
    page.get_by_role("button", name="Contrast", exact=True).click()
    drag(page, (100, 100), (100, 40))
    assert pixels(page).mean() > plain.mean() + 5
    page.get_by_role("button", name="Reset contrast").click()
    drag(page, (100, 100), (220, 100))
    inside = slice(80, -80), slice(140, -140)
    assert pixels(page)[inside].std() < plain[inside].std() - 1


@with_viewer
def test_a_distance_is_measured_with_the_true_size_of_voxels(open_page: Any, address: str, heart: bytes) -> None:
    """By keys ten voxels of 4 mm; by pointer the bright mark of the made-up heart, nine rows high."""
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    page.get_by_role("button", name="Measure").click()
    page.locator(".stage canvas").focus()
    for key in ("Enter", "Shift+ArrowLeft", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".calipers text").text_content() == "40.0 mm"
    assert page.get_by_text("Distance: 40.0 mm, slice 4.").is_visible()
    page.keyboard.press("Delete")
    assert page.locator(".calipers text").count() == 0

    place = page.locator(".stage canvas").bounding_box()
    scale = min(place["width"] / 44, place["height"] / 40)
    top, bottom = (place["height"] / 2 + scale * (row - 20) for row in (3, 12))
    column = place["width"] / 2 + scale * (4 - 22)
    drag(page, (column, top), (column, bottom))
    assert float(page.locator(".calipers text").text_content().split()[0]) == pytest.approx(36, abs=0.5)
    slider(page, "Zoom").fill("2")
    ends = [float(page.locator(".calipers .outline").get_attribute(name)) for name in ("y1", "y2")]
    assert ends[1] - ends[0] == pytest.approx(2 * (bottom - top), abs=1)
    slider(page, "Slice").fill("1")
    assert page.locator(".calipers text").count() == 0


@with_viewer
def test_where_every_voxel_is_one_millimetre_distances_are_in_pixels(
    open_page: Any, address: str, cine: np.ndarray, tmp_path: Path
) -> None:
    path = write_nifti(tmp_path / "cine.nii.gz", cine, np.eye(4))
    page = open_page(address)
    choose(page, path.name, path.read_bytes())
    page.wait_for_selector("[data-ready]")
    page.get_by_role("button", name="Measure").click()
    page.locator(".stage canvas").focus()
    for key in ("Enter", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".calipers text").text_content().startswith("10.0 pixels")


@with_viewer
def test_other_frames_are_chosen_and_the_answer_is_computed_again(
    open_page: Any, address: str, heart: bytes, expected: Prediction
) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    figure = page.locator("#download-figure").get_attribute("href")
    assert page.get_by_role("button", name="Compute again").is_disabled()
    slider(page, "Frame").fill("10")
    page.get_by_role("button", name="Take this frame as ED").click()
    page.get_by_label("ES frame").fill("6")
    assert "still that of the frames before" in page.locator(".phases").inner_text()
    page.evaluate(
        """new MutationObserver(() => {
          if (document.querySelector(".best")) return;
          window.left = document.querySelectorAll(".doubts, .curve, #download-figure").length;
        }).observe(document.body, { childList: true, subtree: true })"""
    )
    page.get_by_label("ES frame").press("Enter")
    page.wait_for_function("() => window.left === 0")
    assert page.locator(".stage canvas").is_visible()
    until_done(page)
    assert page.locator("#download-figure").get_attribute("href") != figure
    said = page.locator("#study").inner_text()
    assert "chosen by a person" in said.lower()
    assert "A person chose frame 10" in said
    caption = page.locator("figcaption", has_text="Area of blood").inner_text()
    assert f"The program had found frame {expected.frames.ed + 1} (" in caption
    assert f"and frame {expected.frames.es + 1} (" in caption
    assert page.get_by_role("button", name=re.compile("^ED 10, show")).count() == 1
    page.wait_for_selector(".viewer input[type=checkbox]:enabled:visible")
    page.get_by_label("Show the places the answer hangs on").check()
    assert redness(pixels(page)) > 30
    assert nameless(page) == []


@with_viewer
def test_speed_changes_how_fast_frames_follow(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    intervals = page.evaluate(
        """async () => {
          const { Player } = await import("/static/player.js");
          const given = [];
          window.setInterval = (step, every) => { given.push(every); return 1; };
          const player = new Player(() => {});
          player.begin(25, Array.from({ length: 25 }, (_, frame) => 32 * frame));
          for (const speed of ["1", "0.5", "2"]) { player.speed.value = speed; player.start(); }
          player.begin(25, null);
          player.speed.value = "1";
          player.start();
          return given;
        }"""
    )
    assert intervals == pytest.approx([32, 64, 25, 40])


@with_viewer
def test_the_overlay_lies_on_the_images_and_is_called_an_aid(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    switch = page.get_by_label("Show the places the answer hangs on")
    page.wait_for_selector(".viewer input[type=checkbox]:enabled:visible")
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
    page.wait_for_selector("#about h3")
    choose(page, "heart.zip", heart)
    until_done(page)
    assert sentence in page.locator(".images").inner_text()
    page.wait_for_function("() => document.querySelector('.images img').naturalWidth > 500")
    assert page.locator(".stage canvas").count() == 0


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
    tab_to("DICOM (zip")
    with page.expect_download():
        page.keyboard.press("Enter")
    page.locator("#study-heading").focus()
    tab_to("Remove this study")
    page.keyboard.press("Enter")
    tab_to("Remove")
    page.keyboard.press("Enter")
    until_said(page, "heart was removed.")
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
    page.locator(".photo .stage").focus()
    for key in ("Enter", "Shift+ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.locator(".calipers text").text_content() == "10.0 pixels"
    page.keyboard.press("Delete")
    page.evaluate("scrollTo(0, 0)")
    plain = picture_of(page.locator(".photo .stage"))
    slider(page, "Level").fill("190")
    page.evaluate("scrollTo(0, 0)")
    assert picture_of(page.locator(".photo .stage")).mean() < plain.mean() - 15
    page.get_by_role("button", name="Reset contrast").click()
    page.evaluate("scrollTo(0, 0)")
    assert np.abs(picture_of(page.locator(".photo .stage")) - plain).mean() < 2
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


@pytest.mark.parametrize(("width", "beside"), [(1280, True), (390, False)])
def test_images_are_read_first_and_the_question_last(
    open_page: Any, address: str, heart: bytes, width: int, beside: bool
) -> None:
    page = open_page(address, viewport={"width": width, "height": 844})
    choose(page, "heart.zip", heart)
    until_done(page)
    headings = page.locator("#study h3").all()
    assert [heading.get_attribute("id") or heading.inner_text() for heading in headings] == [
        "state-heading", "images-heading", "answer-heading", "End-diastole and end-systole", "notes-heading",
        "downloads-heading", "opinion-heading",
    ]  # fmt: skip
    images, *others = [heading.bounding_box() for heading in headings[1:]]
    assert [place["y"] for place in others] == sorted(place["y"] for place in others)
    if beside:
        assert images["x"] > others[0]["x"] + others[0]["width"]
        assert abs(images["y"] - others[0]["y"]) < 5
    else:
        assert images["y"] < others[0]["y"]


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
