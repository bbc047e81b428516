"""A network's masks of a cine study, and those of its reader, on all slices of the study's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.measures.given_numbers import GivenNumbers, given_numbers, shared_slices_reason
from monai_fedlora.transforms.frames import Frame, join_frames, read_frames, shared_slices
from monai_fedlora.transforms.mask_grid import restore_labels
from monai_fedlora.transforms.mask_reading import read_both_masks
from monai_fedlora.transforms.orientation import is_known


@dataclass(frozen=True, kw_only=True)
class CineFiles:
    """The frames of a study, as they lie in its files.

    Attributes:
        ed, es: in the canonical order of axes, with all slices; the two may differ in their number.
    """

    ed: Frame
    es: Frame

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> CineFiles:
        """Read them; ``item`` and errors are those of `frames.read_frames`."""
        ed, es = read_frames(item)
        return cls(ed=ed, es=es)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the canonical axes in mm, the last one the slice distance."""
        x, y, z = (float(step) for step in np.linalg.norm(self.ed.affine[:3, :3], axis=0))
        return x, y, z

    def restored(self, scores: Tensor, *, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        """A network's output as one mask for each frame, (X, Y, Z) uint8 on all slices of the frame.

        Slices without a partner in the other frame, which the network has not seen, are background.

        Args:
            scores: (2, C, x, y, z) probabilities of the background and the structures on the network's grid.
            spacing: voxel size (x, y, z) of the network's grid in mm.
        """
        voxels, affine = join_frames(self.ed, self.es)
        x, y, z = (float(step) for step in spacing)
        found = restore_labels(scores, torch.from_numpy(voxels), torch.from_numpy(affine), (x, y, z)).numpy()
        whole = []
        for frame, mask, part in zip((self.ed, self.es), found, shared_slices(self.ed, self.es), strict=True):
            label = np.zeros(frame.voxels.shape, np.uint8)
            label[..., part] = mask
            whole.append(label)
        return whole[0], whole[1]

    def drawn(self, item: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """The masks of a study's reader, as :meth:`restored` gives those of a network.

        Args:
            item: with what `mask_reading.read_masks` needs.

        Raises:
            DataError: see `mask_reading.read_masks`.
        """
        ed, es = read_both_masks(item, self.ed, self.es)
        return ed, es

    def together(self, masks: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Both frames' masks at the same positions, (2, X, Y, Z); slices that a frame lacks are background."""
        of_ed, of_es = shared_slices(self.ed, self.es)
        offset = of_ed.start - of_es.start  # slice 0 of ES lies at this slice of ED
        first = min(0, offset)
        count = max(masks[0].shape[2], masks[1].shape[2] + offset) - first
        joined = np.zeros((2, *masks[0].shape[:2], count), np.uint8)
        for frame, (mask, start) in enumerate(zip(masks, (0, offset), strict=True)):
            joined[frame, ..., start - first : start - first + mask.shape[2]] = mask
        return joined

    def given(
        self, masks: tuple[np.ndarray, np.ndarray], *, structures: Sequence[str], seen: tuple[int, float]
    ) -> GivenNumbers:
        """The numbers of a heart that are given to a reader of :meth:`restored` masks, or why there are none.

        Args:
            masks: of end-diastole and end-systole.
            structures: names of the values from 1.
            seen: number of slices of the network's grid, and their distance in mm.
        """
        of_ed, of_es = shared_slices(self.ed, self.es)
        pair = np.stack([masks[0][..., of_ed], masks[1][..., of_es]])
        dropped = shared_slices_reason(masks[0].shape[2], masks[1].shape[2], pair.shape[3])
        return given_numbers(
            pair,
            spacing=self.spacing,
            structures=structures,
            oriented=is_known(torch.from_numpy(self.ed.affine), list(self.ed.voxels.shape)),
            seen=seen,
            besides=() if dropped is None else (dropped,),
        )


def in_order_of_file(mask: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """A mask of a frame in the order of axes of the frame's file, and the file's affine.

    Args:
        mask: (X, Y, Z) in the canonical order.
        frame: whose mask it is.
    """
    ours, theirs = (matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (frame.affine, frame.stored))
    cosines = ours.T @ theirs  # of the canonical axes with the file's, of which the canonical order is a reordering
    axes = np.abs(cosines).argmax(axis=1)
    backwards = cosines[np.arange(3), axes] < 0
    flipped = mask[tuple(slice(None, None, -1) if back else slice(None) for back in backwards)]
    return np.ascontiguousarray(np.transpose(flipped, np.argsort(axes))), frame.stored
