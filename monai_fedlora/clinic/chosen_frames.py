"""The same cine with end-diastole and end-systole that a person chose."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from monai_fedlora.clinic.frames_choice import check_frames
from monai_fedlora.clinic.plausible import cine_doubts
from monai_fedlora.clinic.reading import LoadedStudy, frame_chooser


def choose_again(loaded: LoadedStudy, *, ed: int, es: int) -> LoadedStudy:
    """Take other frames of a cine that was read.

    Doubts about the frames of before go, and those about the new ones come. That a person chose them, and which were
    found, stands in the notes and so in everything that is made of the answer.

    Args:
        loaded: with its grey levels; its frames may have been chosen already.
        ed: end-diastole, from 0.
        es: end-systole, from 0.

    Returns:
        The same, without DICOM objects: these are of the frames of before.

    Raises:
        DataError: these cannot be ED and ES of this cine.
    """
    before, cine, affine = loaded.frames, loaded.cine, loaded.cine_affine
    assert before is not None
    assert cine is not None
    assert affine is not None
    assert loaded.resampled is not None
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
