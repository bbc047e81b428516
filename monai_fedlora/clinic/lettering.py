"""Text in pictures, whatever its script: a font that has its letters, and where there is none, their code points."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from PIL import ImageFont

_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "Arial.ttf")
"""Of the system, in the order in which they are tried after Pillow's own, which has the letters of English."""
_NO_LETTER = "\uffff"


def lettering(text: str, size: int) -> tuple[str, Any]:
    """How a text can be drawn.

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
        text = "".join(letter if letter.isspace() or _has(best, size, letter) else _code(letter) for letter in text)
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


def _code(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()
