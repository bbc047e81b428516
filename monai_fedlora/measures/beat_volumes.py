"""End-diastole and end-systole of a moving heart from its volume curve, and what another choice would have changed.

End-diastole is the frame with the largest volume of the left ventricle, end-systole that with the smallest. For the
choice, not for the volumes, the curve of a beat of five frames or more is smoothed with its neighbours (a quarter, a
half, a quarter; the last frame is followed by the first), as single frames are off by a few mL (ours). Of frames that
tie, the first is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from monai_fedlora.errors import DataError
from monai_fedlora.measures.heart_function import ejection_fraction

_SMOOTHED_FROM = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatFrames:
    """End-diastole and end-systole by the volume of the left ventricle.

    Attributes:
        ed, es: frame numbers from 0.
        volumes: of all frames, mL.
        smoothed: the curve by which they were chosen, mL.
    """

    ed: int
    es: int
    volumes: tuple[float, ...]
    smoothed: tuple[float, ...]

    @property
    def ejection(self) -> float | None:
        """Ejection fraction between both frames, %; None if the ventricle is empty at end-diastole."""
        return ejection_fraction(edv=self.volumes[self.ed], esv=self.volumes[self.es])


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherFrames:
    """What another choice of frames changes.

    Attributes:
        ed, es: its frame numbers from 0.
        ed_apart, es_apart: how many frames it lies behind the choice by volume, negative for before, by the shorter
            way around the beat.
        edv_error, esv_error: its volumes minus those of the choice by volume, mL.
        ejection: ejection fraction between its frames, %; None if the ventricle is empty at its end-diastole.
        ejection_error: minus that of the choice by volume, points.
    """

    ed: int
    es: int
    ed_apart: int
    es_apart: int
    edv_error: float
    esv_error: float
    ejection: float | None
    ejection_error: float | None

    def to_row(self) -> dict[str, Any]:
        """The attributes by name, for a table."""
        return asdict(self)


def beat_frames(volumes: Sequence[float] | np.ndarray) -> BeatFrames:
    """Choose end-diastole and end-systole.

    Args:
        volumes: (T,) of the left ventricle by frame, mL, over one beat.

    Raises:
        DataError: there are fewer than two frames, a volume is negative or not finite, or the volume never changes.
    """
    curve = np.asarray(volumes, dtype=np.float64)
    if curve.ndim != 1 or len(curve) < 2 or not np.isfinite(curve).all() or (curve < 0).any():
        raise DataError(
            f"a volume curve of shape {curve.shape} was given; finite volumes of two frames or more are needed"
        )
    if curve.max() == curve.min():
        raise DataError(
            f"the volume of the left ventricle is {curve[0]:.0f} mL in all {len(curve)} frames, so that there is no "
            "end-diastole; does the cine show a beating heart, and did the segmentation find it?"
        )
    smooth = (np.roll(curve, 1) + 2 * curve + np.roll(curve, -1)) / 4 if len(curve) >= _SMOOTHED_FROM else curve
    return BeatFrames(
        ed=int(smooth.argmax()),
        es=int(smooth.argmin()),
        volumes=tuple(curve.tolist()),
        smoothed=tuple(smooth.tolist()),
    )


def compare_frames(found: BeatFrames, *, ed: int, es: int) -> OtherFrames:
    """Compare another choice of frames, such as one by grey levels, with that by volume.

    Args:
        found: the choice by volume.
        ed, es: the other choice, from 0.

    Raises:
        DataError: the numbers are not among the frames.
    """
    frames = len(found.volumes)
    if not (0 <= ed < frames and 0 <= es < frames):
        raise DataError(f"frames {ed} and {es} (counted from 0) are not among the frames 0 to {frames - 1}")
    edv, esv = found.volumes[ed], found.volumes[es]
    other, own = ejection_fraction(edv=edv, esv=esv), found.ejection
    return OtherFrames(
        ed=ed,
        es=es,
        ed_apart=_apart(ed, found.ed, frames),
        es_apart=_apart(es, found.es, frames),
        edv_error=edv - found.volumes[found.ed],
        esv_error=esv - found.volumes[found.es],
        ejection=other,
        ejection_error=None if other is None or own is None else other - own,
    )


def _apart(frame: int, other: int, frames: int) -> int:
    """Frames from ``other`` to ``frame`` by the shorter way around the beat, in (-T / 2, T / 2]."""
    behind = (frame - other) % frames
    return behind if behind <= frames / 2 else behind - frames
