"""A real browser for the tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium without a window and with nothing in its profile."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium here; Debian's package of that name brings it")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="pip install 'monai-fedlora[test]' brings Playwright"
    )
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=program, headless=True, args=list(FLAGS))
        yield running
        running.close()
