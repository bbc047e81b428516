"""Exports of a user's own network, which takes arrays of one shape."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from monai_fedlora.errors import DataError
from monai_fedlora.exporting.foreign import Kind
from monai_fedlora.exporting.modality import Modality, Reading

if TYPE_CHECKING:
    from monai_fedlora.exporting.finished import FinishedModel

ARRAY = "array"
"""The modality of arrays in a bundle's metadata."""


class CheckedArray(nn.Module):
    """Returns images unchanged, and raises an error for another shape or values that are not finite."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, image: Tensor) -> Tensor:
        """Return images (B, C, \\*spatial) unchanged.

        Raises:
            ValueError: they have another shape, or values that are not finite.
        """
        if tuple(image.shape[1:]) != self.shape:
            raise ValueError(f"expected images of shape {self.shape}, not {tuple(image.shape[1:])}")
        if not bool(torch.isfinite(image).all()):
            raise ValueError("an image holds NaN or infinite values")
        return image


@dataclass(frozen=True, kw_only=True)
class Arrays(Modality):
    """Arrays of one shape, which users have to prepare as the training cases were.

    Attributes:
        shape: (C, \\*spatial).
    """

    shape: tuple[int, ...]
    scripted = False
    start = "trained from a network of its makers' own"
    packages = ()
    data_type = "npy"
    image_classes = "channels as in the arrays that it was trained on"
    references = ()
    subject = "images"
    processing = "It takes an image as it was prepared for training, and {does} it."
    limitations = (
        "It takes arrays that were prepared as its training cases were; nothing in this folder prepares them, or tells "
        "one that was prepared otherwise.",
    )
    foreign: ClassVar[Mapping[str, Kind]] = {}

    @property
    def channels(self) -> int:
        """Number of channels, the first entry of the shape."""
        return self.shape[0]

    @property
    def image_size(self) -> tuple[int, ...]:
        """Spatial size, the further entries of the shape."""
        return self.shape[1:]

    @property
    def phantom(self) -> str:
        """There is no phantom of such arrays.

        Raises:
            DataError: always.
        """
        raise DataError("no phantom pictures the arrays of an own network")

    @property
    def input_text(self) -> str:
        """Description of the exported model's input, for the model card."""
        return (
            f"A float array of shape {self.shape}, channels first, prepared as the training cases were: the model "
            "itself changes nothing. The inference configuration reads one file for each study, as numpy.save writes "
            "it."
        )

    def input_format(self) -> dict[str, Any]:
        """Description of the exported model's input in MONAI's metadata."""
        return {
            "format": ARRAY,
            "modality": ARRAY,
            "spatial_shape": list(self.image_size),
            "value_range": [],
            "channel_def": {str(number): f"channel {number}" for number in range(self.channels)},
        }

    def preprocessor(self) -> nn.Module:
        """A check of shape and values; nothing is changed."""
        return CheckedArray(self.shape)

    def raw_probes(self) -> list[tuple[Tensor, ...]]:
        """Two arrays of noise."""
        return [(self.probe(),), (1 - self.probe(),)]

    def inputs(self, item: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Read the array of a datalist's item.

        Raises:
            DataError: the file holds no array, or one of another shape.
        """
        try:
            image = np.load(item["image"], allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise DataError(f"{item['image']} is no array as numpy.save writes it: {error}") from error
        if image.shape != self.shape:
            raise DataError(f"{item['image']} has the shape {image.shape}, and the model takes {self.shape}")
        return (torch.from_numpy(image),)

    def reading(self) -> Reading:
        """Reads every npy file of a folder."""
        return array_reading(self.shape)

    @property
    def folder_text(self) -> str:
        """How a user prepares a folder of studies, for the model card."""
        return (
            f"Put the images into one folder, each as an array of shape {self.shape} that `numpy.save` has written; "
            "each is a study,\ncalled by its name without the ending"
        )

    @property
    def tensor_text(self) -> str:
        """Input of the exported program."""
        return f"a float tensor (batch, {', '.join(map(str, self.shape))})"


@dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """A user's own network, for an export.

    Attributes:
        name: for documents.
        shape: of its images, (C, \\*spatial).
        keys: state-dict keys that it had before a method was attached.
        restored: function from a finished model to its adapted network in evaluation mode.
    """

    name: str
    shape: tuple[int, ...]
    keys: Collection[str]
    restored: Callable[[FinishedModel], nn.Module]


def array_reading(shape: Sequence[int]) -> Reading:
    """How the inference configuration reads every npy file of a folder, without pickles and of one shape only.

    It runs on the CPU, because a program of `torch.export` is bound to the device that it was exported on.

    Args:
        shape: of the images.
    """
    program = "torch.export.load(@bundle_root + '/models/model.pt2').module()"
    modes = "[vars(program).pop(name, None) for name in ('train', 'eval')]"
    reason = "'an array of shape ' + str(image.shape) + ', not ' + str(tuple(@image_shape)) + ', or not finite'"
    steps = (
        "$lambda path: np.load(path, allow_pickle=False).astype(np.float32)",
        "$lambda image: image if list(image.shape) == @image_shape and np.isfinite(image).all() else @refuse(image)",
    )
    return Reading(
        imports=("$import pathlib",),
        entries={
            "folder": "$pathlib.Path(@dataset_dir)",
            "image_shape": list(shape),
            "refuse": f"$lambda image: (_ for _ in ()).throw(ValueError({reason}))",
            "files": "$sorted(@folder.glob('[!.]*.npy')) or [@folder / '*.npy']",
            "datalist": "$[{'study': path.stem, 'image': str(path)} for path in @files]",
        },
        transforms=(
            *({"_target_": "Lambdad", "keys": "image", "func": step, "track_meta": False} for step in steps),
            {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
        ),
        network=f"$(lambda program: ({modes}, program)[1])({program})",
        device="$torch.device('cpu')",
    )
