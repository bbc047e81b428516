"""One TorchScript module from resampled grey levels to logits, that runs without this package."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import IO

import torch
from torch import Tensor, nn

from monai_fedlora.networks.cinema import ConvViT, ConvViTSize
from monai_fedlora.transforms.localise import CinePreprocessor


class CineClassifier(nn.Module):
    """Normalisation and network in one; refuses images that cannot be a patient's.

    Args:
        preprocessor: maps (B, 2, X, Y, Z) of any size to the network's input.
        network: maps that to logits.
    """

    def __init__(self, preprocessor: nn.Module, network: nn.Module) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Classify ED and ES.

        Args:
            image: (B, 2, X, Y, Z) grey levels of any scale, end-diastole first, slices on the last axis, resampled
                to the voxel size that the bundle's metadata names.

        Returns:
            Logits (B, classes).

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
        return self.network(self.preprocessor(image))


def eager_classifier(network: ConvViT, size: ConvViTSize) -> CineClassifier:
    """The module in plain Python, in evaluation mode."""
    return CineClassifier(CinePreprocessor(size.image_size, size.spacing[0]), network).eval()


def scripted_classifier(network: ConvViT, size: ConvViTSize) -> torch.jit.ScriptModule:
    """The module in TorchScript: the preprocessor scripted, so that it takes any size, and the network traced."""
    example = torch.zeros(1, network.n_frames, *size.image_size)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
        traced = torch.jit.trace(network.eval(), example, check_trace=False)
        return torch.jit.script(eager_classifier(traced, size))


def copy_without_call_stacks(script: IO[bytes], target: Path) -> None:
    """Copy a saved TorchScript module, leaving out where each operation was written.

    TorchScript stores the call stack of every operation, with the full paths of this machine's source files, for
    error messages. The module computes the same without.

    Args:
        script: the saved module.
        target: file to write.
    """
    with zipfile.ZipFile(script) as source, zipfile.ZipFile(target, "w") as stripped:
        for record in source.infolist():
            if not record.filename.endswith(".debug_pkl"):
                stripped.writestr(record, source.read(record))
