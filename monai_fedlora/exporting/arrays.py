"""Exports of networks of one's own, which take images as a program has them: arrays of one shape."""

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
"""The modality of such images in a bundle's metadata."""


class CheckedArray(nn.Module):
    """Hands images on that have the network's shape and are finite."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, C, \\*spatial) as they are.

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
    """Arrays of one shape, prepared by whoever has them.

    Attributes:
        shape: (C, \\*spatial).
    """

    shape: tuple[int, ...]
    scripted = False
    start = "trained from a network of its makers' own"
    packages = ()
    data_type = "npy"
    image_classes = "channels as in the arrays that it was trained on"
    limitations = (
        "It takes arrays that were prepared as its training cases were; nothing in this folder prepares them, or tells "
        "one that was prepared otherwise.",
    )
    foreign: ClassVar[Mapping[str, Kind]] = {}

    @property
    def channels(self) -> int:
        """The first size."""
        return self.shape[0]

    @property
    def image_size(self) -> tuple[int, ...]:
        """The others."""
        return self.shape[1:]

    @property
    def references(self) -> tuple[str, ...]:
        """None that are known."""
        return ()

    @property
    def phantom(self) -> str:
        """None pictures the same."""
        raise DataError("no phantom pictures the arrays of an own network")

    @property
    def subject(self) -> str:
        """The images in words."""
        return "images"

    @property
    def processing(self) -> str:
        """What the exported model does with an image."""
        return "It takes an image as it was prepared for training, and classifies it."

    @property
    def input_text(self) -> str:
        """What the exported model takes, for the model card."""
        return (
            f"A float array of shape {self.shape}, channels first, prepared as the training cases were: the model "
            "itself changes nothing. The inference configuration reads one file for each study, as numpy.save writes "
            "it."
        )

    def input_format(self) -> dict[str, Any]:
        """What the exported model takes, in the words of MONAI's metadata."""
        return {
            "format": ARRAY,
            "modality": ARRAY,
            "spatial_shape": list(self.image_size),
            "value_range": [],
            "channel_def": {str(number): f"channel {number}" for number in range(self.channels)},
        }

    def preprocessor(self) -> nn.Module:
        """Nothing but a check."""
        return CheckedArray(self.shape)

    def raw_probes(self) -> list[tuple[Tensor, ...]]:
        """Noise, twice."""
        return [(self.probe(),), (1 - self.probe(),)]

    def inputs(self, item: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """One array.

        Raises:
            DataError: the file is none, or of another shape.
        """
        try:
            image = np.load(item["image"], allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise DataError(f"{item['image']} is no array as numpy.save writes it: {error}") from error
        if image.shape != self.shape:
            raise DataError(f"{item['image']} has the shape {image.shape}, and the model takes {self.shape}")
        return (torch.from_numpy(image),)

    def reading(self) -> Reading:
        """Every npy file of a folder."""
        return array_reading(self.shape)

    @property
    def folder_text(self) -> str:
        """How a user lays out the folder of studies."""
        return (
            f"Put the images into one folder, each as an array of shape {self.shape} that `numpy.save` has written; "
            "each is a study,\ncalled by its name without the ending"
        )

    @property
    def tensor_text(self) -> str:
        """What the model takes."""
        return f"a float tensor (batch, {', '.join(map(str, self.shape))})"


@dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """A network that is none of the catalogue, for an export.

    Attributes:
        name: what documents call it.
        shape: of its images, (C, \\*spatial).
        keys: of the state dictionary that it had before a method was attached.
        restored: the adapted network of a finished model, in evaluation mode.
    """

    name: str
    shape: tuple[int, ...]
    keys: Collection[str]
    restored: Callable[[FinishedModel], nn.Module]


def array_reading(shape: Sequence[int]) -> Reading:
    """Read every npy file of a folder, without pickles, and refuse those of another shape.

    The program of `torch.export` computes on the processor that it was written for.

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
