"""Open an exported bundle that outlines hearts, without training code; see `bundle` for those that classify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from monai_fedlora.clinic.answer_formats import gives_masks
from monai_fedlora.clinic.bundle import bundle_texts, checked_files
from monai_fedlora.clinic.opened_model import OpenedModel, device_of, settings_of
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.transforms.orientation import is_known, reading_order, reference_affine


@dataclass(frozen=True, kw_only=True)
class Segmenter(OpenedModel):
    """An exported segmentation model of cines.

    Attributes:
        structures: names of the values of a mask from 1.
        slices: that the network looks at, ``spacing[2]`` mm apart; of a longer stack those in the middle.
    """

    structures: tuple[str, ...]
    slices: int

    def masks(self, pairs: Tensor, affine: Tensor, *, every_order: bool = True) -> Tensor:
        """Outline pairs of frames on their own grid.

        Args:
            pairs: (B, 2, X, Y, Z) grey levels of any scale, end-diastole first, axes in any order, voxels of any size.
            affine: (4, 4) voxel to world in mm (right, anterior, superior), as in NIfTI.
            every_order: whether to average over all 16 orders of the axes if the affine does not tell the orientation,
                which takes 16 times as long; otherwise such pairs are outlined in the order of the file alone.

        Returns:
            (B, 2, X, Y, Z) uint8 on the CPU: 0 background, 1 to K the structures.

        Raises:
            DataError: the model refuses a pair, or the affine is invalid.
            OutOfMemory: memory ran out.
            FedLoraError: the GPU has failed.
        """
        shape = list(pairs.shape[2:])
        try:
            ordered = not every_order and not is_known(affine, shape)
            axes = reading_order(affine, shape)[0] if ordered else [0, 1, 2]
        except ValueError as error:
            raise DataError(f"the model refuses this image: {error}") from error
        if ordered:
            sizes = affine[:3, :3].double().square().sum(dim=0).sqrt()[axes].tolist()
            affine = reference_affine((sizes[0], sizes[1], sizes[2]))
        moved = pairs.permute(0, 1, *(axis + 2 for axis in axes)).contiguous()
        found = self.run(self.script, moved, affine.expand(len(pairs), 4, 4)).cpu()
        return found.permute(0, 1, *(axes.index(axis) + 2 for axis in range(3))).contiguous()


def open_segmenter(
    path: str | Path, *, keys: Sequence[PublicKey] = (), device: torch.device | str | None = None
) -> Segmenter:
    """Check and open a segmentation bundle, as `bundle.open_bundle` does one that classifies; arguments as there.

    Raises:
        ConfigError: this is no exported bundle, or its model gives no masks of cines.
        ExportError, WeightsError, OutOfMemory: as of `bundle.open_bundle`.
    """
    with checked_files(path, keys=keys) as (bundle, contents):
        return segmenter_of(bundle, contents, device_of(device))


def segmenter_of(bundle: Path, contents: Contents, device: torch.device) -> Segmenter:
    """The segmenter of a checked bundle.

    Raises:
        ConfigError, OutOfMemory, WeightsError: as of :func:`open_segmenter`.
    """
    metadata, inference = bundle_texts(contents)
    try:
        if not gives_masks(metadata) or metadata["network_data_format"]["inputs"]["image"]["modality"] != "MR":
            raise ConfigError(f"{bundle} does not outline hearts; give a bundle of a segmentation model of cines")
        values = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        settings = settings_of(bundle, contents, device, metadata=metadata, inference=inference)
        return Segmenter(
            structures=tuple(str(values[str(value)]) for value in range(1, len(values))),
            slices=int(settings["script"].size[2]),
            **settings,
        )
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ConfigError(f"{bundle} is not what monai-fedlora export writes: {error!r} is missing") from error
