"""The network of an exported model as an ONNX file, which takes prepared images."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.files import atomic_path

_OPSET = 20
_LARGEST = 2**31 - 1  # bytes of a protocol buffer


def write_onnx(network: nn.Module, modality: Modality, path: Path) -> None:
    """Write ``model.onnx``: input ``image`` (batch, \\*the network's input shape), output ``pred`` (batch, classes).

    The file holds all of its tensors (no external data) and no stack traces.

    Raises:
        ConfigError: the packages of the extra ``onnx`` are not installed.
        ExportError: the network is too large for one file.
    """
    try:
        import onnxscript  # noqa: F401  (torch writes ONNX with it)
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; install monai-fedlora[onnx] to write ONNX files") from error
    if sum(tensor.nbytes for tensor in network.state_dict().values()) > _LARGEST:
        raise ExportError("the network is larger than 2 GB, which one ONNX file cannot hold; leave --onnx out")
    example = torch.zeros(2, *modality.input_shape)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval().requires_grad_(False),
            (example,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=["image"],
            output_names=["pred"],
            opset_version=_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # of the dynamo exporter
    model = program.model_proto
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def onnx_logits(path: Path, image: Tensor) -> Tensor:
    """Logits (batch, classes) that onnxruntime computes for prepared images, on the CPU.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("onnxruntime is not installed; install monai-fedlora[onnx] to write ONNX files") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence remarks on operators of packages that are not installed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)
