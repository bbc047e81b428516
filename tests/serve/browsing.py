"""A real server and a real browser, for the tests of the page."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from monai_fedlora.clinic import overlay
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.prediction import Prediction, predict_study
from monai_fedlora.serve.app import create_app
from monai_fedlora.serve.protocol import server_config
from monai_fedlora.serve.settings import ServeSettings
from monai_fedlora.studies.finding import find_studies
from tests.browser import chromium

__all__ = ["chromium"]

LARGEST = 1 << 20
"""Bytes of a study that the servers take."""
_PATIENCE = 60_000  # milliseconds for a study on a busy machine
_NAMELESS = """() => [...document.querySelectorAll("button, input, a, canvas, img, [role=img]")]
  .filter((control) => !control.closest("[hidden]") && !control.hidden)
  .filter((control) => !(control.getAttribute("aria-label") || control.textContent.trim() || control.alt
    || control.querySelector("img")?.alt || control.labels?.[0]?.textContent.trim()))
  .map((control) => control.outerHTML)"""


@contextmanager
def serving(model: Classifier | None, folder: Path, *, outliner: Any = None, **options: Any) -> Iterator[str]:
    """A server on a free port, with further settings; gives its address."""
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setattr(overlay, "THRESHOLD", 0.0)  # a micro model answers nearly alike whatever is hidden
        port = listener.getsockname()[1]
        settings = ServeSettings(port=port, max_upload_bytes=LARGEST, **options)
        app = create_app(model, settings=settings, outliner=outliner)
        server = uvicorn.Server(server_config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        for _ in range(200):
            if server.started:
                break
            time.sleep(0.05)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def address(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the cine model."""
    with serving(classifier, tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture(scope="module")
def image_address(image_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the photograph model."""
    with serving(image_classifier, tmp_path_factory.mktemp("served")) as found:
        yield found


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open the page of a server as a new visitor; afterwards nothing was asked of another host, nothing went wrong."""
    contexts, foreign, complaints = [], [], []

    def new(address: str, *, script: str = "", expected: str = "", **options: Any) -> Any:
        def note(said: Any) -> None:
            if said.type == "error" and not (expected and expected in said.text):
                complaints.append(said.text)

        def follow(request: Any) -> None:
            if not request.url.startswith((f"{address}/", "blob:", "data:")):
                foreign.append(request.url)

        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        contexts.append(context)
        context.on("request", follow)
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        if script:
            page.add_init_script(script)
        page.goto(f"{address}/")
        page.wait_for_selector("#about h3")
        return page

    yield new
    for context in contexts:
        context.close()
    assert not foreign, foreign
    assert not complaints, complaints


@pytest.fixture(scope="module")
def heart(stored_study: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A plausible DICOM study, as a zip archive."""
    target = tmp_path_factory.mktemp("packed") / stored_study.name
    return Path(shutil.make_archive(str(target), "zip", stored_study.parent, stored_study.name)).read_bytes()


@pytest.fixture(scope="module")
def expected(classifier: Classifier, stored_study: Path) -> Prediction:
    """What the program without a page says of :func:`heart`."""
    (study,) = find_studies([stored_study], modality=classifier.modality).studies
    return predict_study(classifier, study, overlay=False)


def choose(page: Any, name: str, content: bytes) -> None:
    """Choose a file as the button of the page lets one do."""
    page.set_input_files("#files", {"name": name, "mimeType": "application/octet-stream", "buffer": content})


def until_sent(page: Any, count: int) -> None:
    """Wait until the server has this many studies, and the page sends no more."""
    page.wait_for_selector(f"#list:not(:has(li[data-id^='sending '])) li:nth-child({count}):last-child")


def until_said(page: Any, sentence: str) -> None:
    """Wait until the page has told its reader so."""
    page.wait_for_selector(f'#status:text-is("{sentence}")', state="attached")


def until_done(page: Any) -> None:
    """Wait for everything that is offered of the chosen study."""
    page.wait_for_selector("#download-json")


def table(page: Any) -> dict[str, str]:
    """Number by class, in the order shown."""
    rows = page.locator(".bars tr")
    return {row.locator("th").inner_text(): row.locator(".number").inner_text() for row in rows.all()}


def nameless(page: Any) -> list[str]:
    """Controls and pictures of which a screen reader could say nothing."""
    return page.evaluate(_NAMELESS)
