"""Small helpers for texts."""

from __future__ import annotations

from typing import Any


def words(text: str) -> frozenset[str]:
    """The set of words of a text."""
    return frozenset(text.split())


def shortened(value: Any, limit: int = 80) -> str:
    """``repr`` of a value, shortened for a message."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."
