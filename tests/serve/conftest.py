"""A server of a micro model, and browsers that talk to it without a network."""

from __future__ import annotations

import io
import os
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.serve.app import create_app
from monai_fedlora.serve.settings import ServeSettings
from tests.serve.browsing import (  # noqa: F401  a real browser and servers for it
    address,
    chromium,
    expected,
    heart,
    image_address,
    open_page,
)

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture(autouse=True, scope="session")
def _micro(micro: None) -> None:
    """For every test of this folder."""


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the process."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def make_app(classifier: Classifier) -> Callable[..., FastAPI]:
    """Make a server, not yet running, with other settings or another model."""

    def make(model: Classifier | None = classifier, *, outliner: Any = None, **settings: Any) -> FastAPI:
        return create_app(model, settings=ServeSettings(**settings), outliner=outliner)

    return make


@pytest.fixture
def client(make_app: Callable[..., FastAPI]) -> Iterator[TestClient]:
    """A browser with the page of a running server open."""
    with TestClient(make_app(), base_url=ADDRESS) as browser:
        browser.get("/")
        yield browser


def stranger(browser: TestClient, **options: Any) -> TestClient:
    """Another browser at the same server."""
    return TestClient(browser.app, base_url=ADDRESS, **options)


def send(browser: TestClient, *files: tuple[str, bytes]) -> Any:
    return browser.post("/api/studies", files=[("files", file) for file in files])


def zipped(folder: Path) -> bytes:
    """An archive of a folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder.parent))
    return content.getvalue()


def finished(browser: httpx2.Client, identity: str, *, state: str = "done") -> dict[str, Any]:
    """Poll as the page does until a study is done or has failed, also on a machine that has much else to do."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        study = browser.get(f"/api/studies/{identity}").json()
        if study["state"] in ("done", "failed"):
            assert study["state"] == state, study["error"]
            return study
        time.sleep(0.05)
    raise AssertionError(f"the study is still {study['state']}")


def stored(scratch: Path) -> list[Path]:
    """Files that a server keeps."""
    return [Path(folder) / name for folder, _, names in os.walk(scratch) for name in names]
