"""Find end-diastole and end-systole in a short-axis cine without a segmentation.

In cine sequences blood is bright and muscle dark, so that the bright part of the moving pixels shrinks while the heart
contracts. In every slice the pixels within 60 mm of the heart's centre that change most over the beat are counted while
they are brighter than halfway between the dark and the bright levels of that region. The sum over the slices between
base and apex, smoothed over the beat, is called the area of blood. End-systole is its minimum. End-diastole is the
first frame after the R wave, at which scanners start; if the area there is far from its maximum (a delayed trigger), it
is the frame of the largest area (all ours).

The area orders the frames of one cine; it is no volume, and cannot be compared between patients. The method needs
bright blood, a breath-hold and a stack that covers the ventricles. Through-plane motion of the atria at the base, an
arrhythmia or an akinetic ventricle flatten the curve, which gives a doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from monai_fedlora.errors import DataError
from monai_fedlora.transforms.localise import heart_centre

_REACH_MM = 60.0
_SYSTOLE = 0.35
"""Share of the beat at which the heart is nearly contracted; that frame and the first show which pixels move."""
_NEARLY_FULL = 0.75
"""The first frame counts as end-diastole if its area is above this share of the curve's range."""
_FEW_FRAMES = 10
_LITTLE_MOTION = 0.015
"""Smallest range of the curve of a beating heart, as a share of the region."""
_USUAL_SYSTOLE = (0.15, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameChoice:
    """The end-diastolic (ED) and end-systolic (ES) frame of a cine.

    Attributes:
        ed, es: frame numbers from 0.
        how: how they were found, in words.
        areas: of all frames, see :func:`blood_areas`.
        doubts: reasons why the choice may be wrong.
        times_ms: of all frames after the R wave; None where the files do not say.
        by_person: whether somebody chose them.
        found: ED and ES that the program had found before, from 0; None where nobody chose others.
    """

    ed: int
    es: int
    how: str
    areas: tuple[float, ...]
    doubts: tuple[str, ...]
    times_ms: tuple[float, ...] | None = None
    by_person: bool = False
    found: tuple[int, int] | None = None

    def called(self, frame: int) -> str:
        """A frame for display, counted from 1: "frame 8 (310 ms)", or without a time where that is unknown."""
        return f"frame {frame + 1}" + ("" if self.times_ms is None else f" ({self.times_ms[frame]:.0f} ms)")

    def to_json(self) -> dict[str, Any]:
        """As part of a result's JSON file."""
        return {
            "ed": self.ed,
            "es": self.es,
            "counted_from": 0,
            "how": self.how,
            "by_person": self.by_person,
            "found": None if self.found is None else list(self.found),
            "areas": [round(area, 4) for area in self.areas],
            "trigger_ms": None if self.times_ms is None else [round(time, 3) for time in self.times_ms],
        }


def choose_frames(cine: np.ndarray, *, spacing_mm: float, given: tuple[int, int] | None = None) -> FrameChoice:
    """Choose end-diastole and end-systole.

    Args:
        cine: (X, Y, Z, T) grey levels, finite, slices from base to apex or back.
        spacing_mm: in-plane pixel width.
        given: frame numbers (ED, ES) that a person has chosen, which are used as they are.

    Raises:
        DataError: there is one frame only, nothing moves, or a given number is not one of the frames.
    """
    frames = cine.shape[3]
    if frames < 2:
        raise DataError("a cine of one frame has no end-systole; give the whole cine")
    areas = blood_areas(cine, spacing_mm=spacing_mm)
    if given:
        ed, es = given
        check_frames(ed, es, frames=frames)
        return FrameChoice(ed=ed, es=es, how="given", areas=tuple(areas.tolist()), doubts=(), by_person=True)
    smooth = (np.roll(areas, 1) + 2 * areas + np.roll(areas, -1)) / 4 if frames > 4 else areas
    es = int(smooth.argmin())
    span = float(areas.max() - areas.min())
    first_is_full = areas[0] - areas.min() >= _NEARLY_FULL * span
    ed = 0 if first_is_full and es != 0 else int(smooth.argmax())
    if ed == es:
        raise DataError("nothing in this cine moves as a heart does; is it a cine, and does it show the heart?")
    how = "first frame after the R wave" if ed == 0 and first_is_full else "frame of the largest area of blood"
    doubts = []
    if frames < _FEW_FRAMES:
        doubts.append(f"{frames} frames are few: end-systole may lie between two of them")
    if span < _LITTLE_MOTION:
        doubts.append("the heart hardly changes its size; end-diastole and end-systole may be wrong")
    if not _USUAL_SYSTOLE[0] <= ((es - ed) % frames) / frames <= _USUAL_SYSTOLE[1]:
        doubts.append("end-systole was found at an unusual time of the beat; look at the frames")
    return FrameChoice(
        ed=ed,
        es=es,
        how=f"ED: {how}; ES: frame of the smallest area of blood",
        areas=tuple(areas.tolist()),
        doubts=tuple(doubts),
    )


def check_frames(ed: int, es: int, *, frames: int) -> None:
    """Refuse numbers that cannot be end-diastole and end-systole.

    Raises:
        DataError: they are equal, or not among the frames of the cine.
    """
    if ed == es or not (0 <= ed < frames and 0 <= es < frames):
        raise DataError(
            f"frames {ed} and {es} (counted from 0) cannot be ED and ES of a cine with the frames 0 to {frames - 1}"
        )


def blood_areas(cine: np.ndarray, *, spacing_mm: float) -> np.ndarray:
    """Area of blood by frame: bright pixels among the moving ones, as a share of the region around the heart's centre.

    Args:
        cine: (X, Y, Z, T) grey levels, finite; at least two frames.
        spacing_mm: in-plane pixel width.

    Returns:
        (T,) in [0, 1]; all zero if nothing changes.
    """
    width, height, slices, frames = cine.shape
    contracted = min(max(round(_SYSTOLE * frames), 1), frames - 1)
    pair = torch.from_numpy(np.stack([cine[..., 0], cine[..., contracted]]))
    x, y = heart_centre(pair, spacing_mm).tolist()
    reach = np.hypot((np.arange(width)[:, None] - x) * spacing_mm, (np.arange(height)[None] - y) * spacing_mm)
    middle = slice(slices // 4, max(slices // 4 + 1, slices - slices // 6))
    levels = cine[reach < _REACH_MM][:, middle].astype(np.float32)  # (N, Z', T)
    dark, bright = np.percentile(levels, (20, 95), axis=(0, 2))
    change = (levels.max(axis=2) - levels.min(axis=2)) / np.maximum(bright - dark, 1e-6)
    moves = change > 0.5 * np.percentile(change, 99)
    is_blood = levels > ((dark + bright) / 2)[:, None]
    return (is_blood & moves[..., None]).mean(axis=(0, 1))
