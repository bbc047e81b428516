"""What the page says of an answer in each of its states, and what is printed of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.reader_feedback import read_opinions
from tests.serve.browsing import choose, serving, until_done, until_sent

pytestmark = pytest.mark.slow

STABLE = {"answers": 9, "range": {"NOR": [0.2, 0.3], "ABN": [0.7, 0.8]}, "classes": ["ABN"], "moved": []}
SURE = {
    "prediction": "ABN", "answer": "ABN 75 %", "undecided": False, "probabilities": {"NOR": 0.25, "ABN": 0.75},
    "shown": {"NOR": "25 %", "ABN": "75 %"}, "stability": STABLE, "state": "no_doubt_found", "doubts": [], "notes": [],
    "calibration": None,
}  # fmt: skip
SPLIT = {
    "answer": "undecided: ABN 52 % or NOR 48 %", "undecided": True, "probabilities": {"NOR": 0.48, "ABN": 0.52},
    "shown": {"NOR": "48 %", "ABN": "52 %"},
    "stability": STABLE | {"range": {"NOR": [0.45, 0.55], "ABN": [0.45, 0.55]}, "moved": ["ED a frame later"]},
}  # fmt: skip
WHY = "unusual images cannot be recognised: the bundle has no statistics"


@pytest.fixture
def told(open_page: Any, address: str, heart: bytes) -> Callable[..., Any]:
    """A page whose server says something else of a study and of its model."""

    def tell(result: dict[str, Any], **model: Any) -> Any:
        def retell(route: Any) -> None:
            answer = route.fetch()
            content = answer.json()
            for study in content.get("studies", [content]):
                if study["result"]:
                    study["result"] |= SURE | result
            route.fulfill(response=answer, body=json.dumps(content))

        page = open_page(address)
        page.route(re.compile(r"/api/(session|studies/[^/]+)(\?used)?$"), lambda route: retell(route))
        page.route("**/api/model", lambda route: route.fulfill(json=route.fetch().json() | model))
        page.reload()
        page.wait_for_selector("#about h3")
        choose(page, "heart.zip", heart)
        until_done(page)
        return page

    return tell


def test_no_doubt_is_said_and_the_range_shown(told: Callable[..., Any]) -> None:
    page = told({})
    assert page.locator("#state-heading").inner_text() == "No doubt found"
    assert page.locator(".state-box li").count() == 0
    assert page.locator(".best").inner_text() == "ABN 75 %"
    assert (
        "the probability of ABN goes from 70 to 80\u00a0%. The class stays the same."
        in page.locator(".range").inner_text()
    )
    assert page.locator(".whisker").count() == 2
    assert page.locator("#list .state").inner_text() == "ABN 75 %"


def test_answer_that_nobody_can_vouch_for_says_why_once(told: Callable[..., Any]) -> None:
    page = told({"state": "cannot_tell", "notes": [WHY, "two series"]}, blind=[WHY])
    assert page.locator("#state-heading").inner_text() == "Cannot tell"
    assert page.locator(".state-box li").all_inner_texts() == [
        "Unusual images cannot be recognised: the bundle has no statistics."
    ]
    assert page.get_by_text("two series").count() == 1
    assert page.locator("#study").inner_text().count("cannot be recognised") == 1
    assert page.locator("#list .state").inner_text() == "cannot tell: ABN 75 %"


def test_note_that_stands_above_all_studies_is_not_said_again(told: Callable[..., Any]) -> None:
    page = told({"notes": ["the shared one does better", "two series"]}, warnings=["the shared one does better; so"])
    assert page.locator("#warnings").inner_text().count("does better") == 1
    assert page.locator("#study").inner_text().count("does better") == 0
    assert page.get_by_text("two series").count() == 1


SYNTHETIC = "the model was trained on synthetic images alone"


@pytest.mark.parametrize(
    ("doubts", "moved", "is_said"),
    [
        ([SYNTHETIC], [], False),
        (["its answer changes", SYNTHETIC], ["ED a frame later"], False),
        (["no heart", SYNTHETIC], [], True),
    ],
    ids=["origin", "origin and answer", "image"],
)  # fmt: skip
def test_kind_of_image_is_doubted_only_where_the_image_is(
    told: Callable[..., Any], doubts: list[str], moved: list[str], is_said: bool
) -> None:
    page = told(
        {"state": "doubtful", "doubts": doubts, "stability": STABLE | {"moved": moved}}, origin_doubts=[SYNTHETIC]
    )
    assert page.locator(".state-box li").count() == len(doubts)
    assert ("may not be of the kind" in page.locator(".state-box").inner_text()) is is_said


def test_even_split_is_called_undecided(told: Callable[..., Any]) -> None:
    page = told(SPLIT | {"state": "doubtful", "doubts": ["it is no heart"]})
    assert page.locator("#answer-heading").inner_text() == "Undecided"
    assert page.locator(".best").inner_text() == "Doubtful: ABN 52 % or NOR 48 %"
    assert page.locator("#list .state").inner_text() == "doubtful, undecided: ABN 52 % or NOR 48 %"
    assert "another one with: ED a frame later" in page.locator(".range").inner_text()


@pytest.mark.parametrize(
    ("kind", "look"), [("synthetic", "origin notice"), ("unknown", "origin warned"), ("real", "origin")]
)
def test_origin_and_warnings_are_there_before_any_answer(open_page: Any, address: str, kind: str, look: str) -> None:
    page = open_page(address)
    trained, warning = {"kind": kind, "summary": f"trained on {kind} images"}, "it did worse than the shared one"
    page.route("**/api/model", lambda route: route.fulfill(
        json=route.fetch().json() | {"trained_on": trained, "warnings": [warning]}
    ))  # fmt: skip
    page.reload()
    page.wait_for_selector("#about h3")
    assert f"his model was trained on {kind} images." in page.locator("#origin").inner_text()
    assert page.locator("#origin").get_attribute("class") == look
    assert page.locator("#warnings").inner_text() == "It did worse than the shared one."


@pytest.fixture
def keeping(classifier: Classifier, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    with serving(classifier, tmp_path, feedback=tmp_path / "kept") as found:
        yield found, tmp_path / "kept"


def test_reader_agrees_or_says_why_not(keeping: tuple[str, Path], open_page: Any, heart: bytes) -> None:
    address, folder = keeping
    page = open_page(address)
    choose(page, "heart.zip", heart)
    until_done(page)
    page.get_by_role("button", name="Agree", exact=True).click()
    assert "you agree with" in page.wait_for_selector(".kept").inner_text()
    page.get_by_role("button", name="Disagree, because …").click()
    page.get_by_label("I disagree, because").fill("=the wall is thick")
    page.get_by_label("The class would be").select_option(index=1)
    page.get_by_role("button", name="Keep that I disagree").click()
    page.wait_for_selector(".kept:has-text('disagree')")
    assert [(opinion.opinion, opinion.because) for opinion in read_opinions(folder)] == [
        ("agree", ""), ("disagree", "=the wall is thick"),
    ]  # fmt: skip
    page.reload()
    until_done(page)
    assert "the wall is thick" in page.locator(".kept").inner_text()


def test_opinion_lands_on_no_answer_that_its_reader_has_not_seen(
    keeping: tuple[str, Path], open_page: Any, heart: bytes
) -> None:
    address, folder = keeping
    page = open_page(address, expected="Failed to load resource")
    choose(page, "heart.zip", heart)
    until_done(page)
    page.route("**/api/session*", lambda route: route.abort())  # this tab does not hear of the other one
    identity = page.evaluate("document.querySelector('#download-json').getAttribute('href').split('/')[3]")
    status = page.evaluate(
        """async (id) => (await fetch(`api/studies/${id}/frames`, { method: "PUT", body: '{"ed": 9, "es": 5}',
            headers: { "X-Page-Key": localStorage.getItem("monai-fedlora key") } })).status""",
        identity,
    )
    assert status == 202
    page.get_by_role("button", name="Agree", exact=True).click()
    page.wait_for_selector(".opinion [role=alert]:has-text('another answer')")
    assert "frame 10" in page.locator("#study").inner_text()
    assert not (folder / "feedback.csv").exists()
    page.get_by_role("button", name="Agree", exact=True).click()
    page.wait_for_selector(".kept")
    assert [opinion.answer[-1] for opinion in read_opinions(folder)] == ["2"]


def images_of(paper: bytes) -> list[tuple[int, int]]:
    """Width and height of every picture of a PDF."""
    found = re.findall(rb"/Subtype\s*/Image\s*/Width (\d+)\s*/Height (\d+)", paper)
    return [(int(width), int(height)) for width, height in found]


def test_paper_holds_one_study_with_its_pictures_alone(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    choose(page, "other.zip", heart)
    until_sent(page, 2)
    page.locator("#list li", has_text="heart").get_by_role("button").click()
    page.wait_for_selector("#study-heading:text-is('heart')")
    until_done(page)
    page.wait_for_selector(".viewer[data-ready]")
    page.wait_for_function("() => document.querySelector('#study img')?.naturalWidth > 500")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    shown = page.locator("body").inner_text()
    sign = page.locator("#study .short-id").inner_text()
    assert "heart" in shown
    assert sign in shown
    assert "other" not in shown
    for text in (
        "Not a medical device",
        "Printed ",
        "This model was trained",
        "SHA-256",
        "Probability the model gives",
    ):
        assert text in shown
    for hidden in ("Load a study", "Remove this study", "Downloads", "What this model can and cannot do", "Play"):
        assert hidden not in shown
    still = page.locator(".still").first
    assert still.bounding_box()["width"] > 100
    levels = still.evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
        ".filter((level, index) => index % 4 === 0)"
    )
    assert max(levels) > 150
    assert len(set(levels)) > 10
    assert page.locator("#study img").first.bounding_box()["width"] > 300
    assert page.locator(".still.caption").inner_text().startswith("Slice 4 of 6, frame ")
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".still").count() == 0
    paper = page.pdf(format="A4")
    assert any(min(size) > 150 for size in images_of(paper))
