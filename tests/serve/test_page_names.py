"""Which study is which, and who removes it: names, other tabs, and pages that are loaded again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.browsing import choose, until_done, until_sent

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
    other.wait_for_selector("#list-empty:not([hidden])")
    third.evaluate("window.dispatchEvent(new Event('focus'))")
    third.wait_for_selector("#list-empty:not([hidden])")
    assert third.locator("#study").is_hidden()


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
