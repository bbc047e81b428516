"""One name where a list of names is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any


def one_or_more(given: Any) -> list[Any]:
    """A list of what is given, of one where that is a single value; a text is one, and no list of its letters."""
    return list(given) if isinstance(given, Iterable) and not isinstance(given, str | os.PathLike) else [given]
