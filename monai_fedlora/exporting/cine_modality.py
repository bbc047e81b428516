"""Exports for cine cardiac MRI: pairs of end-diastolic (ED) and end-systolic (ES) stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn

from monai_fedlora.exporting.foreign import CINE
from monai_fedlora.exporting.modality import BackboneModality, Reading
from monai_fedlora.exporting.verify import probe_image
from monai_fedlora.transforms.cine import LoadCined, ResampleCined
from monai_fedlora.transforms.grey_levels import FEWEST_LEVELS
from monai_fedlora.transforms.localise import CinePreprocessor

AFFINE = "second argument, (batch, 4, 4): voxel to world in mm, right, anterior, superior"
"""Description of the affine in the metadata; bundles whose module takes no affine have no such entry."""


class CheckedCine(nn.Module):
    """Check images, then reorder axes, resample, crop around the heart and normalise.

    Args:
        preprocessor: maps images (B, 2, X, Y, Z) of any size and affines (B, 4, 4) to the network's input.
    """

    def __init__(self, preprocessor: CinePreprocessor) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.fewest_levels = FEWEST_LEVELS

    def forward(self, image: Tensor, affine: Optional[Tensor] = None) -> Tensor:  # noqa: UP045  for TorchScript
        """Prepare ED and ES.

        Args:
            image: (B, 2, X, Y, Z) grey levels of any scale, end-diastole first, axes in any order, voxels of any size.
            affine: (B, 4, 4) voxel to world in mm (right, anterior, superior), as in NIfTI; None for images of unknown
                orientation that have the network's voxel size.

        Returns:
            Input of the network.

        Raises:
            ValueError: the shape is wrong, a voxel is not finite, a frame is blank or a label map, or the affine is
                invalid.
        """
        if image.dim() != 5 or image.shape[1] != 2:
            raise ValueError("expected (batch, 2, X, Y, Z): the end-diastolic and the end-systolic frame as channels")
        if affine is None:
            affine = self.preprocessor.unknown(image)
        if affine.dim() != 3 or affine.shape[0] != image.shape[0] or affine.shape[1] != 4 or affine.shape[2] != 4:
            raise ValueError("expected (batch, 4, 4): for every image its affine, from voxels to the patient in mm")
        if not bool(torch.isfinite(image).all()):
            raise ValueError("the image has voxels that are not finite numbers; export it again from the source")
        rounding = 1e-5  # of a resampled constant image, relative to its level
        frames = image.float().flatten(2)
        contrast = frames.amax(dim=2) - frames.amin(dim=2)
        if bool((contrast <= rounding * frames.abs().amax(dim=2)).any()):
            raise ValueError("a frame is blank: all its voxels are equal; check the files")
        ordered = frames.sort(dim=2)[0]
        levels = (ordered[:, :, 1:] != ordered[:, :, :-1]).sum(dim=2) + 1
        if bool((levels <= self.fewest_levels).any()):
            raise ValueError("a frame has so few different levels that it is a segmentation (label map) and no image")
        return self.preprocessor(image, affine)


@dataclass(frozen=True, kw_only=True)
class Cine(BackboneModality):
    """ED and ES of a short-axis cine as two channels.

    Args:
        spacing: voxel size (x, y, z) of the network's input in mm.
    """

    spacing: tuple[float, float, float]
    channels = 2
    takes_affine = True
    packages = ("nibabel",)
    foreign = CINE
    phantom = "cine"
    data_type = "nifti"
    image_classes = "channel 0 is end-diastole, channel 1 is end-systole"
    subject = "short-axis cine cardiac MRI"
    processing = (
        "It takes the end-diastolic and the end-systolic short-axis stack with their affine, brings the axes to one "
        "order, resamples, finds the heart, normalises the grey levels and {does} the study."
    )
    folder_text = (
        "Put each study's two frames into one folder, as `<study>_ed.nii.gz` (end-diastole) and `<study>_es.nii.gz`\n"
        "(end-systole)"
    )
    tensor_text = "a float tensor (batch, 2, X, Y, Z) and its affine (batch, 4, 4), voxels to world in mm as in NIfTI"
    limitations = (
        "The two frames must be end-diastole first, end-systole second, of one acquisition on one grid.",
        "Axes are brought to one order by the affine. Of a file whose affine does not tell how the patient lies (axes "
        "along the world's), the logits are averaged over all 16 orders; a wrong affine is not detected.",
        "The heart is found by what moves between the two frames; a moving chest or mismatched frames can mislead it.",
    )

    @property
    def input_text(self) -> str:
        """Description of the exported model's input, for the model card."""
        return (
            f"Two channels: {self.image_classes}, with the affine of the file. Any size, any order of the axes. The "
            f"model itself reorders the axes, resamples to {' x '.join(f'{step:g}' for step in self.spacing)} mm, "
            f"crops {' x '.join(map(str, self.architecture.image_size))} voxels around the heart and normalises each "
            "frame."
        )

    def input_format(self) -> dict[str, Any]:
        """Description of the exported model's input in MONAI's metadata."""
        return {
            "format": "magnitude",
            "modality": "MR",
            "spatial_shape": ["*", "*", "*"],
            "value_range": [],
            "channel_def": {"0": "end-diastole", "1": "end-systole"},
            "spacing_mm": list(self.spacing),
            "affine": AFFINE,
        }

    def preprocessor(self) -> CheckedCine:
        """Checks, orientation, resampling, crop around the heart and normalisation."""
        x, y, z = self.architecture.image_size
        return CheckedCine(CinePreprocessor((x, y, z), self.spacing))

    def raw_probes(self) -> list[tuple[Tensor, ...]]:
        """A larger stack in another order of axes, and a narrower one of unknown orientation."""
        x, y, z = self.architecture.image_size
        larger = 1000 * probe_image((self.channels, z + 2, y + y // 3, x + x // 4))
        narrower = 1000 * probe_image((self.channels, x - x // 8, y + 5, max(z - 1, 1)))
        step, distance = self.spacing[0], self.spacing[2]
        oblique = (
            torch.tensor(
                [[0.62, -0.34, 0.71, 10.0], [-0.62, 0.34, 0.71, 20.0], [0.48, 0.88, 0.0, 30.0], [0.0, 0.0, 0.0, 1.0]],
                dtype=torch.float64,
            )
            @ torch.tensor([distance, step, step, 1.0], dtype=torch.float64).diag()
        )
        along = torch.tensor([step, step, 0.9 * distance, 1.0], dtype=torch.float64).diag()
        return [(larger, oblique[None]), (narrower, along[None])]

    def inputs(self, item: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """ED and ES with the network's voxel size and canonical order of axes, and their affine."""
        image = ResampleCined(spacing=self.spacing)(LoadCined()(dict(item.items())))["image"]
        return image.as_tensor(), image.affine

    def reading(self) -> Reading:
        """Reads pairs of files, see :func:`cine_reading`."""
        return cine_reading()


def cine_reading() -> Reading:
    """How the inference configuration reads every ``<study>_ed.nii.gz`` with its ``<study>_es.nii.gz``.

    A study is listed if either file exists, so that a missing partner gives an error that names it; an empty folder is
    one study called ``*``, which fails in the same way. The two files are read as one image, for which MONAI's reader
    requires equal affines and sizes. The affine is the second argument of the model.
    """
    return Reading(
        imports=("$import pathlib",),
        entries=_PAIRS,
        transforms=(
            {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
        ),
        prepare_batch=(
            "$lambda batch, device, non_blocking, **kwargs: (batch['image'].as_tensor().to(device), None, "
            "(batch['image'].affine.to(device),), {})"
        ),
    )


def resampled_cine_reading(spacing: Sequence[float]) -> Reading:
    """How bundles read cines until November 2026: MONAI resamples, and the module takes no affine.

    Args:
        spacing: voxel size (x, y, z) of the network's input in mm.
    """
    return Reading(
        imports=("$import pathlib",),
        entries=_PAIRS,
        transforms=(
            {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {
                "_target_": "Spacingd",
                "keys": "image",
                "pixdim": [float(step) for step in spacing],
                "diagonal": False,
                "mode": "bilinear",
                "padding_mode": "border",
                "align_corners": True,
                "scale_extent": False,
                "dtype": "float32",
            },
            {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
        ),
    )


_PAIRS: Mapping[str, Any] = {
    "folder": "$pathlib.Path(@dataset_dir)",
    "endings": ["_ed.nii.gz", "_es.nii.gz"],
    "studies": "$sorted({path.name[:-10] for path in @folder.glob('*_e[ds].nii.gz')}) or ['*']",
    "datalist": "$[{'study': study, 'image': [str(@folder / (study + ending)) for ending in @endings]} "
    "for study in @studies]",
}
