"""Files that nobody made: what a Mac, Windows or an archiver puts beside those of people."""

from __future__ import annotations

from pathlib import PurePath

_SYSTEM = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "system volume information"}
)


def is_of_system(path: PurePath) -> bool:
    """Whether a file is hidden (as ``._name`` is, which a Mac puts beside ``name``), or a system's own."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in path.parts if part not in (".", ".."))
