"""Numbers of a heart from the masks of a data set, as what a regression learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_fedlora.data.records import FramePair, Photograph, Record
from monai_fedlora.errors import DataError
from monai_fedlora.measures.heart_function import heart_function
from monai_fedlora.transforms.frames import read_frames
from monai_fedlora.transforms.mask_reading import read_both_masks


def heart_values(record: Record, names: Sequence[str]) -> dict[str, float]:
    """Measure a patient's masks, on all slices of both stacks.

    Args:
        record: of a cine study with masks.
        names: of numbers of a :class:`~monai_fedlora.measures.heart_function.HeartFunction`.

    Raises:
        DataError: the masks cannot be read, or do not outline what a number needs; the message names a file.
    """
    assert record.masks is not None and not isinstance(record.images, Photograph)
    structures, files = tuple(record.masks.values), record.masks.files
    item: dict[str, object] = {"subject": record.subject, "mask_values": tuple(record.masks.values.values())}
    if isinstance(record.images, FramePair):
        item |= dict(zip(("ed", "es", "ed_mask", "es_mask"), (*record.files(), *files), strict=True))
    else:
        item |= {"cine": record.images.file, "ed_frame": record.images.ed, "es_frame": record.images.es}
        item["mask"] = files[0]
    ed, es = read_frames(item)
    both = read_both_masks(item, ed, es)
    slices = max(mask.shape[2] for mask in both)
    whole = np.stack([np.pad(mask, ((0, 0), (0, 0), (0, slices - mask.shape[2]))) for mask in both])
    spacing = np.linalg.norm(ed.affine[:3, :3], axis=0).tolist()
    found = heart_function(whole, spacing=spacing, structures=structures).to_row()
    if lacking := [name for name in names if found[name] is None]:
        raise DataError(
            f"{files[0]}: {lacking[0]} cannot be measured in masks of {', '.join(structures)}, or the ventricle is "
            "empty at end-diastole; name other values, or give a column of that name"
        )
    return {name: float(found[name] or 0.0) for name in names}
