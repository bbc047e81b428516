"""What the masks of a study say: volumes, function, wall and outlines, or why no volume can be given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from monai_fedlora.clinic.dicom_stack import Stack
from monai_fedlora.clinic.frames_choice import FrameChoice
from monai_fedlora.clinic.placement import KNOWN
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.sr_parts import Algorithm
from monai_fedlora.errors import DataError
from monai_fedlora.measures.beat_volumes import BeatFrames, beat_frames
from monai_fedlora.measures.contours import page_contours
from monai_fedlora.measures.given_numbers import given_numbers
from monai_fedlora.measures.heart_function import UNITS, HeartFunction, volumes_ml
from monai_fedlora.measures.masks import checked_mask, value_of
from monai_fedlora.measures.structures import HEART, LV, MYO, RV
from monai_fedlora.measures.wall_thickness import WallThickness, wall_thickness


@dataclass(frozen=True, kw_only=True)
class MeasuredStudy:
    """Masks of a study and what was measured in them.

    Attributes:
        masks: (2, X, Y, Z) end-diastole and end-systole on the grid of the cine, its axes in canonical order: 0
            background, 1 to K the structures.
        affine: (4, 4) voxel to world in mm (right, anterior, superior).
        structures: names of the values from 1.
        function: volumes, ejection fractions and mass; None where no volume can be given, see
            :func:`monai_fedlora.measures.given_numbers.given_numbers`.
        no_volume_because: why no volume is given, as sentences without a full stop; empty if there are volumes.
        wall: thickness at end-diastole; None without masks of blood pool and muscle.
        beat: ED and ES by the volume of the left ventricle in all frames; None where only two frames have a mask, or
            the volume never changes.
        moving: (T, X, Y, Z) masks of all frames; None where only two frames have one.
        algorithm: the model that made the masks.
        frames: how ED and ES were chosen by grey levels, or by a person; None for two files.
        ed, es: the frames of ``masks``, from 0; None for two files. Those of ``beat``, unless a person chose others or
            a frame has no mask.
        failed: by frame from 0, why it has no mask.
        stack: the images of a cine that was read from DICOM.
    """

    masks: np.ndarray
    affine: np.ndarray
    structures: tuple[str, ...]
    function: HeartFunction | None
    no_volume_because: tuple[str, ...]
    wall: WallThickness | None
    algorithm: Algorithm
    frames: FrameChoice | None = None
    ed: int | None = None
    es: int | None = None
    failed: Mapping[int, str] = field(default_factory=dict)
    stack: Stack | None = None
    beat: BeatFrames | None = None
    moving: np.ndarray | None = None

    @property
    def spacing(self) -> tuple[float, float, float]:
        """(x, y, z) in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def not_found(self) -> tuple[str, ...]:
        """Sentences on structures that have no number beside volumes of others, without a full stop."""
        if self.function is None:
            return ()
        numbers, said = self.function, []
        if MYO in self.structures and numbers.lv_mass is None:
            said.append(f"{MYO} was not found at end-diastole, and has no mass")
        if RV in self.structures and numbers.rv_edv is None:
            said.append(f"{RV} was not found in both frames, or is larger at end-systole, and has no volume")
        return tuple(said)

    @property
    def how(self) -> str:
        """How the frames of the numbers were chosen, for display."""
        if self.frames is None or self.ed is None or self.es is None:
            return "End-diastole and end-systole were given as two files"
        chosen = f"End-diastole is {self.frames.called(self.ed)} and end-systole {self.frames.called(self.es)}"
        if self.frames.by_person:
            return f"{chosen}, as a person chose them"
        if self.failed or self.beat is None:
            return f"{chosen}, by grey levels and not by volumes, because not every frame has outlines"
        by_volume = f"{chosen}, where the smoothed volume of the left ventricle is largest and smallest"
        if (self.ed, self.es) == (self.frames.ed, self.frames.es):
            return by_volume
        ed, es = self.frames.called(self.frames.ed), self.frames.called(self.frames.es)
        return f"{by_volume}; by grey levels, which an answer of a class goes by, they are {ed} and {es}"

    def sentences(self) -> tuple[str, ...]:
        """The numbers, or why there are none, for display."""
        lost = tuple(f"No outlines in {_called(frame, self.frames)}: {why}." for frame, why in self.failed.items())
        if self.function is None:
            return (*(f"No volume is given: {reason}." for reason in self.no_volume_because), *lost)
        numbers = self.function.to_row()
        said = (
            f"{LABELS[name]}: {value:.0f} {unit}."
            for name, unit in UNITS.items()
            if (value := numbers[name]) is not None
        )
        return (*said, f"{self.how}.", *lost)

    def contours(self) -> dict[str, Any]:
        """Outlines of all frames that have a mask, see :func:`monai_fedlora.measures.contours.page_contours`."""
        frames = self.masks if self.moving is None else self.moving
        return page_contours(frames, structures=self.structures)

    def to_json(self) -> dict[str, Any]:
        """Everything but masks and outlines, for a JSON file."""
        wall, beat = self.wall, self.beat
        found: dict[str, Any] = {
            "structures": list(self.structures),
            "no_volume_because": list(self.no_volume_because),
            "frames": None if self.ed is None else {"ed": self.ed, "es": self.es, "counted_from": 0, "how": self.how},
            "failed_frames": {str(frame): why for frame, why in self.failed.items()},
            "function": None if self.function is None else _rounded(self.function.to_row()),
            "units": dict(UNITS),
            "wall_mm": None if wall is None else _rounded(wall.to_row()),
            "beat": None,
        }
        if beat is not None:
            curve = None if self.function is None else [round(volume, 2) for volume in beat.volumes]
            found["beat"] = {"ed": beat.ed, "es": beat.es, "counted_from": 0, "lv_volumes_ml": curve}
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
    masks: Any,
    loaded: LoadedStudy,
    *,
    algorithm: Algorithm,
    structures: tuple[str, ...] = HEART,
    failed: Mapping[int, str] | None = None,
    pair: Callable[[int, int], Any] | None = None,
    seen: tuple[int, float] | None = None,
) -> MeasuredStudy:
    """Measure the masks of a study.

    Args:
        masks: whole numbers on the grid of the study's cine: (T, X, Y, Z) all frames, or (2, X, Y, Z) end-diastole and
            end-systole.
        loaded: the study, as read from its files.
        algorithm: the model that made the masks.
        structures: names of the values from 1, LV among them.
        failed: by frame from 0, why it has no mask; then end-diastole and end-systole are not chosen by volume.
        pair: makes better masks (2, X, Y, Z) of the two chosen frames, which take the place of those given; None keeps
            those.
        seen: number of slices that the model's network looks at, and their distance in mm; None: all.

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
    failed = dict(failed or {})
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    spacing = (x, y, z)
    moving = values if choice is not None and len(values) == cine.shape[3] else None
    beat = None if moving is None or failed else _beat(moving, spacing=spacing, structures=structures)
    ed = es = None
    if choice is not None:
        by = choice if beat is None or choice.by_person else beat
        ed, es = by.ed, by.es
    lost = tuple(
        f"{phase} ({_called(frame, choice)}) has no outlines: {failed[frame]}"
        for phase, frame in (("end-diastole", ed), ("end-systole", es))
        if frame is not None and frame in failed
    )
    found = values
    if moving is not None and ed is not None and es is not None:
        found = moving[[ed, es]] if pair is None or lost else checked_mask(pair(ed, es), structures, axes=4)
        moving = moving.copy()
        moving[[ed, es]] = found
        if beat is not None:
            beat = replace(beat, volumes=tuple(_curve(moving, spacing=spacing, structures=structures).tolist()))
    oriented = loaded.orientation == KNOWN
    given = given_numbers(
        found,
        spacing=spacing,
        structures=structures,
        oriented=oriented,
        seen=seen,
        besides=() if loaded.incomplete is None else (loaded.incomplete,),
    )
    walled = MYO in structures and not lost
    return MeasuredStudy(
        masks=found,
        affine=affine,
        structures=structures,
        function=None if lost else given.function,
        no_volume_because=lost or given.no_volume_because,
        wall=wall_thickness(found[0], spacing=spacing, structures=structures, oriented=oriented) if walled else None,
        algorithm=algorithm,
        frames=choice,
        ed=ed,
        es=es,
        failed=failed,
        stack=loaded.stack,
        beat=beat,
        moving=moving,
    )


def _called(frame: int, choice: FrameChoice | None) -> str:
    """A frame for display, counted from 1."""
    return f"frame {frame + 1}" if choice is None else choice.called(frame)


def _curve(moving: np.ndarray, *, spacing: tuple[float, float, float], structures: tuple[str, ...]) -> np.ndarray:
    return volumes_ml(moving, structures=structures, spacing=spacing)[:, (value_of(LV, structures) or 1) - 1]


def _beat(moving: np.ndarray, *, spacing: tuple[float, float, float], structures: tuple[str, ...]) -> BeatFrames | None:
    curve = _curve(moving, spacing=spacing, structures=structures)
    return beat_frames(curve) if np.ptp(curve) > 0 else None


def _rounded(row: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 2) for name, value in row.items()}
