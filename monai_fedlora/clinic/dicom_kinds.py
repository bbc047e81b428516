"""Tell from its header whether an MR image can belong to a cine of grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_COMPLEX = frozenset({"P", "R", "REAL", "I", "IMAGINARY"})
_MAPS = frozenset({"R1", "R2", "R2*", "R2 STAR", "ADC", "ECV", "FA", "TTP", "PBF", "SNR", "TEMPERATURE"})
_OTHERS = {
    "LOCALIZER": "localisers",
    "PERFUSION": "perfusion",
    "TAGGING": "tagged",
    "SUBTRACTION": "differences of images",
    "PROJECTION IMAGE": "projections",
    "MAX IP": "projections",
    "MIN IP": "projections",
    "DIFFUSION": "diffusion",
}
_SAME_MS, _SAME_SHARE = 0.5, 0.1


def why_no_cine(image_type: Sequence[Any]) -> str | None:
    """Why an image cannot belong to a cine, by its ImageType (or FrameType and ComplexImageComponent); None if it can.

    Args:
        image_type: values of the attribute; the first two (original or derived, primary or secondary) are ignored.
    """
    for value in list(image_type)[2:]:
        word = " ".join(str(value).upper().replace("_", " ").split())
        if word in _COMPLEX or word.startswith(("PHASE", "VELOCITY")):
            return "phases, velocities or parts of complex numbers"
        if word in _MAPS or word.endswith(" MAP"):
            return "parametric maps"
        if word in _OTHERS:
            return _OTHERS[word]
    return None


def differ(times: Sequence[float | None]) -> bool:
    """Whether inversion or echo times (ms) at one slice position differ by more than rounding (a tenth; ours)."""
    known = [time for time in times if time is not None]
    return bool(known) and max(known) - min(known) > max(_SAME_MS, _SAME_SHARE * max(known))
