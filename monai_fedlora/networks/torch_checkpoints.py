"""The tensors of a checkpoint of ``torch.save``, whose only other content may be plain values and settings."""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.torchscript import refuse_program
from monai_fedlora.out_of_memory import tell_out_of_memory

_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def named_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file by name, those of nested dictionaries under their keys joined by dots.

    Raises:
        WeightsError: it is damaged, holds more than tensors, plain values and settings, or no tensors by name.
    """
    refuse_program(path)
    try:
        # The namespace of the training script's arguments is a plain object; checkpoints of MAE hold one.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle can fail in any way
        tell_out_of_memory(error, f"reading {path}")
        raise WeightsError(
            f"{path} is not a readable checkpoint ({_reason(error)}); it may be truncated, or hold more than tensors, "
            f"which is not accepted because it could run code{_conversion(path, error)}"
        ) from error
    tensors: dict[str, torch.Tensor] = {}
    for name, value in _by_name(content, path):
        if name in tensors:
            raise WeightsError(
                f"{path} holds two tensors called {name}, one of them in a dictionary; which one is meant is not "
                "guessed: save the dictionary of the one that you mean alone"
            )
        tensors[name] = value
    if not tensors:
        raise WeightsError(f"{path} holds no tensors by name; give a state dict, or a checkpoint that holds one")
    return tensors


def _by_name(
    content: Any, path: Path, prefix: str = "", around: tuple[int, ...] = ()
) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of nested dictionaries; ``around`` are those in which this one lies."""
    if not isinstance(content, dict):
        return
    if id(content) in around:
        raise WeightsError(
            f"{path} holds a dictionary that lies inside of itself, below {prefix[:-1]!r}, as no training saves one; "
            "get the file again from its origin"
        )
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        else:
            yield from _by_name(value, path, f"{prefix}{key}.", (*around, id(content)))


def _reason(error: Exception) -> str:
    """What a reader says in a line of plain text: what a pickle asks for beyond tensors, or else how it failed."""
    text = _ESCAPES.sub("", str(error))
    if asked := _asked_for(error):
        return f"it asks for {asked}, which is no tensor"
    lines = [line.strip() for line in text.splitlines() if line.strip() and "Weights only load failed" not in line]
    return "".join(char for char in lines[0] if char.isprintable())[:200] if lines else type(error).__name__


def _asked_for(error: Exception) -> str | None:
    """The type or function beyond tensors that a pickle asks for."""
    asked = re.search(r"GLOBAL ([\w.]+)", _ESCAPES.sub("", str(error)))
    return asked[1] if asked else None


def _conversion(path: Path, error: Exception) -> str:
    """Two lines that keep a checkpoint's tensors alone, where it holds something else."""
    asked = _asked_for(error)
    if asked is None:
        return ""
    alone = f"{path.stem}_tensors{path.suffix}"
    return (
        f". Where you know who wrote it, on a machine without patients' data that has the package of {asked}, these "
        f"two lines keep its tensors in {alone}: "
        "tensors = lambda v: v if torch.is_tensor(v) else tensors(v.state_dict()) if hasattr(v, 'state_dict') else "
        "{str(k): x for k, y in v.items() if (x := tensors(y)) is not None} if hasattr(v, 'items') else None; "
        f"torch.save(tensors(torch.load({path.name!r}, map_location='cpu', weights_only=False)), {alone!r})"
    )
