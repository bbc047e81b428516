"""Replace the end-diastolic and end-systolic frame of a cine by frames that a person chose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monai_fedlora.clinic.frames_choice import check_frames
from monai_fedlora.clinic.plausible import cine_doubts
from monai_fedlora.clinic.reading import LoadedStudy, frame_chooser


def choose_again(loaded: LoadedStudy, *, ed: int, es: int) -> LoadedStudy:
    """Take other frames of a cine that was read.

    Doubts about the previous frames are dropped, and the new frames are examined. A note says that a person chose them,
    and which frames the program had found; figure, table and DICOM report show it.

    Args:
        loaded: the study with its grey levels; its frames may have been chosen before.
        ed: end-diastole, from 0.
        es: end-systole, from 0.

    Returns:
        The study without DICOM objects, because those belong to the previous frames.

    Raises:
        DataError: the numbers are equal, or not among the frames of the cine.
    """
    before, cine, affine = loaded.frames, loaded.cine, loaded.cine_affine
    assert before is not None and cine is not None and affine is not None and loaded.resampled is not None
    check_frames(ed, es, frames=cine.shape[3])
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    old, new = (
        cine_doubts(np.stack([cine[..., one], cine[..., other]]), spacing=(x, y, z))
        for one, other in ((before.ed, before.es), (ed, es))
    )
    chooser = frame_chooser(cine, loaded.resampled)
    found, chosen = (
        f"{before.called(one)} as ED and {before.called(other)} as ES"
        for one, other in ((before.ed, before.es), (ed, es))
    )
    return replace(
        loaded,
        image=chooser(ed, es),
        with_frames=chooser,
        frames=replace(
            before, ed=ed, es=es, how="chosen by a person", doubts=(), by_person=True, found=(before.ed, before.es)
        ),
        doubts=(*(doubt for doubt in loaded.doubts if doubt not in {*before.doubts, *old}), *new),
        notes=(*loaded.notes, f"a person chose {chosen}; the program had found {found} (counted from 1)"),
        sources=(),
    )
