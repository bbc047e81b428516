"""The page's files: what they may hold, and that people can read what they colour."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from monai_fedlora.serve.pages import FOLDER, INDEX, KINDS

LINES = 250
TEXT = 4.5  # contrast that WCAG 2.1 asks of text (level AA), and below of what borders a control
EDGE = 3.0
SCRIPTS = sorted(FOLDER.glob("*.js"))
WRITTEN = [*SCRIPTS, FOLDER / INDEX, *sorted(FOLDER.glob("*.css"))]
PAIRS = [
    ("ink", "paper", TEXT),
    ("ink", "panel", TEXT),
    ("ink", "wash", TEXT),
    ("ink", "doubt-wash", TEXT),
    ("ink", "alarm-wash", TEXT),
    ("quiet", "paper", TEXT),
    ("quiet", "panel", TEXT),
    ("quiet", "wash", TEXT),
    ("accent", "panel", TEXT),
    ("accent", "wash", TEXT),
    ("on-accent", "accent", TEXT),
    ("alarm", "panel", TEXT),
    ("alarm", "wash", TEXT),
    ("alarm", "alarm-wash", TEXT),
    ("doubt", "wash", TEXT),
    ("doubt", "panel", TEXT),
    ("doubt", "doubt-wash", TEXT),
    ("edge", "panel", EDGE),
]


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def elements() -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed((FOLDER / INDEX).read_text(encoding="utf-8"))
    return parser.found


def schemes() -> dict[str, dict[str, str]]:
    """Colours by name, of the light and of the dark scheme."""
    blocks = re.findall(r":root \{(.*?)\}", (FOLDER / "page.css").read_text(encoding="utf-8"), re.DOTALL)
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks)
    return {"light": light, "dark": dark}


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_holds_no_script_style_or_handler_of_its_own(
    elements: list[tuple[str, dict[str, str | None]]],
) -> None:
    assert [tag for tag, _ in elements if tag in ("style", "iframe", "object", "base")] == []
    assert [attributes["src"] for tag, attributes in elements if tag == "script"] == ["static/page.js"]
    assert [name for _, attributes in elements for name in attributes if name == "style" or name.startswith("on")] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_no_file_leads_to_another_host_or_writes_markup(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"https?://|//[a-z0-9.-]+\.[a-z]{2,}/|url\((?!#)|@import", text) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text) == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_short_and_imports_only_what_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LINES
    for name in re.findall(r'(?:from |import\()"\./([^"]+)"', text):
        assert name == "vendor/niivue.js" or (FOLDER / name).is_file(), name


def test_every_id_that_a_script_asks_for_is_in_the_page(elements: list[tuple[str, dict[str, str | None]]]) -> None:
    there = [attributes["id"] for _, attributes in elements if "id" in attributes]
    asked = {name for path in SCRIPTS for name in re.findall(r'byId\("([^"]+)"\)', path.read_text(encoding="utf-8"))}
    assert len(there) == len(set(there))
    assert asked
    assert asked <= set(there)


def test_every_file_of_the_page_is_given_out() -> None:
    assert {path.suffix for path in WRITTEN} <= set(KINDS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("ink", "paper", "least"), PAIRS, ids=[f"{ink} on {paper}" for ink, paper, _ in PAIRS])
def test_contrast_is_enough(scheme: str, ink: str, paper: str, least: float) -> None:
    colours = schemes()[scheme]
    dark, light = sorted((luminance(colours[ink]), luminance(colours[paper])))
    assert (light + 0.05) / (dark + 0.05) >= least


def test_contrast_is_computed_as_wcag_does() -> None:
    assert (luminance("#ffffff") + 0.05) / (luminance("#000000") + 0.05) == pytest.approx(21)
    assert (luminance("#ffffff") + 0.05) / (luminance("#767676") + 0.05) == pytest.approx(4.54, abs=0.005)


def test_the_viewer_is_pinned_and_not_committed(repository: Path) -> None:
    web = FOLDER.parent / "web"
    asked = json.loads((web / "package.json").read_text(encoding="utf-8"))["dependencies"]
    locked = json.loads((web / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert all(locked[f"node_modules/{name}"]["version"] == version for name, version in asked.items())
    assert all("integrity" in entry for path, entry in locked.items() if path)
    command = ["git", "-c", "safe.directory=*", "ls-files", str(FOLDER / "vendor")]
    assert subprocess.run(command, cwd=repository, capture_output=True, check=True).stdout == b""
