"""What may stand in a plan: names and numbers, and nothing that a config parser or a shell could run."""

from __future__ import annotations

import math
import re
from typing import Any

from monai_fedlora.errors import ConfigError

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_word(name: str, value: Any) -> None:
    """Refuse what is not a plain word.

    Raises:
        ConfigError: see there; the message begins with the ``name`` of the setting, here and below.
    """
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ConfigError(
            f"{name} is {value!r}; use letters, digits, '.', '_' and '-' (no spaces, paths or expressions)"
        )


def check_words(name: str, words: Any, *, least: int = 1) -> None:
    """Refuse what is not a tuple of different words, at least so many."""
    if not isinstance(words, tuple) or len(words) < least:
        raise ConfigError(f"{name} is {words!r}; it must be a list of names")
    for word in words:
        check_word(name, word)
    if len(set(words)) != len(words):
        raise ConfigError(f"{name} must be different names, got {', '.join(words)}")


def check_whole(name: str, value: Any, least: int) -> None:
    """Refuse what is not a whole number of at least ``least``."""
    if type(value) is not int or value < least:
        raise ConfigError(f"{name} is {value!r}; it must be a whole number of at least {least}")


def check_plain(name: str, value: Any) -> None:
    """Refuse what is neither a word, nor a finite number, nor None."""
    if isinstance(value, str):
        check_word(name, value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number")
    elif value is not None and not isinstance(value, (int, float)):
        raise ConfigError(f"{name} must be a number, a plain word or a list of them, not {type(value).__name__}")
