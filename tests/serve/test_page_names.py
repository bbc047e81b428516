"""Which study is which, and who removes it: names, other tabs, and pages that are loaded again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from monai_fedlora.serve.pages import FOLDER, VIEWER
from tests.serve.browsing import choose, until_done, until_said, until_sent

pytestmark = pytest.mark.slow

HANGING = """
  const send = XMLHttpRequest.prototype.send;
  window.hang = false;
  XMLHttpRequest.prototype.send = function (content) { if (!window.hang) send.call(this, content); };
"""


def names(page: Any) -> list[str]:
    return [name.inner_text() for name in page.locator("#list .name").all()]


def test_a_study_is_renamed_on_the_page_and_in_its_files(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address, expected="status of 400")
    choose(page, "heart.zip", heart)
    choose(page, "heart.zip", heart)
    until_sent(page, 2)
    until_done(page)
    sign = page.locator("#study .short-id").inner_text()
    assert len(sign) == 8
    assert [name.partition("  ")[0] for name in names(page)] != []
    assert {name.rpartition(" ")[0].strip() for name in names(page)} == {"heart", "heart (2)"}
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Name, or a pseudonym").fill("HEART")
    page.get_by_role("button", name="Use this name").click()
    assert "Another study here is called" in page.wait_for_selector(".naming .message").inner_text()
    page.get_by_label("Name, or a pseudonym").fill("Fall 7 ☂")
    page.keyboard.press("Enter")
    page.wait_for_selector(".naming", state="hidden")
    assert page.locator("#study-heading").inner_text() == "Fall 7 ☂"
    assert "Fall 7 ☂" in " ".join(names(page))
    for kind, ending in (("dicom", "dicom.zip"), ("figure", "figure.png")):
        with page.expect_download() as started:
            page.locator(f"#download-{kind}").click()
        assert started.value.suggested_filename == f"Fall_7-{sign}-{ending}"


def test_another_tab_shows_and_removes_everything(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    until_done(page)
    context = page.context
    page.close()
    other = context.new_page()
    other.goto(f"{address}/")
    until_done(other)
    assert "heart" in other.locator("#list li").inner_text()
    assert "are removed at" in other.locator("#list-expiry").inner_text()
    third = context.new_page()
    third.goto(f"{address}/")
    until_done(third)
    other.get_by_role("button", name="Remove everything").click()
    other.get_by_role("button", name="Remove", exact=True).click()
    until_said(other, "Everything was removed.")
    third.evaluate("window.dispatchEvent(new Event('focus'))")
    third.wait_for_selector("#list-empty:not([hidden])")
    assert third.locator("#study").is_hidden()


@pytest.mark.skipif(not (FOLDER / VIEWER).is_file(), reason="the viewer is not there; make web fetches it")
def test_images_of_a_removed_study_are_not_asked_for(open_page: Any, address: str, heart: bytes) -> None:
    """The viewer itself arrives only after the study was removed."""
    page = open_page(address)
    held: list[Any] = []
    page.route("**/niivue.js", lambda route: held.append(route))
    choose(page, "heart.zip", heart)
    until_done(page)
    identity = page.locator("#list li").get_attribute("data-id")
    page.get_by_role("button", name="Remove this study").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    until_said(page, "heart was removed.")
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response("**/niivue.js"):
        held[0].continue_()
    page.evaluate("import('/static/vendor/niivue.js')")
    page.wait_for_timeout(500)
    assert [url for url in asked if identity in url] == []


def test_a_removal_leaves_the_questions_about_other_studies(open_page: Any, address: str, heart: bytes) -> None:
    """The server answers nothing about the second study until the first one was removed."""
    page = open_page(address)
    choose(page, "first.zip", heart)
    until_done(page)
    page.wait_for_selector("#list li:not(:has(.busy))")
    held: list[Any] = []
    page.route(re.compile(r"/api/studies/[^/]+$"), lambda route: (
        held.append(route) if route.request.method == "GET" else route.continue_()
    ))  # fmt: skip
    with page.expect_request(re.compile(r"/api/studies/[^/]+$")):
        choose(page, "second.zip", heart)
    until_sent(page, 2)
    page.evaluate(
        """window.complaints = [];
        new MutationObserver(() => complaints.push(document.querySelector("#page-error").textContent))
          .observe(document.querySelector("#page-error"), { childList: true })"""
    )
    page.locator("#list li", has_text="first").get_by_role("button").click()
    page.wait_for_selector("#study-heading:text-is('first')")
    page.get_by_role("button", name="Remove this study").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    until_said(page, "first was removed.")
    page.unroute_all()
    for route in held[1:]:
        route.continue_()
    page.get_by_role("button", name="second").click()
    until_done(page)
    assert [text for text in page.evaluate("window.complaints") if text] == []


def test_a_reload_during_an_upload_is_noticed(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address, script=HANGING)
    page.evaluate("window.hang = true")
    choose(page, "heart.zip", heart)
    page.wait_for_selector("#list li")
    page.reload()
    said = page.wait_for_selector("#load-error .message").inner_text()
    assert said == (
        "A study was still being sent when this page was left or loaded again. Nothing of that was kept; send it again."
    )
    assert page.locator("#list li").count() == 0
    page.reload()
    page.wait_for_selector("#about h3")
    choose(page, "heart.zip", heart)
    until_done(page)
    assert page.locator("#load-error .message").count() == 0
    page.reload()
    until_done(page)
    assert page.locator("#load-error .message").count() == 0
