"""End-diastole and end-systole of a moving heart from its volume curve.

End-diastole is the frame with the largest volume of the left ventricle, end-systole that with the smallest. For the
choice, not for the volumes, the curve of a beat of five frames or more is smoothed with its neighbours (a quarter, a
half, a quarter; the last frame is followed by the first), as single frames are off by a few mL (ours). Of frames that
tie, the first is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
