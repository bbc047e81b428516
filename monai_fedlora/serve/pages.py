"""The static files of the page: a list of known types, made at the start; no other file is served."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "static"
INDEX = "index.html"
VIEWER = "vendor/niivue.js"
KINDS = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
"""Content types by suffix; files with others are not served."""


def find_pages(folder: Path = FOLDER) -> dict[str, Path]:
    """The files that are served, by their path below the folder; links are left out."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path for path in files if path.suffix in KINDS}
