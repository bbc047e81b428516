"""Tensors as messages between processes: types and shapes as JSON, then the bytes of their values."""

from __future__ import annotations

import math
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
    """Types and shapes of tensors, for JSON.

    Raises:
        KeyError: a type is not among :data:`DTYPES`.
    """
    return [{"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)} for tensor in tensors]


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor in row-major order."""
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def read_tensors(stream: BinaryIO, described: Sequence[Mapping[str, Any]], *, limit: int = 1 << 40) -> Iterator[Tensor]:
    """Read tensors that :func:`describe_tensors` and :func:`tensor_bytes` wrote.

    Args:
        stream: of the bytes.
        described: types and shapes.
        limit: bytes of a tensor, which it must stay below.

    Raises:
        EOFError: the stream ends before the last tensor does.
        KeyError, TypeError, ValueError: a description is none, or of a tensor of ``limit`` bytes or more.
    """
    for entry in described:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        if not all(type(size) is int and size >= 0 for size in shape) or math.prod(shape) * dtype.itemsize >= limit:
            raise ValueError(f"{shape} is no shape of a tensor that can be read")
        content = bytearray(stream.read(math.prod(shape) * dtype.itemsize))
        if len(content) < math.prod(shape) * dtype.itemsize:
            raise EOFError
        yield torch.frombuffer(content, dtype=dtype).reshape(shape) if content else torch.empty(shape, dtype=dtype)
