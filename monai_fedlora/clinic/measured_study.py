"""What the masks of a study say: volumes, function, wall and outlines, or why no volume can be given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.clinic.frames_choice import FrameChoice
from monai_fedlora.clinic.placement import KNOWN
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.sr_parts import Algorithm
from monai_fedlora.errors import DataError
from monai_fedlora.measures.beat_volumes import BeatFrames, OtherFrames, beat_frames, compare_frames
from monai_fedlora.measures.contours import page_contours
from monai_fedlora.measures.heart_function import UNITS, HeartFunction, heart_function, volumes_ml
from monai_fedlora.measures.masks import checked_mask, value_of
from monai_fedlora.measures.stack_coverage import Coverage, stack_coverage
from monai_fedlora.measures.structures import HEART, LV, MYO
from monai_fedlora.measures.wall_thickness import WallThickness, wall_thickness


@dataclass(frozen=True, kw_only=True)
class MeasuredStudy:
    """Masks of a study and what was measured in them.

    Attributes:
        masks: (2, X, Y, Z) end-diastole and end-systole on the grid of the cine, its axes in canonical order: 0
            background, 1 to K the structures.
        affine: (4, 4) voxel to world in mm (right, anterior, superior).
        structures: names of the values from 1.
        coverage: whether the stack covers the left ventricle.
        function: volumes, ejection fractions and mass; None where the stack does not cover the ventricle.
        wall: thickness at end-diastole; None without masks of blood pool and muscle.
        beat: ED and ES by the volume of the left ventricle in all frames; None where only two frames have a mask, or
            the volume never changes.
        moving: (T, X, Y, Z) masks of all frames; None where only two frames have one.
        algorithm: the model that made the masks.
        frames: how ED and ES were chosen; None for two files.
        stack: the images of a cine that was read from DICOM.
    """

    masks: np.ndarray
    affine: np.ndarray
    structures: tuple[str, ...]
    coverage: Coverage
    function: HeartFunction | None
    wall: WallThickness | None
    algorithm: Algorithm
    frames: FrameChoice | None = None
    stack: Stack | None = None
    beat: BeatFrames | None = None
    moving: np.ndarray | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(x, y, z) in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def frame_difference(self) -> OtherFrames | None:
        """What the choice of frames by grey levels, or by a person, changes against that by volume; None if unknown."""
        if self.beat is None or self.frames is None:
            return None
        return compare_frames(self.beat, ed=self.frames.ed, es=self.frames.es)

    def sentences(self) -> tuple[str, ...]:
        """The numbers, or why there are none, for display."""
        if self.function is None:
            return tuple(f"No volume is given: {reason}." for reason in self.coverage.reasons)
        numbers = self.function.to_row()
        return tuple(
            f"{LABELS[name]}: {value:.0f} {unit}."
            for name, unit in UNITS.items()
            if (value := numbers[name]) is not None
        )

    def to_json(self, *, contours: bool = False) -> dict[str, Any]:
        """Everything but the masks, for a JSON file; with the outlines of all frames if wanted."""
        wall, beat = self.wall, self.beat
        found: dict[str, Any] = {
            "structures": list(self.structures),
            "no_volume_because": list(self.coverage.reasons),
            "function": None if self.function is None else _rounded(self.function.to_row()),
            "units": dict(UNITS),
            "wall_mm": None if wall is None else _rounded(wall.to_row()),
            "beat": None,
        }
        if beat is not None:
            curve = [round(volume, 2) for volume in beat.volumes]
            found["beat"] = {"ed": beat.ed, "es": beat.es, "counted_from": 0, "lv_volumes_ml": curve}
        if contours:
            frames = self.masks if self.moving is None else self.moving
            found["contours"] = page_contours(frames, structures=self.structures)
        return found


LABELS = {
    "lv_edv": "LV end-diastolic volume",
    "lv_esv": "LV end-systolic volume",
    "lv_sv": "LV stroke volume",
    "lv_ef": "LV ejection fraction",
    "lv_mass": "LV mass",
    "rv_edv": "RV end-diastolic volume",
    "rv_esv": "RV end-systolic volume",
    "rv_sv": "RV stroke volume",
    "rv_ef": "RV ejection fraction",
}
"""Names of the numbers of a heart for display."""


def measure_study(
    masks: Any, loaded: LoadedStudy, *, algorithm: Algorithm, structures: tuple[str, ...] = HEART
) -> MeasuredStudy:
    """Measure the masks of a study.

    Args:
        masks: whole numbers on the grid of the study's cine: (T, X, Y, Z) all frames, or (2, X, Y, Z) end-diastole and
            end-systole.
        loaded: the study, as read from its files.
        algorithm: the model that made the masks.
        structures: names of the values from 1, LV among them.

    Raises:
        DataError: the masks lie on another grid, or cannot be used.
    """
    values = checked_mask(masks, structures, axes=4)
    cine, affine, choice = loaded.cine, loaded.cine_affine, loaded.frames
    if cine is None or affine is None or values.shape[1:] != cine.shape[:3] or len(values) not in (2, cine.shape[3]):
        raise DataError(
            f"the masks have the shape {values.shape}, and the cine "
            f"{None if cine is None else (cine.shape[3], *cine.shape[:3])} (frames first); masks of all frames, or of "
            "end-diastole and end-systole, are measured on the grid of the cine"
        )
    moving = values if choice is not None and len(values) == cine.shape[3] else None
    pair = values if choice is None or moving is None else moving[[choice.ed, choice.es]]
    oriented = loaded.orientation == KNOWN
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    spacing = (x, y, z)
    coverage = stack_coverage(pair, spacing=spacing, structures=structures, oriented=oriented)
    curve = volumes_ml(values, structures=structures, spacing=spacing)[:, (value_of(LV, structures) or 1) - 1]
    walled = MYO in structures
    return MeasuredStudy(
        masks=pair,
        affine=affine,
        structures=structures,
        coverage=coverage,
        function=heart_function(pair, spacing=spacing, structures=structures) if coverage.complete else None,
        wall=wall_thickness(pair[0], spacing=spacing, structures=structures, oriented=oriented) if walled else None,
        algorithm=algorithm,
        frames=choice,
        stack=loaded.stack,
        beat=beat_frames(curve) if moving is not None and np.ptp(curve) > 0 else None,
        moving=moving,
    )


def _rounded(row: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 2) for name, value in row.items()}
