"""The parts of an export that depend on the kind of image: cines, photographs, or arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from monai_fedlora.exporting.foreign import Kind
from monai_fedlora.exporting.verify import probe_image
from monai_fedlora.networks.catalogue import Architecture


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The part of an inference configuration that finds and reads files.

    Attributes:
        imports: import statements for its expressions.
        entries: entries of the configuration by name; ``datalist`` lists dictionaries with ``study`` and ``image``.
        transforms: from such a dictionary to a float tensor ``image`` (channels, \\*spatial), input of the exported
            model.
        prepare_batch: expression for further arguments of the model; None if it has none.
        network: expression for the model.
        device: expression for its device.
    """

    imports: Sequence[str]
    entries: Mapping[str, Any]
    transforms: Sequence[Mapping[str, Any]]
    prepare_batch: str | None = None
    network: str = "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)"
    device: str = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"


@dataclass(frozen=True, kw_only=True)
class Modality(ABC):
    """A kind of image, with the texts and preprocessing that an export needs.

    Attributes:
        scripted: whether there is a TorchScript module that takes raw images; otherwise the bundle's model is a program
            of `torch.export` that takes prepared ones.
        start: what the network was trained from, in words.
        takes_affine: whether the exported model also takes the affine of an image, see
            :mod:`monai_fedlora.transforms.orientation`.
        packages: packages for reading an image, besides MONAI.
        data_type: type of the files, for the metadata.
        image_classes: content of the channels, for the metadata.
        limitations: of a model for such images, in addition to those of every model.
        foreign: functions from an image to an unusual one, by kind.
    """

    scripted: ClassVar[bool] = True
    start: ClassVar[str] = "fine-tuned from a foundation model"
    takes_affine: ClassVar[bool] = False
    packages: ClassVar[tuple[str, ...]]
    data_type: ClassVar[str]
    image_classes: ClassVar[str]
    limitations: ClassVar[tuple[str, ...]]
    foreign: ClassVar[Mapping[str, Kind]]

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of channels of an image."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, ...]:
        """Spatial size of the network's input."""

    @property
    @abstractmethod
    def references(self) -> tuple[str, ...]:
        """Publications of the network."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the network's input, without the batch: (channels, \\*image_size)."""
        return (self.channels, *self.image_size)

    def probe(self) -> Tensor:
        """Noise (1, \\*input_shape) as an input of the network."""
        return probe_image(self.input_shape)

    @property
    @abstractmethod
    def phantom(self) -> str:
        """Name of the phantom in `monai_fedlora.data.site.PHANTOMS` with the same kind of image."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """The kind of image in words, as in "research on ..."."""

    @property
    @abstractmethod
    def processing(self) -> str:
        """One sentence on what the exported model does with an image, ``{does}`` in place of the last verb."""

    @property
    @abstractmethod
    def input_text(self) -> str:
        """Description of the exported model's input, for the model card."""

    @abstractmethod
    def input_format(self) -> dict[str, Any]:
        """Description of the exported model's input in MONAI's metadata."""

    @abstractmethod
    def preprocessor(self) -> nn.Module:
        """Module from raw images (and their affines, if it takes them) to the network's input.

        It raises an error for unusable images, and can be scripted.
        """

    def plain_preprocessor(self) -> nn.Module | None:
        """The same preprocessing as a fixed series of operations for `torch.export`; None if that is not possible."""
        return None

    @abstractmethod
    def raw_probes(self) -> list[tuple[Tensor, ...]]:
        """Two test inputs (1, ...) of different size for :meth:`preprocessor`."""

    @abstractmethod
    def inputs(self, item: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Read a datalist's item (paths) into the arguments of the exported model, the image first, without the batch.

        Raises:
            DataError: a file cannot be used; the message names it.
        """

    @abstractmethod
    def reading(self) -> Reading:
        """How the inference configuration finds and reads images."""

    @property
    @abstractmethod
    def folder_text(self) -> str:
        """How a user prepares a folder of studies, for the model card."""

    @property
    @abstractmethod
    def tensor_text(self) -> str:
        """Type and shape of the exported model's input, for the model card."""


@dataclass(frozen=True, kw_only=True)
class BackboneModality(Modality):
    """A kind of image for the backbones of the catalogue.

    Attributes:
        architecture: of the backbone.
    """

    architecture: Architecture

    @property
    def image_size(self) -> tuple[int, ...]:
        """Spatial size of the backbone's input."""
        return self.architecture.image_size

    @property
    def references(self) -> tuple[str, ...]:
        """The backbone's publication."""
        return (self.architecture.source,)
