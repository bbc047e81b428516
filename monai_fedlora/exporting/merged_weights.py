"""The weights of an exported model: all trained parts, merged into one plain network."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.adapters.side import PREFIX
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.finished import FinishedModel, untrained_network
from monai_fedlora.exporting.verify import assert_equal, exported_view, logits
from monai_fedlora.files import atomic_path
from monai_fedlora.networks.opened import OpenedNetwork


def write_weights(
    model: FinishedModel, network: Any, image: Tensor, path: Path, *, own: Collection[str] | None = None
) -> nn.Module:
    """Merge the adapters into the weights (of a shared model the shared adapters only) and save them.

    Args:
        model: the finished model.
        network: its adapted network, see :func:`monai_fedlora.exporting.finished.rebuild`; changed in place.
        image: a batch of prepared images, for comparing outputs before and after.
        path: file to write.
        own: state-dict keys of a user's own network, under which the weights are stored; None for one of the catalogue.

    Returns:
        A plain network with the weights of the file: a backbone with its head, and the side network if the method
        trains one.

    Raises:
        ExportError: something that was trained cannot be merged, or the outputs differ.
    """
    with exported_view(model, network):
        expected = logits(network, image)
        merge_lora(network)
    stored = _stored(network, own)
    state = {key: value.detach().clone().contiguous() for key, value in stored.state_dict().items()}
    _check_merged(model, stored, own)
    plain = _without_values(network)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)
    _stored(plain, own).load_state_dict(torch.load(path, weights_only=True), strict=True)
    plain.eval()
    assert_equal(logits(plain, image), expected, "the merged weights give other logits than the adapters")
    return plain


def _stored(network: nn.Module, own: Collection[str] | None) -> nn.Module:
    """The module whose state dictionary is stored: of a user's own network the module that the user gave."""
    return network.module if own is not None and isinstance(network, OpenedNetwork) else network


def _check_merged(model: FinishedModel, network: nn.Module, own: Collection[str] | None) -> None:
    """Refuse a network with anything but backbone, head and side network."""
    if own is None:
        backbone = untrained_network(model.plan)
        new, known = (PREFIX, *backbone.head_prefixes), set(backbone.state_dict())
    else:
        new, known = (), set(own)
    different = network.state_dict().keys() ^ known
    if wrong := sorted(key for key in different if not key.startswith(new)):
        raise ExportError(
            f"{model.plan.method} cannot be merged into its backbone: {', '.join(wrong[:4])} would be left over or "
            "missing"
        )


def _without_values(network: nn.Module) -> nn.Module:
    """A copy of a network whose tensors are all NaN, so that none can escape being loaded."""
    empty = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.fill_(math.nan)
    return empty
