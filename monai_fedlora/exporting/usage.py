"""Instructions for running an exported model, for its card and the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.exporting.answer import Answer
from monai_fedlora.exporting.modality import Modality

SCRIPT, WEIGHTS, PROGRAM, ONNX = "models/model.ts", "models/model.pt", "models/model.pt2", "models/model.onnx"


def inference_command(folder: Path) -> str:
    """The command line that classifies a folder of studies."""
    root = shlex.quote(str(folder))
    config = shlex.quote(str(folder / "configs" / "inference.json"))
    return (
        f"python -m monai.bundle run --config_file {config} --bundle_root {root} "
        "--dataset_dir STUDIES --output_dir PREDICTIONS"
    )


def model_files(modality: Modality, answer: Answer, *, program: bool, onnx: bool) -> dict[str, dict[str, Any]]:
    """Input and output of each model file, for the metadata.

    Args:
        modality: kind of the images.
        answer: what the model answers.
        program: whether there is a program of `torch.export`.
        onnx: whether there is an ONNX file.
    """
    raw = ["batch", modality.channels, *("*" for _ in modality.image_size)]
    prepared = ["batch", *modality.input_shape]
    inside = modality.plain_preprocessor() is not None
    rows = (
        (SCRIPT, modality.scripted, "TorchScript", True, answer.scripted_output),
        (WEIGHTS, True, "state dictionary", False, answer.plain_logits),
        (PROGRAM, program, "torch.export", inside, answer.logits),
        (ONNX, onnx, "ONNX", False, answer.logits),
    )
    return {
        path: {"format": kind, "preprocessing": whole, "input_shape": raw if whole else prepared, "output": output}
        for path, is_there, kind, whole, output in rows
        if is_there
    }


def usage_text(name: str, modality: Modality, answer: Answer, files: Mapping[str, Mapping[str, Any]]) -> str:
    """Instructions for running a bundle, as Markdown.

    Args:
        name: of its folder.
        modality: kind of its images.
        answer: what it answers.
        files: see :func:`model_files`.
    """
    needs = ", ".join(f"`{package}`" for package in ("torch", "monai", "pytorch-ignite", *modality.packages))
    return f"""\
Needs Python with {needs} and `fire`; nothing else of what it was trained with.
{modality.folder_text}, and run from anywhere, with `{name}` standing for the path of this folder:

    python -m monai.bundle run --config_file {name}/configs/inference.json --bundle_root {name} \\
        --dataset_dir STUDIES --output_dir PREDICTIONS

{answer.written_text(modality)} A study that cannot
be read or lacks one of its files ends none of the others: its row has an `error` that names the files instead, and
the run ends with an error once the table is written.

{_in_a_program(name, modality, answer)}

The other files hold the same model:

{_other_files(modality, answer, files)}

Before loading anything, `monai-fedlora check {name}` compares every file with `checksums.json` and looks for what a
model should not contain.
"""


def _in_a_program(name: str, modality: Modality, answer: Answer) -> str:
    if modality.scripted:
        return (
            f"In a program, `{SCRIPT}` takes {modality.tensor_text} and returns {answer.called}:\n\n"
            f'    network, metadata, _ = monai.bundle.load("{name}", bundle_dir="...", load_ts_module=True)'
        )
    return (
        f"In a program, `{PROGRAM}` takes {modality.tensor_text} and returns logits:\n\n"
        f'    network = torch.export.load("{name}/{PROGRAM}").module()'
    )


def _other_files(modality: Modality, answer: Answer, files: Mapping[str, Mapping[str, Any]]) -> str:
    size = " x ".join(map(str, modality.input_shape))
    prepared = (
        f"the network behind the preprocessing; it takes a batch of prepared images of {size}, as the scripted model's "
        "`preprocessor` gives them"
    )
    whole = "the whole model with the preprocessing inside, for images of any size"
    lines = [f"- `{WEIGHTS}`: the plain state dictionary of the network{answer.plain_remark}."]
    if PROGRAM in files and modality.scripted:
        program = whole if files[PROGRAM]["preprocessing"] else prepared
        lines.append(f"- `{PROGRAM}`, for `torch.export.load(...).module()`: {program}.")
    if ONNX in files:
        lines.append(f"- `{ONNX}`, input `image`, output `pred`: {prepared}.")
    return "\n".join(lines)
