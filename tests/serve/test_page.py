"""The page in a real browser: from a dropped study to what a reader sees and takes away."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pydicom
import pytest
from PIL import Image

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction
from tests.clinic.cine_studies import beating_heart, write_study
from tests.serve.browsing import LARGEST, choose, table, until_done, until_said, until_sent
from tests.serve.conftest import zipped

pytestmark = pytest.mark.slow

DROP = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name));
  document.querySelector("#drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A study of three slices, too few for a heart."""
    return zipped(write_study(tmp_path_factory.mktemp("short") / "short", beating_heart(slices=3)))


def test_limits_and_notice_are_there_before_any_answer(open_page: Any, address: str, classifier: Classifier) -> None:
    page = open_page(address)
    about = page.locator("#about").inner_text()
    limits = json.loads((classifier.path / "configs/metadata.json").read_text())["limitations"]
    assert len(limits) > 3
    assert all(limit.rstrip(".") in about for limit in limits)
    assert classifier.sha256 in about
    assert classifier.name in page.locator("h1").inner_text()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    place = page.get_by_text(NOT_FOR_CLINICAL_USE, exact=True).first.bounding_box()
    assert 0 <= place["y"] < 1000


def test_a_dropped_study_is_answered_as_the_program_answers(
    open_page: Any, address: str, heart: bytes, expected: Prediction
) -> None:
    page = open_page(address)
    page.evaluate(DROP, ["heart.zip", base64.b64encode(heart).decode()])
    until_done(page)
    shares = dict(zip(expected.classifier.classes, expected.probabilities, strict=True))
    assert table(page) == {
        name: expected.percent(share) for name, share in sorted(shares.items(), key=lambda entry: -entry[1])
    }
    assert expected.answer in page.locator(".best").inner_text()
    reasons = expected.doubts or expected.classifier.trust.blind
    assert page.locator(".state-box li").count() == len(reasons)
    assert page.locator("#study-heading").inner_text() == "heart"
    assert expected.frames is not None
    ed, es = (expected.frames.called(frame) for frame in (expected.frames.ed, expected.frames.es))
    assert "ms" in es
    said = page.locator("#study").inner_text().replace("\u00a0", " ")
    assert f"{ed}, end-systole (ES) {es}, of 10 frames" in said
    curve = page.locator("svg.curve")
    assert curve.locator("polyline").get_attribute("points").count(",") == len(expected.frames.areas)
    assert curve.locator("text").all_text_contents()[:2] == [
        f"ED {expected.frames.ed + 1}",
        f"ES {expected.frames.es + 1}",
    ]
    assert "heart:" in page.locator("#status").inner_text()


def test_doubts_come_first_and_the_answer_is_called_doubtful(open_page: Any, address: str, short: bytes) -> None:
    page = open_page(address)
    choose(page, "short.zip", short)
    until_done(page)
    assert page.locator("#state-heading").inner_text() == "Doubtful because"
    assert "The slices cover 30 mm" in page.locator(".state-box").inner_text()
    assert page.locator("#answer-heading").inner_text() in ("Answer of the model", "Undecided")
    assert page.locator(".best").inner_text().startswith("Doubtful:")
    assert page.locator(".state-box").bounding_box()["y"] < page.locator(".best").bounding_box()["y"]
    assert "doubtful" in page.locator("#list").inner_text()


def test_the_report_can_be_taken_away(open_page: Any, address: str, heart: bytes, tmp_path: Path) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    until_done(page)
    for name in ("dicom", "json", "figure"):
        with page.expect_download() as started:
            page.locator(f"#download-{name}").click()
        started.value.save_as(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "dicom") as archive:
        report, capture = (pydicom.dcmread(io.BytesIO(archive.read(name))) for name in ("report.dcm", "figure.dcm"))
    assert report.SOPClassUID == pydicom.uid.ComprehensiveSRStorage
    assert "Doeringer" not in str(report)
    assert capture.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert json.loads((tmp_path / "json").read_text())["notice"] == NOT_FOR_CLINICAL_USE
    assert Image.open(tmp_path / "figure").width > 500


def test_a_removed_study_is_gone_from_page_and_server(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    until_done(page)
    identity = page.locator("#list li").get_attribute("data-id")
    page.get_by_role("button", name="Remove this study").click()
    page.get_by_role("button", name="Keep").click()
    assert page.request.get(f"{address}/api/studies/{identity}").status == 200
    page.get_by_role("button", name="Remove this study").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    until_said(page, "heart was removed.")
    assert page.locator("#study").is_hidden()
    assert page.request.get(f"{address}/api/studies/{identity}").status == 404


def test_everything_is_removed_at_once(open_page: Any, address: str, heart: bytes, short: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    choose(page, "short.zip", short)
    until_sent(page, 2)
    until_done(page)
    ids = [row.get_attribute("data-id") for row in page.locator("#list li").all()]
    page.get_by_role("button", name="Remove everything").click()
    page.get_by_role("button", name="Remove", exact=True).click()
    until_said(page, "Everything was removed.")
    assert {page.request.get(f"{address}/api/studies/{identity}").status for identity in ids} == {404}


def test_a_wrong_file_is_answered_with_the_servers_sentence(open_page: Any, address: str) -> None:
    page = open_page(address, expected="status of 415")
    choose(page, "letter.txt", b"Dear colleague")
    sentence = page.wait_for_selector("#load-error .message").inner_text()
    assert "letter.txt" in sentence
    assert "send a DICOM study" in sentence
    assert page.locator("#list li").count() == 0


def test_a_study_that_fails_says_why(open_page: Any, address: str) -> None:
    page = open_page(address)
    choose(page, "damaged.nii.gz", b"\x1f\x8b no volume")
    sentence = page.wait_for_selector("#study .message").inner_text()
    assert sentence.startswith("damaged.nii.gz ")
    assert "failed" in page.locator("#list").inner_text()


def test_too_large_a_study_is_not_sent(open_page: Any, address: str) -> None:
    page = open_page(address)
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    choose(page, "huge.zip", bytes(2 * LARGEST))
    assert "1 MiB" in page.wait_for_selector("#load-error .message").inner_text()
    assert "POST" not in sent


def test_a_reload_finds_the_studies_again(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "heart.zip", heart)
    until_done(page)
    page.reload()
    until_done(page)
    assert "heart" in page.locator("#list li").inner_text()


def test_names_never_become_markup(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address)
    choose(page, "<b id=planted>heart<img src=x onerror=alert(1)>.zip", heart)
    until_done(page)
    assert page.locator("#study-heading").inner_text() == "<b id=planted>heart<img src=x onerror=alert(1)>"
    assert page.locator("#planted").count() == 0


def test_a_server_that_ended_is_reported_and_found_again(open_page: Any, address: str, heart: bytes) -> None:
    page = open_page(address, expected="ERR_FAILED")
    page.route("**/api/studies/*", lambda route: route.abort())
    choose(page, "heart.zip", heart)
    assert "does not answer" in page.wait_for_selector("#page-error .message").inner_text()
    page.unroute("**/api/studies/*")
    until_done(page)
    assert page.locator("#page-error .message").count() == 0


def test_files_are_divided_into_studies(open_page: Any, address: str) -> None:
    page = open_page(address)
    paths = [
        "a_ed.nii.gz",
        "a_ES.nii.gz",
        "x/IM1",
        "x/sub/IM2.dcm",
        "x/.DS_Store",
        "two.zip",
        "cine.nii",
        "y/IM1",
        "IM3",
    ]
    groups = page.evaluate(
        """async (paths) => {
          const { studiesOf } = await import("/static/grouping.js");
          return studiesOf(paths.map((path) => ({ file: null, path })))
            .map(({ name, items }) => [name, items.map(({ path }) => path)]);
        }""",
        paths,
    )
    assert groups == [
        ["a", ["a_ed.nii.gz", "a_ES.nii.gz"]],
        ["x", ["x/IM1", "x/sub/IM2.dcm"]],
        ["two.zip", ["two.zip"]],
        ["cine.nii", ["cine.nii"]],
        ["y", ["y/IM1"]],
        ["IM3", ["IM3"]],
    ]
