"""What an export says and does differently for cines and for photographs."""

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
        entries: by name; ``datalist`` among them lists dictionaries with ``study`` and ``image``.
        transforms: from such a dictionary to a float tensor ``image`` (channels, \\*spatial), as the exported model
            takes it.
        prepare_batch: expression for what the model takes of a batch beside that; None for nothing.
        network: expression for the model.
        device: expression for where it computes.
    """

    imports: Sequence[str]
    entries: Mapping[str, Any]
    transforms: Sequence[Mapping[str, Any]]
    prepare_batch: str | None = None
    network: str = "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)"
    device: str = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"


@dataclass(frozen=True, kw_only=True)
class Modality(ABC):
    """A kind of image, as a network takes it.

    Attributes:
        scripted: whether there is a TorchScript module that takes raw images; without one the bundle's model is the
            program of `torch.export` behind the preprocessing.
        start: what the network was trained from, in words.
        takes_affine: whether the exported model takes the affine of an image too, see
            :mod:`monai_fedlora.transforms.orientation`.
        packages: what reading an image needs beside MONAI.
        data_type: of the files.
        image_classes: what the channels hold.
        limitations: of a model for such images, beside those of every model.
        foreign: from an image to one that the model was not made for, by kind.
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
        """Of an image."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, ...]:
        """Of what the network takes, without batch and channels."""

    @property
    @abstractmethod
    def references(self) -> tuple[str, ...]:
        """Publications of the network."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of what the network takes, without the batch."""
        return (self.channels, *self.image_size)

    def probe(self) -> Tensor:
        """(1, \\*input_shape) noise for the network."""
        return probe_image(self.input_shape)

    @property
    @abstractmethod
    def phantom(self) -> str:
        """Which of `monai_fedlora.data.site.PHANTOMS` pictures the same."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """The images in words, as in "research on ..."."""

    @property
    @abstractmethod
    def processing(self) -> str:
        """One sentence on what the exported model does with an image."""

    @property
    @abstractmethod
    def input_text(self) -> str:
        """What the exported model takes, for the model card."""

    @abstractmethod
    def input_format(self) -> dict[str, Any]:
        """What the exported model takes, in the words of MONAI's metadata."""

    @abstractmethod
    def preprocessor(self) -> nn.Module:
        """From images of any size, and affines where it takes them, to what the network takes.

        It refuses unusable images and can be scripted.
        """

    def plain_preprocessor(self) -> nn.Module | None:
        """The same as one fixed series of operations, which `torch.export` can follow; None where there is none."""
        return None

    @abstractmethod
    def raw_probes(self) -> list[tuple[Tensor, ...]]:
        """Noise of two sizes: what :meth:`preprocessor` takes."""

    @abstractmethod
    def inputs(self, item: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """Read a datalist's item (paths) into what the exported model takes, the image first, without the batch.

        Raises:
            DataError: a file cannot be used; the message names it.
        """

    @abstractmethod
    def reading(self) -> Reading:
        """How the inference configuration finds and reads images."""

    @property
    @abstractmethod
    def folder_text(self) -> str:
        """How a user lays out the folder of studies, for the model card."""

    @property
    @abstractmethod
    def tensor_text(self) -> str:
        """What the scripted model takes, for the model card."""


@dataclass(frozen=True, kw_only=True)
class BackboneModality(Modality):
    """A kind of image that a backbone of the catalogue takes.

    Attributes:
        architecture: of the backbone.
    """

    architecture: Architecture

    @property
    def image_size(self) -> tuple[int, ...]:
        """The backbone's."""
        return self.architecture.image_size

    @property
    def references(self) -> tuple[str, ...]:
        """The backbone's publication."""
        return (self.architecture.source,)
