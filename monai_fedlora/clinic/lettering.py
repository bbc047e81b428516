"""Text of any script in pictures: find a font that has its letters, and write the others as code points."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from PIL import ImageFont

_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "Arial.ttf")
"""Fonts of the system, in the order in which they are tried after Pillow's own, which has Latin letters only."""
_NO_LETTER = "\uffff"


def lettering(text: str, size: int) -> tuple[str, Any]:
    """Choose a font for a text.

    Args:
        text: of any script.
        size: in pixels.

    Returns:
        The text, with ``\\u0416`` or the like for letters that no font here has, and the font.
    """
    fonts = _fonts(size)
    letters = {letter for letter in text if not letter.isspace()}
    missing = [sum(not _has(font, size, letter) for letter in letters) for font in range(len(fonts))]
    best = min(range(len(fonts)), key=missing.__getitem__)
    if missing[best]:
        lacks = {letter for letter in letters if not _has(best, size, letter)}
        text = text.translate({ord(letter): letter.encode("ascii", "backslashreplace").decode() for letter in lacks})
    return text, fonts[best]


@cache
def _fonts(size: int) -> tuple[Any, ...]:
    found = [ImageFont.load_default(size)]
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # this system has none of this name
            continue
    return tuple(found)


@lru_cache(maxsize=4096)
def _has(font: int, size: int, letter: str) -> bool:
    chosen = _fonts(size)[font]
    return _drawn(chosen, letter) != _drawn(chosen, _NO_LETTER)


def _drawn(font: Any, letter: str) -> tuple[Any, bytes]:
    mask, offset = font.getmask2(letter)
    return (mask.size, offset), bytes(mask)
