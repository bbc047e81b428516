"""The exported model as a program of `torch.export`, for users who no longer want TorchScript.

Preprocessing that depends on the content of an image (finding the heart, finding the lit disc of the retina) cannot be
exported. There the program is the network alone, and takes prepared images of its fixed size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.classifier import Classifier
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.files import atomic_path
from monai_fedlora.out_of_memory import tell_out_of_memory

_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def write_program(network: nn.Module, modality: Modality, path: Path, *, metadata: Mapping[str, Any]) -> None:
    """Write ``model.pt2`` for batches of any length, with the metadata inside.

    The file holds no example input and no stack traces. Assertions on what an image shows stay on the CPU when the
    program is moved to a GPU, which a failed one would leave unusable.

    Args:
        network: maps prepared images to calibrated logits.
        modality: kind of its images.
        path: file to write.
        metadata: content of the bundle's ``metadata.json``.

    Raises:
        ExportError: `torch.export` cannot follow the network.
    """
    preprocessor = modality.plain_preprocessor()
    module = network if preprocessor is None else Classifier(preprocessor, network)
    first = program_probes(modality)[0]
    moving = (0,) if preprocessor is None else (0, *range(2, first.dim()))
    sizes = dict.fromkeys(moving, torch.export.Dim.DYNAMIC)
    try:
        with torch.no_grad():
            program = torch.export.export(
                module.eval().requires_grad_(False), (first.expand(2, *first.shape[1:]),), dynamic_shapes=(sizes,)
            )
    except Exception as error:
        tell_out_of_memory(error, "exporting the model as a program", "leave the program out")
        raise ExportError(
            f"torch.export cannot follow the network ({type(error).__name__}: {' '.join(str(error).split())[:300]}); "
            "take what depends on the values or the number of images out of its forward"
        ) from error
    if any(getattr(getattr(node.target, "_schema", None), "is_mutable", False) for node in program.graph.nodes):
        program = program.run_decompositions({})  # MONAI's blocks add in place, which the bundle check refuses
    for node in program.graph.nodes:
        for key in _TRACES:
            node.meta.pop(key, None)
        if node.target is torch.ops.aten.scalar_tensor.default:  # a number that is asserted stays where Python has it
            node.kwargs = {key: value for key, value in node.kwargs.items() if key not in ("device", "pin_memory")}
    program.example_inputs = None
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.export.save(program, stream, extra_files={"metadata.json": json.dumps(metadata)})


def read_program(path: Path) -> nn.Module:
    """Load ``model.pt2`` as a module."""
    return torch.export.load(str(path)).module()


def program_probes(modality: Modality) -> list[Tensor]:
    """Two test inputs (1, ...) of the program: raw images, or prepared ones if it has no preprocessing."""
    raw = modality.raw_probes()
    if modality.plain_preprocessor() is not None:
        return [image for (image,) in raw]
    prepare = modality.preprocessor().eval()
    with torch.no_grad():
        return [prepare(*inputs) for inputs in raw]
