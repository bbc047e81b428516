"""One TorchScript module from an image of any size to logits, that runs without this package."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import IO

import torch
from torch import nn

from monai_fedlora.export.modality import Modality


def eager_classifier(network: nn.Module, modality: Modality) -> nn.Module:
    """The module in plain Python, in evaluation mode."""
    return modality.classifier(network).eval()


def scripted_classifier(network: nn.Module, modality: Modality) -> torch.jit.ScriptModule:
    """The module in TorchScript: the preprocessor scripted, so that it takes any size, and the network traced."""
    example = torch.zeros(1, *modality.input_shape)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.", category=DeprecationWarning)
        traced = torch.jit.trace(network.eval(), example, check_trace=False)
        return torch.jit.script(eager_classifier(traced, modality))


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
