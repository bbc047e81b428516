"""The documentation builds as a site, without a warning and without a network, with every public name on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import monai_fedlora

REPOSITORY = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built beside a copy of what it is made from."""
    pytest.importorskip("zensical", reason="pip install 'monai-fedlora[docs]' brings Zensical")
    copy = tmp_path_factory.mktemp("site")
    shutil.copytree(REPOSITORY / "docs", copy / "docs")
    shutil.copy(REPOSITORY / "mkdocs.yml", copy)
    (copy / "monai_fedlora").symlink_to(REPOSITORY / "monai_fedlora")
    environment = {**os.environ, "http_proxy": NOWHERE, "https_proxy": NOWHERE}
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(build, cwd=copy, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return copy / "build" / "site"


@pytest.mark.slow
def test_every_document_is_a_page(site: Path) -> None:
    documents = {path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")}
    pages = {path.with_name("index.md") if path.name == "README.md" else path for path in documents}
    assert {str(path.with_suffix(".html")) for path in pages} <= {
        str(path.relative_to(site)) for path in site.rglob("*.html")
    }


@pytest.mark.slow
def test_reference_has_every_public_name_in_plain_words(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in monai_fedlora.__all__:
        assert f'id="monai_fedlora.{name}"' in page, name
    assert re.findall(r":(?:func|class|mod|meth|data|attr):", page) == []


@pytest.mark.slow
def test_pages_ask_no_other_machine_for_anything(site: Path) -> None:
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|iframe|source)[^>]*\ssrc="?(https?:[^"\s>]+)', path.read_text(encoding="utf-8")
        )
        loaded += re.findall(r'<link[^>]*rel="?stylesheet[^>]*href="?(https?:[^"\s>]+)', path.read_text("utf-8"))
        assert loaded == [], path


def test_navigation_leaves_no_document_out() -> None:
    named = set(re.findall(r"[\w./-]+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")))
    assert named == {str(path.relative_to(REPOSITORY / "docs")) for path in (REPOSITORY / "docs").rglob("*.md")}
