"""What an MR image shows, from its header alone: grey levels of a heart in motion, or something else."""

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
    """Why an image is none of a cine, by its ImageType (or FrameType and ComplexImageComponent); None if it may be.

    Args:
        image_type: values, of which the first two say how an image came about.
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
    """Whether the inversion or echo times (ms) of a place differ by more than rounding does (a tenth; ours)."""
    known = [time for time in times if time is not None]
    return bool(known) and max(known) - min(known) > max(_SAME_MS, _SAME_SHARE * max(known))
