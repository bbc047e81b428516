"""Outline a heart in every frame of a study with a segmentation model, and measure it.

The model takes a pair of frames, end-diastole (ED) and end-systole (ES). Of a whole cine every frame is outlined: one
whose area of blood is nearer to that of ED takes the place of ED in the pair, any other that of ES, so that the two
frames of every pair differ as those that the model learned from do, and the heart is found by what moves between them.
ED and ES are then the frames with the largest and the smallest volume of the left ventricle, or those that a person
chose, and are outlined once more as the pair that they are: numbers and outlines are of this pair. Where the
orientation of the patient is unknown, the answers to all orders of the axes are averaged for this pair; the other
frames, which give the curve and the moving outlines, are outlined in the first order alone (all ours).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.clinic.disagreement import disagreements
from monai_fedlora.clinic.measured_study import MeasuredStudy, measure_study
from monai_fedlora.clinic.placement import KNOWN
from monai_fedlora.clinic.prediction import NOT_FOR_CLINICAL_USE, Prediction
from monai_fedlora.clinic.reading import LoadedStudy, TakesStudies
from monai_fedlora.clinic.sr_parts import Algorithm
from monai_fedlora.clinic.state import state_of
from monai_fedlora.clinic.trust import Trust
from monai_fedlora.errors import DataError
from monai_fedlora.measures.masks import value_of
from monai_fedlora.measures.structures import LV
from monai_fedlora.transforms.orientation import N_ORDERS

AT_ONCE = 4
"""Pairs per batch (ours)."""
_ONE_ORDER = (
    f"the file does not tell how the patient lies: all frames are outlined in one of the {N_ORDERS} ways in which the "
    "axes may lie, and by these volumes end-diastole and end-systole are chosen; these two are then outlined in all "
    "ways, and averaged"
)


class Outliner(TakesStudies, Protocol):
    """A segmentation model of hearts.

    Attributes:
        version: from its metadata.
        sha256: of ``models/model.ts``.
        structures: names of the values of a mask from 1.
        slices: that the network looks at, ``spacing[2]`` mm apart; of a longer stack those in the middle.
        trust: what is known about unusual images and training data.
        metadata: content of ``configs/metadata.json``.
    """

    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def structures(self) -> tuple[str, ...]: ...
    @property
    def slices(self) -> int: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...

    def masks(self, pairs: Tensor, affine: Tensor, *, every_order: bool = True) -> Tensor:
        """Outline pairs of frames.

        Args:
            pairs: (B, 2, X, Y, Z) grey levels of end-diastole and end-systole.
            affine: (4, 4) voxel to world in mm.
            every_order: whether to average over all orders of the axes if the affine does not tell the orientation.

        Returns:
            (B, 2, X, Y, Z) whole numbers on the same grid: 0 background, 1 to K the structures.

        Raises:
            DataError: the model refuses a pair.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class OutlinedHeart:
    """What the outlines of a study say, beside its class if it has one.

    Attributes:
        measured: masks, volumes, function and wall.
        outliner: the model of the outlines.
        cine: (X, Y, Z, T) grey levels; end-diastole and end-systole for two files.
        doubts: reasons why the outlines may mean nothing, of the model and of the study.
        notes: remarks on how the outlines were made.
        disagreements: sentences, where the class does not go with the numbers; empty without a class.
    """

    measured: MeasuredStudy
    outliner: Outliner
    cine: np.ndarray
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """Whether the outlines can be relied on, see :mod:`monai_fedlora.clinic.state`."""
        return state_of(self.doubts, self.outliner.trust.blind)

    def sentences(self) -> tuple[str, ...]:
        """Numbers, or why there are none, disagreements, doubts and notes for display."""
        doubts = (f"The outlines are doubtful because {doubt}." for doubt in self.doubts)
        notes = (f"Note: {note}." for note in self.notes)
        return (*self.disagreements, *self.measured.sentences(), *doubts, *notes)

    def to_json(self) -> dict[str, Any]:
        """Everything but masks and outlines, for a JSON file. It names no patient and no file."""
        trust, model = self.outliner.trust, self.measured.algorithm
        return {
            **self.measured.to_json(),
            "sentences": list(self.measured.sentences()),
            "disagreements": list(self.disagreements),
            "state": self.state,
            "doubts": list(self.doubts),
            "notes": list(self.notes),
            "trained_on": trust.origin.to_json(),
            "model": {"name": model.name, "version": model.version, "sha256": model.sha256},
        }


def outline_study(
    outliner: Outliner,
    loaded: LoadedStudy,
    *,
    prediction: Prediction | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> OutlinedHeart:
    """Outline and measure a study that was read.

    Args:
        outliner: the model.
        loaded: a cine.
        prediction: the class of the same study, to compare the numbers with.
        on_batch: called before every batch; an exception that it raises ends the work.

    Raises:
        DataError: the model refuses the pair that the numbers are to be of, or it has no left ventricle among its
            structures.
    """
    cine, affine = loaded.cine, loaded.cine_affine
    if cine is None or affine is None:
        raise DataError(f"{outliner.name} outlines short-axis cines, and this is none")
    if LV not in outliner.structures:
        raise DataError(
            f"{outliner.name} outlines {', '.join(outliner.structures)}; volumes need {LV} among its structures"
        )
    matrix = torch.from_numpy(affine)

    def outlined(ed: int, es: int) -> np.ndarray:
        on_batch()
        pair = torch.from_numpy(np.ascontiguousarray(np.stack([cine[..., ed], cine[..., es]])[None]))
        return outliner.masks(pair, matrix)[0].cpu().numpy()

    algorithm = algorithm_of(outliner)
    seen = None if outliner.spacing is None else (outliner.slices, outliner.spacing[2])
    if loaded.frames is None:
        measured = measure_study(outlined(0, 1), loaded, algorithm=algorithm, structures=outliner.structures, seen=seen)
    else:
        moving, failed = outline_frames(outliner, loaded, on_batch=on_batch)
        measured = measure_study(
            moving,
            loaded,
            algorithm=algorithm,
            structures=outliner.structures,
            failed=failed,
            pair=outlined,
            seen=seen,
        )
    return describe(outliner, measured, loaded, prediction=prediction)


def describe(
    outliner: Outliner, measured: MeasuredStudy, loaded: LoadedStudy, *, prediction: Prediction | None
) -> OutlinedHeart:
    """What was measured, with what is known of the outlines; arguments as of :func:`outline_study`."""
    assert loaded.cine is not None
    notes = list(measured.not_found)
    if loaded.orientation != KNOWN and outliner.takes_affine and measured.moving is not None:
        notes.append(_ONE_ORDER)
    said = () if prediction is None else disagreements(prediction, measured)
    return OutlinedHeart(
        measured=measured,
        outliner=outliner,
        cine=loaded.cine,
        doubts=(*outliner.trust.origin.doubts(), *loaded.doubts),
        notes=(*notes, *outliner.trust.notes),
        disagreements=said,
    )


def outline_frames(
    outliner: Outliner, loaded: LoadedStudy, *, on_batch: Callable[[], None] = lambda: None
) -> tuple[np.ndarray, dict[int, str]]:
    """Outline every frame of a whole cine.

    Returns:
        Masks (T, X, Y, Z), and by frame from 0 why it has none; a frame without a left ventricle has none.
    """
    cine, affine, choice = loaded.cine, loaded.cine_affine, loaded.frames
    assert cine is not None and affine is not None and choice is not None
    matrix, frames = torch.from_numpy(affine), np.moveaxis(cine, 3, 0)
    pairs = frame_pairs(choice.areas, ed=choice.ed, es=choice.es)
    masks = np.zeros(frames.shape, dtype=np.uint8)
    failed: dict[int, str] = {}
    for first in range(0, len(pairs), AT_ONCE):
        wanted = range(first, min(first + AT_ONCE, len(pairs)))
        on_batch()
        for frame, found in _batch(outliner, frames, pairs, wanted, matrix):
            if isinstance(found, DataError):
                failed[frame] = str(found)
            else:
                masks[frame] = found[pairs[frame].index(frame)]
    lv = value_of(LV, outliner.structures)
    empty = [frame for frame in range(len(masks)) if frame not in failed and not (masks[frame] == lv).any()]
    return masks, failed | dict.fromkeys(empty, "no left ventricle was found")


def frame_pairs(areas: Sequence[float], *, ed: int, es: int) -> list[tuple[int, int]]:
    """For each frame the pair (ED, ES) of frame numbers in which it is outlined: it is one of the two.

    Args:
        areas: of blood by frame, see :func:`monai_fedlora.clinic.frames_choice.blood_areas`.
        ed, es: frames from 0.
    """
    full, small = areas[ed], areas[es]

    def pair(frame: int) -> tuple[int, int]:
        is_full = frame != es and abs(areas[frame] - full) <= abs(areas[frame] - small)
        return (frame, es) if frame == ed or is_full else (ed, frame)

    return [pair(frame) for frame in range(len(areas))]


def _batch(
    outliner: Outliner, frames: np.ndarray, pairs: Sequence[tuple[int, int]], wanted: Sequence[int], affine: Tensor
) -> Iterator[tuple[int, np.ndarray | DataError]]:
    """The masks of some pairs, or why there are none; a pair that is refused costs none of the others."""
    stacked = torch.from_numpy(np.stack([frames[list(pairs[frame])] for frame in wanted]))
    try:
        found = outliner.masks(stacked, affine, every_order=False).cpu().numpy()
        yield from zip(wanted, found, strict=True)
    except DataError as error:
        if len(wanted) == 1:
            yield wanted[0], error
            return
        for frame in wanted:
            yield from _batch(outliner, frames, pairs, [frame], affine)


def result_without_class(outliner: Outliner, loaded: LoadedStudy, *, name: str) -> dict[str, Any]:
    """The JSON result of a study of which nothing but the outlines is asked, without these.

    Args:
        outliner: the model.
        loaded: the study.
        name: of the study.
    """
    trust = outliner.trust
    doubts = (*trust.origin.doubts(), *loaded.doubts)
    return {
        "notice": NOT_FOR_CLINICAL_USE,
        "study": name,
        "probabilities": None,
        "state": state_of(doubts, trust.blind),
        "doubts": list(doubts),
        "notes": [*loaded.notes, *loaded.quotes],
        "left_out": [omission.to_json() for omission in loaded.omissions],
        "frames": {"how": "two files"} if loaded.frames is None else loaded.frames.to_json(),
        "orientation": loaded.orientation,
        "trained_on": trust.origin.to_json(),
    }


def algorithm_of(outliner: Outliner) -> Algorithm:
    """The model of the outlines, as DICOM objects name it."""
    return Algorithm(
        name=outliner.name, version=outliner.version, sha256=outliner.sha256, origin=outliner.trust.origin.summary
    )
