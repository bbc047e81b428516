"""Words and values as text."""

from __future__ import annotations

from typing import Any


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def shortened(value: Any, limit: int = 80) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
