"""The weights of an exported model: everything that was trained, folded into one plain network."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.adapters.side import PREFIX
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.finished import FinishedModel, rebuild
from monai_fedlora.exporting.verify import assert_equal, exported_view, logits
from monai_fedlora.files import atomic_path
from monai_fedlora.networks.catalogue import build_backbone


def write_weights(model: FinishedModel, backbone: str, image: Tensor, path: Path) -> nn.Module:
    """Fold the adapters into the weights, for a shared model only the shared ones, and save them.

    Args:
        model: the finished model.
        backbone: source of the backbone.
        image: a batch of the network's input, to compare with.
        path: file to write.

    Returns:
        A plain network that has read the file back and computes what the adapted one did: a backbone with its head, and
        the network beside it where the method trains one.
    """
    network = rebuild(model, backbone)
    with exported_view(model, network):
        expected = logits(network, image)
        merge_lora(network)
    state = {key: value.detach().clone().contiguous() for key, value in network.state_dict().items()}
    _check_merged(model, network)
    plain = _without_values(network)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save(state, stream)
    plain.load_state_dict(torch.load(path, weights_only=True), strict=True)
    plain.eval()
    assert_equal(logits(plain, image), expected, "the merged weights give other logits than the adapters")
    return plain


def _check_merged(model: FinishedModel, network: nn.Module) -> None:
    """Refuse a network that has more than its backbone, its head and a network beside it."""
    backbone = build_backbone(model.plan.size, out_chans=len(model.plan.classes))
    own = (PREFIX, *backbone.head_prefixes)
    different = network.state_dict().keys() ^ backbone.state_dict().keys()
    if wrong := sorted(key for key in different if not key.startswith(own)):
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
