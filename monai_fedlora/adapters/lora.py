"""Additive low-rank adapters on selected layers of a network, through PEFT.

An adapted layer computes (Hu et al., LoRA, arXiv 2106.09685, eq. 3, summed over the adapters; with a shared
and a private one this is Med-DualLoRA, arXiv 2603.10967)

    h = W0 x + sum_a (alpha / r) B_a A_a x

with A_a (r x d_in) Kaiming-uniform and B_a (d_out x r) zero at the start, so that an untrained adapter
leaves the backbone's output unchanged. On a convolution A is one of its kernel's size to r channels, and B one of size
1, so that B A is a kernel of the layer's own size. State-dict keys carry the adapter's name
(``encoder.blocks.10.attn.q.lora_A.shared.weight``).
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from monai_fedlora.adapters.targets import in_peft_words, target_modules
from monai_fedlora.errors import ConfigError

SHARED = "shared"
PRIVATE = "private"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraSettings:
    """Where adapters go and how large they are.

    Args:
        rank: inner dimension r, at least 1.
        alpha: numerator of the scale alpha / r.
        dropout: probability of zeroing an adapter's input during training, in [0, 1); 0 turns it off.
        blocks: number of last transformer blocks to adapt; 0 adapts every block.
        targets: layers, by their role (q, k, v, proj, fc1, fc2) or their path inside a block, or by their whole dotted
            name, whatever ``blocks`` is. A layer with two roles gets one adapter.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    blocks: int = 2
    targets: tuple[str, ...] = ("q", "v")

    @property
    def scale(self) -> float:
        """What an adapter's product B A is multiplied by."""
        return self.alpha / self.rank

    def __post_init__(self) -> None:
        if type(self.rank) is not int or self.rank < 1:
            raise ConfigError(f"rank is {self.rank!r}; a LoRA needs a whole number of at least 1")
        if not _is_number(self.alpha) or not 0 < self.alpha < math.inf:
            raise ConfigError(f"alpha is {self.alpha!r}; it must be a positive number, or the adapter has no effect")
        if not _is_number(self.dropout) or not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout!r}; it must be a number in [0, 1)")
        if type(self.blocks) is not int or self.blocks < 0:
            raise ConfigError(f"blocks is {self.blocks!r}; give the number of last blocks, or 0 for all")
        listed = isinstance(self.targets, (list, tuple)) and all(isinstance(target, str) for target in self.targets)
        if not self.targets or not listed:
            raise ConfigError(f'targets is {self.targets!r}; give a list of layers, for example ["q", "v"]')


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def attach_lora(network: Any, settings: LoraSettings, adapters: Sequence[str]) -> None:
    """Freeze ``network`` and add one trainable adapter per name to each target layer, in place."""
    layers = target_modules(network, targets=settings.targets, blocks=settings.blocks)
    add_adapters(network, layers, settings, adapters)


def add_adapters(network: Any, layers: Sequence[str], settings: LoraSettings, adapters: Sequence[str]) -> None:
    """Freeze ``network`` and add one trainable adapter per name to each of the named layers, in place.

    Args:
        network: any network.
        layers: dotted names of linear layers and convolutions; ``blocks`` and ``targets`` of the settings are ignored.
        settings: rank, alpha and dropout.
        adapters: their names.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.functional import set_adapter

    from monai_fedlora.adapters.stacked import StackedLora

    network.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # annotated int, computed with as a number
        lora_dropout=settings.dropout,
        target_modules=in_peft_words(network, layers),
    )
    config._register_custom_module({nn.Linear: StackedLora})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        for adapter in adapters:
            inject_adapter_in_model(config, network, adapter)
    set_adapter(network, list(adapters))


def lora_layers(network: nn.Module) -> dict[str, Any]:
    """Adapted layers by dotted name, in module order."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}


class Temporary(nn.Module, ABC):
    """A module that stands in place of a linear layer or a head until merging restores a plain one."""

    @abstractmethod
    def plain(self) -> nn.Module:
        """The layer or head that computes the same."""


def merge_lora(network: nn.Module, adapters: Sequence[str] | None = None) -> nn.Module:
    """Fold adapters into the weights, in place, and restore the backbone's own state-dict keys.

    What is folded in is what the network computes at this moment: adapters and heads have the weights that
    :mod:`monai_fedlora.adapters.active_adapters` gave them.

    Args:
        network: adapted network; a network without adapters is returned as it is.
        adapters: which to fold in; the others are dropped. None folds in all.

    Raises:
        ConfigError: the network has adapters, but none of such a name.
        ValueError: a merged weight would not be finite.
    """
    layers = lora_layers(network)
    present = {adapter for layer in layers.values() for adapter in layer.lora_A}
    if layers and (unknown := sorted(set(adapters or ()) - present)):
        raise ConfigError(
            f"there is no adapter {', '.join(unknown)} to merge; choose from {', '.join(sorted(present))}"
        )
    for name, layer in layers.items():
        chosen = [a for a in layer.lora_A if adapters is None or a in adapters]
        if chosen:
            layer.merge(safe_merge=True, adapter_names=chosen)
        replace_module(network, name, layer.get_base_layer())
    for name, module in list(network.named_modules()):
        if isinstance(module, Temporary):
            replace_module(network, name, module.plain())
    if hasattr(network, "peft_config"):
        del network.peft_config
    return network


def replace_module(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put ``module`` in the place of the one with the dotted ``name``."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
