"""Exports for cine cardiac MRI: pairs of ED and ES stacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Spacingd
from torch import Tensor, nn

from monai_fedlora.export.foreign import CINE
from monai_fedlora.export.modality import Modality, Reading
from monai_fedlora.export.verify import probe_image
from monai_fedlora.transforms.cine import LoadCined, spacing_arguments
from monai_fedlora.transforms.localise import CinePreprocessor


class CheckedCine(nn.Module):
    """Find the heart and normalise, or refuse images that cannot be a patient's.

    Args:
        preprocessor: maps (B, 2, X, Y, Z) of any size to the network's input.
    """

    def __init__(self, preprocessor: nn.Module) -> None:
        super().__init__()
        self.preprocessor = preprocessor

    def forward(self, image: Tensor) -> Tensor:
        """Prepare ED and ES.

        Args:
            image: (B, 2, X, Y, Z) grey levels of any scale, end-diastole first, slices on the last axis, resampled
                to the voxel size that the bundle's metadata names.

        Returns:
            What the network takes.

        Raises:
            ValueError: the shape is another, a voxel is not finite, or a frame is blank.
        """
        if image.dim() != 5 or image.shape[1] != 2:
            raise ValueError("expected (batch, 2, X, Y, Z): the end-diastolic and the end-systolic frame as channels")
        if not bool(torch.isfinite(image).all()):
            raise ValueError("the image has voxels that are not finite numbers; export it again from the source")
        rounding = 1e-5  # of a resampled constant image, relative to its level
        frames = image.flatten(2)
        contrast = frames.amax(dim=2) - frames.amin(dim=2)
        if bool((contrast <= rounding * frames.abs().amax(dim=2)).any()):
            raise ValueError("a frame is blank: all its voxels are equal; check the files")
        return self.preprocessor(image)


@dataclass(frozen=True, kw_only=True)
class Cine(Modality):
    """ED and ES of a short-axis cine as two channels.

    Args:
        spacing: voxel size (x, y, z) of the network's input in mm.
    """

    spacing: tuple[float, float, float]
    channels = 2
    packages = ("nibabel",)
    foreign = CINE
    phantom = "cine"
    data_type = "nifti"
    image_classes = "channel 0 is end-diastole, channel 1 is end-systole"
    limitations = (
        "The two frames must be end-diastole first, end-systole second, of one acquisition on one grid, with the "
        "slices on the last axis; other orders are not detected.",
        "The heart is found by what moves between the two frames; a moving chest or mismatched frames can mislead it.",
    )

    @property
    def subject(self) -> str:
        """The images in words."""
        return "short-axis cine cardiac MRI"

    @property
    def processing(self) -> str:
        """What the exported model does with a study."""
        return (
            "It takes the end-diastolic and the end-systolic short-axis stack, finds the heart, normalises the grey "
            "levels and classifies the study."
        )

    @property
    def input_text(self) -> str:
        """What the exported model takes, for the model card."""
        return (
            f"Two channels: {self.image_classes}. Any size, resampled to "
            f"{' x '.join(f'{step:g}' for step in self.spacing)} mm by the inference configuration. The model crops "
            f"{' x '.join(map(str, self.architecture.image_size))} voxels around the heart and normalises each frame "
            "itself."
        )

    def input_format(self) -> dict[str, Any]:
        """What the exported model takes, in the words of MONAI's metadata."""
        return {
            "format": "magnitude",
            "modality": "MR",
            "spatial_shape": ["*", "*", "*"],
            "value_range": [],
            "channel_def": {"0": "end-diastole", "1": "end-systole"},
            "spacing_mm": list(self.spacing),
        }

    def preprocessor(self) -> nn.Module:
        """Normalisation around the heart."""
        x, y, z = self.architecture.image_size
        return CheckedCine(CinePreprocessor((x, y, z), self.spacing[0]))

    def raw_probes(self) -> list[Tensor]:
        """A larger and a narrower stack."""
        x, y, z = self.architecture.image_size
        sizes = (x + x // 4, y + y // 3, z + 2), (x - x // 8, y + 5, max(z - 1, 1))
        return [1000 * probe_image((self.channels, *size)) for size in sizes]

    def image(self, item: Mapping[str, Any]) -> Tensor:
        """ED and ES on the network's grid."""
        resample = Spacingd(keys="image", **spacing_arguments(self.spacing))
        image = resample(LoadCined()(dict(item.items())))["image"]
        return image.as_tensor() if isinstance(image, MetaTensor) else image

    def reading(self) -> Reading:
        """Pairs of files, see :func:`cine_reading`."""
        return cine_reading(self.spacing)

    @property
    def folder_text(self) -> str:
        """How a user lays out the folder of studies."""
        return (
            "Put each study's two frames into one folder, as `<study>_ed.nii.gz` (end-diastole) and "
            "`<study>_es.nii.gz`\n(end-systole)"
        )

    @property
    def tensor_text(self) -> str:
        """What the scripted model takes."""
        return "a float tensor (batch, 2, X, Y, Z) resampled to the spacing below"


def cine_reading(spacing: Sequence[float]) -> Reading:
    """Read every ``<study>_ed.nii.gz`` with its ``<study>_es.nii.gz``.

    Studies are the names of both kinds of file, so that a missing partner is looked for and named by the reader;
    an empty folder is one study called ``*``, which fails in the same way. The two files are read as one image,
    for which MONAI's reader demands equal affines and sizes.

    Args:
        spacing: voxel size (x, y, z) of the network's input in mm.
    """
    return Reading(
        imports=("$import pathlib",),
        entries={
            "folder": "$pathlib.Path(@dataset_dir)",
            "endings": ["_ed.nii.gz", "_es.nii.gz"],
            "studies": "$sorted({path.name[:-10] for path in @folder.glob('*_e[ds].nii.gz')}) or ['*']",
            "datalist": "$[{'study': study, 'image': [str(@folder / (study + ending)) for ending in @endings]} "
            "for study in @studies]",
        },
        transforms=(
            {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Spacingd", "keys": "image", **spacing_arguments(spacing)},
            {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
        ),
    )
