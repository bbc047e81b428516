"""Recognise hidden files and those that macOS, Windows or an archiver adds to folders."""

from __future__ import annotations

from pathlib import PurePath

_SYSTEM = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db", "$recycle.bin", "system volume information"}
)


def is_of_system(path: PurePath) -> bool:
    """Whether a file is hidden (such as ``._name``, which macOS writes beside ``name``) or one of the system's own."""
    return any(part.startswith(".") or part.lower() in _SYSTEM for part in path.parts if part not in (".", ".."))
