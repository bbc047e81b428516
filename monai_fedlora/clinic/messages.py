"""How tensors go from one process to another: what they are, in JSON, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import torch
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "float16": torch.float16, "float32": torch.float32, "float64": torch.float64, "int64": torch.int64,
    "int32": torch.int32, "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def describe_tensors(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    """Types and shapes, for JSON.

    Raises:
        KeyError: a type is not among :data:`DTYPES`.
    """
    return [{"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)} for tensor in tensors]


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values in order."""
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def read_tensors(stream: BinaryIO, described: Sequence[Mapping[str, Any]]) -> Iterator[Tensor]:
    """Read what :func:`describe_tensors` and :func:`tensor_bytes` wrote."""
    for entry in described:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        empty = torch.empty(shape, dtype=dtype)
        content = bytearray(stream.read(empty.numel() * dtype.itemsize))
        yield torch.frombuffer(content, dtype=dtype).reshape(shape) if content else empty
