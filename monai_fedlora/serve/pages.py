"""The page's own files: a list made at the start, of known kinds, and nothing beside it."""

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
"""Types of files by suffix; others are not given out."""


def find_pages(folder: Path = FOLDER) -> dict[str, Path]:
    """The files that may be asked for, by their path below the folder; links are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in KINDS and path.is_file() and not path.is_symlink():
            found[path.relative_to(folder).as_posix()] = path
    return found
