"""Describe an error that ended one study: for the user, and for a log that must name no patient."""

from __future__ import annotations

import traceback
from pathlib import Path

from monai_fedlora.errors import FedLoraError
from monai_fedlora.studies.naming import printable

_PACKAGE = Path(__file__).resolve().parent.parent


def reason_of(error: Exception) -> str:
    """Why a study failed, for the user: the message of an expected error, or that the program has a defect."""
    if isinstance(error, (FedLoraError, OSError, MemoryError)):
        return printable(str(error) or type(error).__name__)
    return f"the study met a defect of this program ({describe_defect(error)}); please report it"


def describe_defect(error: BaseException) -> str:
    """Type and place of an error, such as "ZeroDivisionError at results.py:97", without names of files or patients."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "an unknown place"
    return f"{type(error).__name__} at {place}"
