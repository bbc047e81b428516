"""Weights of a network that another package builds, under the network's own keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.checkpoint_files import BackboneInfo, CheckpointFiles, listed
from monai_fedlora.networks.checkpoint_tensors import CheckpointTensor, opened
from monai_fedlora.networks.opened import INSIDE, OpenedNetwork


def load_own(network: Any, stored: CheckpointFiles, *, sha256: str | None, heads: bool) -> BackboneInfo:
    """Load all tensors of a network but its heads, and these too where all of them are in the file and fit.

    Args:
        network: with ``head_prefixes``.
        stored: a safetensors file whose keys are those of the state dict of what the package builds.
        sha256: what the file's must be; None accepts any.
        heads: False keeps the network's own heads.

    Raises:
        WeightsError: a tensor is missing, unknown, of another shape or type or not finite; the network is unchanged.
    """
    prefix = INSIDE if isinstance(network, OpenedNetwork) else ""
    path, found = stored.path, stored.check_pin(sha256)
    targets = {key.removeprefix(prefix): value for key, value in network.state_dict().items()}
    own_heads = {key for key in targets if f"{prefix}{key}".startswith(tuple(network.head_prefixes))}
    with opened(stored, pickled=False) as tensors:
        fit = {key for key in own_heads & tensors.keys() if tensors[key].shape == tuple(targets[key].shape)}
        wanted = targets.keys() - own_heads | (own_heads if heads and fit == own_heads else set())
        problems = []
        if missing := sorted(wanted - tensors.keys()):
            problems.append(f"it lacks {listed(missing)}")
        if unknown := sorted(tensors.keys() - targets.keys()):
            problems.append(f"the network has no {listed(unknown)}")
        problems += [
            f"{key} is {tensors[key].shape} instead of {tuple(targets[key].shape)}"
            for key in sorted(wanted & tensors.keys())
            if tensors[key].shape != tuple(targets[key].shape)
        ]
        if problems:
            raise WeightsError(
                f"{path} does not fit the network: {'; '.join(problems)}; its keys must be those of the state dict of "
                "the module that its package builds"
            )
        values = {key: _read(key, tensors[key], targets[key], path) for key in wanted}
        with torch.no_grad():
            for key, value in values.items():
                targets[key].copy_(value)
        skipped = tuple(sorted(tensors.keys() - wanted))
    return BackboneInfo(
        path=path,
        sha256=found,
        n_loaded=len(values),
        layout="classifier" if fit else "pretrained",
        heads=bool(wanted & own_heads),
        own_heads=() if wanted & own_heads else tuple(network.head_prefixes),
        skipped=skipped,
    )


def _read(key: str, stored: CheckpointTensor, target: torch.Tensor, path: Path) -> torch.Tensor:
    """A tensor of the file; counters and tables of places are whole numbers in file and network alike."""
    if target.is_floating_point():
        return stored.read_finite(key, path)
    value = stored.read()
    if value.dtype != target.dtype:
        raise WeightsError(f"{path}: {key} holds {value.dtype} values, and the network has {target.dtype} there")
    return value
