"""The page in a real browser: outlines on the moving heart, and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.serve.pages import FOLDER, VIEWER
from tests.clinic.cine_studies import beating_heart, write_study
from tests.clinic.outliners import GreyOutliner
from tests.serve.browsing import choose, nameless, serving, until_done
from tests.serve.conftest import zipped

pytestmark = pytest.mark.slow
with_viewer = pytest.mark.skipif(not (FOLDER / VIEWER).is_file(), reason="the viewer is not there; make web fetches it")


@pytest.fixture(scope="module")
def outlining(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a model of the class and one of the outlines."""
    with serving(classifier, tmp_path_factory.mktemp("served"), outliner=GreyOutliner()) as found:
        yield found


@pytest.fixture(scope="module")
def long_heart(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return zipped(write_study(tmp_path_factory.mktemp("long") / "heart", beating_heart(slices=8)))


def width(page: Any) -> float:
    """Width of the outline of the left ventricle on the slice that is shown, in pixels of the page."""
    return page.evaluate("document.querySelector('.contours path').getBBox().width")


@with_viewer
def test_outlines_beat_with_the_heart_and_can_be_hidden(open_page: Any, outlining: str, long_heart: bytes) -> None:
    page = open_page(outlining)
    choose(page, "heart.zip", long_heart)
    page.wait_for_selector("[data-ready]")
    until_done(page)
    page.wait_for_selector(".contours path", state="attached")
    full = width(page)
    page.get_by_role("slider", name="Frame").fill("5")
    assert width(page) < 0.8 * full
    page.get_by_role("slider", name="Slice").fill("7")
    assert width(page) < 0.5 * full
    page.get_by_role("checkbox", name="Show the outlines").uncheck()
    assert page.locator(".contours path").count() == 0
    page.get_by_role("checkbox", name="Show the outlines").check()
    page.get_by_role("button", name="All slices").click()
    places = page.evaluate("""() => [...document.querySelectorAll(".contours path[stroke='#ff5c5c']")]
      .map((path) => path.getBBox()).filter(({ width }) => width > 0)
      .map(({ x, y }) => `${Math.round(x)} ${Math.round(y)}`)""")
    assert len(places) == len(set(places)) == 8
    page.get_by_role("button", name="ED beside ES").click()
    colours = page.evaluate("""() => [...document.querySelectorAll(".pair canvas")].map((picture) => {
      const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
      let red = 0;
      for (let at = 0; at < data.length; at += 4) {
        if (data[at] > 200 && data[at + 1] < 130 && data[at + 2] < 130) red += 1;
      }
      return red;
    })""")
    assert min(colours) > 50
    page.get_by_role("button", name="One slice").click()
    page.get_by_role("button", name="ED 10, show end-diastole of the volumes").click()
    assert page.locator(".frames .value").inner_text().endswith("of 10, end-diastole of the volumes")
    assert nameless(page) == []


def test_volumes_stand_beside_the_class_or_alone(
    open_page: Any, outlining: str, long_heart: bytes, tmp_path: Path
) -> None:
    page = open_page(outlining)
    choose(page, "heart.zip", long_heart)
    until_done(page)
    assert page.locator(".numbers tr").count() >= 6 and page.locator(".best").count() == 1
    assert "Outlines are" not in page.locator("#answer-heading").inner_text()
    assert "outlines are doubtful" in page.locator(".heart .doubts").inner_text()
    with serving(None, tmp_path, outliner=GreyOutliner()) as alone:
        page = open_page(alone)
        choose(page, "heart.zip", long_heart)
        until_done(page)
        assert "LV ejection fraction" in page.locator("#list").inner_text()
        assert page.locator(".best").count() == 0 and page.locator("#opinion-heading").count() == 0
        page.context.close()  # before the server, which it asks for more
