"""The weights of an exported model: everything that was trained, folded into one plain network."""

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
from monai_fedlora.exporting.finished import FinishedModel
from monai_fedlora.exporting.verify import assert_equal, exported_view, logits
from monai_fedlora.files import atomic_path
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.networks.opened import OpenedNetwork


def write_weights(
    model: FinishedModel, network: Any, image: Tensor, path: Path, *, own: Collection[str] | None = None
) -> nn.Module:
    """Fold the adapters into the weights, for a shared model only the shared ones, and save them.

    Args:
        model: the finished model.
        network: its adapted network, see :func:`monai_fedlora.exporting.finished.rebuild`; it is changed.
        image: a batch of the network's input, to compare with.
        path: file to write.
        own: state-dict keys of a network that is none of the catalogue, which the file then has.

    Returns:
        A plain network that has read the file back and computes what the adapted one did: a backbone with its head, and
        the network beside it where the method trains one.
    """
    with exported_view(model, network):
        expected = logits(network, image)
        merge_lora(network)
    inner = _whole if own is None else _inner
    state = {key: value.detach().clone().contiguous() for key, value in inner(network).state_dict().items()}
    _check_merged(model, inner(network), own)
    plain = _without_values(network)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)
    inner(plain).load_state_dict(torch.load(path, weights_only=True), strict=True)
    plain.eval()
    assert_equal(logits(plain, image), expected, "the merged weights give other logits than the adapters")
    return plain


def _whole(network: nn.Module) -> nn.Module:
    """A network of the catalogue, whoever's it is: its file has the keys that it has here."""
    return network


def _inner(network: nn.Module) -> nn.Module:
    """The user's own module of an opened network; any other as it is."""
    return network.module if isinstance(network, OpenedNetwork) else network


def _check_merged(model: FinishedModel, network: nn.Module, own: Collection[str] | None) -> None:
    """Refuse a network that has more than its backbone, its head and a network beside it."""
    if own is None:
        backbone = build_backbone(model.plan.size, out_chans=len(model.plan.classes))
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
    """A copy of a network in which every number has yet to be read."""
    empty = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in empty.state_dict().values():
            tensor.fill_(math.nan)
    return empty
