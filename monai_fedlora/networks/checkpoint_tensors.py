"""The tensors of a checkpoint's files, read without running code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from monai_fedlora import files
from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import PICKLED, CheckpointFiles
from monai_fedlora.networks.not_weights import refuse_other_files
from monai_fedlora.networks.torch_checkpoints import named_tensors

Shape = tuple[int, ...]

_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointTensor:
    """A tensor in a file, not yet read.

    Attributes:
        shape: its sizes.
        dtype: the file format's name of its type.
        read: returns it.
    """

    shape: Shape
    dtype: str
    read: Callable[[], torch.Tensor]

    def read_finite(self, key: str, path: Path) -> torch.Tensor:
        """Read it, or refuse it under its name in the file.

        Raises:
            WeightsError: it holds no floating-point values, or NaN or infinite ones.
        """
        if self.dtype not in _FLOATS:
            raise WeightsError(f"{path}: {key} holds {self.dtype} values, not floating-point ones")
        value = self.read()
        if not torch.isfinite(value).all():
            raise WeightsError(f"{path}: {key} holds NaN or infinite values; the file is damaged")
        return value


@contextmanager
def opened(checkpoint: CheckpointFiles, *, pickled: bool) -> Iterator[dict[str, CheckpointTensor]]:
    """Open the files; tensors of a safetensors file are read from it when asked for.

    Args:
        checkpoint: the files.
        pickled: whether ``.bin``, ``.pt``, ``.pth``, ``.ckpt`` and ``.tar`` files are read as checkpoints of
            ``torch.save``, by torch's reader that runs no code; False takes them, like every other file, for
            safetensors.

    Raises:
        WeightsError: a file is of another format, truncated, or holds anything but tensors.
    """
    with ExitStack() as stack:
        tensors: dict[str, CheckpointTensor] = {}
        for part in checkpoint.parts:
            as_checkpoint = pickled and part.suffix in PICKLED
            refuse_other_files(part, pickled=as_checkpoint)
            found = _unpickled(part) if as_checkpoint else stack.enter_context(_safetensors(part))
            if both := sorted(tensors.keys() & found.keys()):
                raise WeightsError(f"{part} holds {both[0]}, which another file of {part.parent} holds too")
            tensors |= found
        if not tensors:
            raise WeightsError(f"{checkpoint.path} holds no tensors; whoever wrote it saved nothing, get another one")
        yield tensors


def written_size(checkpoint: CheckpointFiles) -> str | None:
    """The size of the catalogue that a file which this package wrote says it is of; None of any other file."""
    if len(checkpoint.parts) > 1 or checkpoint.path.suffix in PICKLED:
        return None
    size = files.read_metadata(checkpoint.path).get("size")
    return size if isinstance(size, str) else None


@contextmanager
def _safetensors(path: Path) -> Iterator[dict[str, CheckpointTensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            yield {key: _slice(stream, key) for key in stream.keys()}
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}); it may be truncated, then get it again from "
            "its origin, or of another format"
        ) from error


def _slice(stream: Any, key: str) -> CheckpointTensor:
    part = stream.get_slice(key)
    return CheckpointTensor(shape=tuple(part.get_shape()), dtype=part.get_dtype(), read=partial(stream.get_tensor, key))


def _unpickled(path: Path) -> dict[str, CheckpointTensor]:
    return {
        key: CheckpointTensor(shape=tuple(value.shape), dtype=_dtype_name(value), read=partial(torch.clone, value))
        for key, value in named_tensors(path).items()
    }


def _dtype_name(value: torch.Tensor) -> str:
    """The name safetensors gives to a type; of values that are not all there, a word for that."""
    if value.layout != torch.strided or value.is_meta:
        return "sparse" if value.layout != torch.strided else "missing"
    sizes = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    return sizes.get(value.dtype, str(value.dtype).removeprefix("torch."))
