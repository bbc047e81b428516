"""Open an exported bundle that outlines hearts, without training code; see `bundle` for those that classify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.clinic.bundle import (
    MODEL_NAME,
    Classifier,
    bundle_texts,
    checked_files,
    classifier_of,
    device_of,
    gives_masks,
    load_script,
    run_module,
    voxel_size,
)
from monai_fedlora.clinic.trust import Trust, read_trust
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.studies.study import CINE
from monai_fedlora.transforms.orientation import is_known, reading_order, reference_affine


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """An exported segmentation model of cines, ready to use.

    Attributes:
        path: the bundle.
        name: from its metadata.
        version: from its metadata.
        sha256: of ``models/model.ts``, which holds weights, preprocessing and metadata.
        structures: names of the values of a mask from 1.
        spacing: voxel size (x, y, z) of the network's grid in mm.
        slices: that the network looks at, ``spacing[2]`` mm apart; of a longer stack those in the middle.
        script: the TorchScript module.
        device: where the module runs.
        trust: what is known about unusual images and training data.
        metadata: content of ``configs/metadata.json``.
    """

    path: Path
    name: str
    version: str
    sha256: str
    structures: tuple[str, ...]
    spacing: tuple[float, float, float]
    slices: int
    script: torch.jit.ScriptModule
    device: torch.device
    trust: Trust = field(default_factory=Trust)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    modality = CINE
    style = None
    resampling = None
    takes_affine = True

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
        found = run_module(self.script, moved, affine.expand(len(pairs), 4, 4), device=self.device).cpu()
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
        return _segmenter_of(bundle, contents, device)


def open_model(
    path: str | Path, *, keys: Sequence[PublicKey] = (), device: torch.device | str | None = None
) -> Classifier | Segmenter:
    """Open a bundle of either kind; arguments and errors as of `bundle.open_bundle`."""
    with checked_files(path, keys=keys) as (bundle, contents):
        make = _segmenter_of if gives_masks(bundle_texts(contents)[0]) else classifier_of
        return make(bundle, contents, device)


def _segmenter_of(bundle: Path, contents: Contents, given: torch.device | str | None) -> Segmenter:
    metadata, _ = bundle_texts(contents)
    place = device_of(given)
    try:
        image = metadata["network_data_format"]["inputs"]["image"]
        if not gives_masks(metadata) or image["modality"] != "MR":
            raise ConfigError(f"{bundle} does not outline hearts; give a bundle of a segmentation model of cines")
        values = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        script = load_script(contents, bundle, place)
        return Segmenter(
            path=bundle,
            name=str(metadata["name"]),
            version=str(metadata["version"]),
            sha256=contents.digests[MODEL_NAME],
            structures=tuple(str(values[str(value)]) for value in range(1, len(values))),
            spacing=voxel_size(image),
            slices=int(script.size[2]),
            script=script,
            device=place,
            trust=read_trust(metadata),
            metadata=metadata,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{bundle} is not what monai-fedlora export writes: {error!r} is missing") from error
