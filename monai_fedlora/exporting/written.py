"""Read a written bundle back as its users do, and compare it with the network in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

from torch import nn

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.answer import Answer
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.classifier import quiet_torch
from monai_fedlora.exporting.exported_program import program_probes, read_program
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.exporting.onnx_file import onnx_logits
from monai_fedlora.exporting.usage import ONNX, PROGRAM
from monai_fedlora.exporting.verify import assert_equal, assessed, logits


def check_models(folder: Path, network: nn.Module, modality: Modality, answer: Answer) -> None:
    """Compare every model file with the network in memory on two images.

    Args:
        folder: the bundle.
        network: the network that the files were written from.
        modality: kind of its images.
        answer: what it answers.

    Raises:
        ExportError: a file gives other logits or masks, or holds another metadata or configuration.
    """
    eager = answer.whole(network, modality)
    if modality.scripted:
        _check_script(_script(folder), eager, modality, answer)
    if (folder / PROGRAM).exists():
        with quiet_torch():
            program = read_program(folder / PROGRAM)
        same = network if modality.plain_preprocessor() is None else eager
        for image in program_probes(modality):
            assert_equal(logits(program, image), logits(same, image), "the exported program gives other logits")
    if (folder / ONNX).exists():
        for image in starmap(modality.preprocessor(), modality.raw_probes()):
            assert_equal(onnx_logits(folder / ONNX, image), logits(network, image), "the ONNX file gives other logits")


def _check_script(script: nn.Module, eager: nn.Module, modality: Modality, answer: Answer) -> None:
    for inputs in modality.raw_probes():
        answer.compare(logits(script, *inputs), logits(eager, *inputs), "the TorchScript module")
        if hasattr(eager, "assess"):
            for found, expected in zip(assessed(script, *inputs), assessed(eager, *inputs), strict=True):
                assert_equal(found, expected, "the TorchScript module gives other logits or distances")


def check_passes(folder: Path, *, keys: Sequence[PublicKey] = ()) -> None:
    """Run ``monai-fedlora check`` on a bundle that was just written.

    Args:
        folder: the bundle.
        keys: the public half of the key that signed it; empty for an unsigned bundle.

    Raises:
        ExportError: the bundle does not pass.
    """
    if findings := check_bundle(folder, keys=keys).findings:
        problems = "; ".join(f"{finding.file} {finding.problem}" for finding in findings[:3])
        raise ExportError(f"the bundle does not pass its own check: {problems}; nothing was written")


def _script(folder: Path) -> nn.Module:
    """Load the scripted model through MONAI, and compare the metadata and configuration inside with the files."""
    from monai.bundle import load

    with quiet_torch():
        loaded: Any = load(
            folder.name, bundle_dir=folder.parent, load_ts_module=True, device="cpu", config_files=("inference.json",)
        )
    script, metadata, extra = loaded
    for name, found in (("metadata", metadata), ("inference", json.loads(extra["inference.json"]))):
        if found != json.loads((folder / "configs" / f"{name}.json").read_text(encoding="utf-8")):
            raise ExportError(f"model.ts carries another {name}.json than the bundle; nothing was written")
    return script
