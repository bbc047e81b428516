"""What a log may say about an error: its kind and its place in this package, and no names of files or patients."""

from __future__ import annotations

import traceback
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def describe_defect(error: BaseException) -> str:
    """Such as "ZeroDivisionError at results.py:97"."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"
    return f"{type(error).__name__} at {place}"
