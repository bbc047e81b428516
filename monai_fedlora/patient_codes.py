"""Which codes of patients, lesions and images are the same code, wherever patients are counted."""

from __future__ import annotations

import unicodedata


def plain_code(code: str) -> str:
    """A code as it is compared: case, surrounding blanks and the way of writing an accent do not tell codes apart."""
    return unicodedata.normalize("NFKC", code).strip().casefold()
