"""A method, and where in a network of one's own it goes."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from monai_fedlora.adapters.lora import lora_layers
from monai_fedlora.adapters.side import PREFIX
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import Method
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.blocked import BlockedNetwork
from monai_fedlora.networks.layers import Layers, matching
from monai_fedlora.networks.opened import INSIDE, OpenedNetwork, evaluating, logits_of, random_images
from monai_fedlora.networks.text_head import CosineHead

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MethodChoice:
    """What `monai_fedlora.method` gives.

    Attributes:
        method: the method with its settings.
        layers: where in a network of one's own; None where nothing was named, as for the networks of the catalogue.
        head_word: "shared" or "private" where this was given for ``head``; a layer must not be called so.
    """

    method: Method
    layers: Layers | None = None
    head_word: str | None = None

    def attach(self, network: nn.Module, *, images: Tensor | None = None, seed: int = 0) -> tuple[Any, Method]:
        """Open a network, attach the method to it, in place, and try it on random images.

        Args:
            network: see `open`.
            images: of the shape (B, ...) that the network takes; their values are not read. None to try nothing.
            seed: of the initial values of what the method adds.

        Returns:
            The attached network, and the method as `open` gives it, which is what ``scope``, ``penalty`` and so
            on are to be asked of.

        Raises:
            ConfigError: see `open`; a layer cannot have an adapter; or see `check_attached`.
        """
        opened, method = self.open(network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            method.attach(opened)
        tell_about_head(opened)
        _tell_about_norms(opened)
        if images is not None:
            check_attached(opened, images)
        return opened, method

    def open(self, network: nn.Module) -> tuple[Any, Method]:
        """Make a network ready for the method.

        Networks of the catalogue stay as they are. Any other becomes an
        `monai_fedlora.networks.opened.OpenedNetwork` around it, with ``head_prefixes`` of the named head, or a
        `monai_fedlora.networks.blocked.BlockedNetwork` where its list of blocks is named.

        Returns:
            The network, and the method; where ``targets`` is a regular expression, the method's own ``targets`` become
            the whole dotted names that it matches in the opened network, as a job carries them.

        Raises:
            ConfigError: a name is nowhere in the network (the nearest are given), ``head_word`` is a layer's name, the
                method compares with texts and the network does not, or a network of the catalogue is told what it
                knows.
        """
        layers = self.layers or Layers()
        opened: Any = network
        if isinstance(network, OpenedNetwork):
            raise ConfigError("the network has been opened for a method before; give the module that is inside of it")
        if is_backbone(opened):
            if layers.head or layers.blocks:
                raise ConfigError(f"a {type(network).__name__} knows its head and its blocks; leave their names out")
        elif self.head_word is not None and self.head_word in dict(opened.named_modules()):
            raise ConfigError(
                f"head is {self.head_word!r}, which says whether the head travels, and the network has a layer of that "
                "name: rename the layer if it is the head, or else say share_head= in place of head="
            )
        elif layers.blocks is not None:
            opened = BlockedNetwork(network, head=layers.head, blocks=layers.blocks)
        else:
            opened = OpenedNetwork(network, head=layers.head)
            _log.info("no list of blocks is named, so that what frozen layers give is computed anew in every step")
        if self.method.reads_text and not isinstance(getattr(opened, "head", None), CosineHead):
            raise ConfigError(
                f"{self.method.name} compares images with texts, and this network does not; choose a CLIP size"
                + (", or classifier='linear'" if hasattr(self.method, "classifier") else "")
            )
        method = self.method
        if layers.targets is not None:
            inside = INSIDE if opened is not network else ""
            names = tuple(inside + name for name in matching(network, layers.targets))
            method = dataclasses.replace(method, targets=names)  # type: ignore[call-arg]
        return opened, method


def tell_about_head(network: Any) -> None:
    """Say that no head trains, where none was named and a part of a network of one's own is frozen."""
    frozen = not all(parameter.requires_grad for parameter in network.parameters())
    if isinstance(network, OpenedNetwork) and not network.head_prefixes and frozen:
        _log.warning(
            "no head is named, so that the classification layer stays as it came, random values included; name it with "
            "head= of fl.method unless it has been trained for these very classes"
        )


def _tell_about_norms(network: nn.Module) -> None:
    """Say which statistics stay as they are although the layer trains."""
    norms = [
        name
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        and module.track_running_stats
        and any(parameter.requires_grad for parameter in module.parameters())
    ]
    if norms:
        _log.warning(
            "%d layers of batch normalisation train and keep the running statistics that the network came with, since "
            "buffers neither train nor travel; the first is %s",
            len(norms),
            norms[0].removeprefix(INSIDE),
        )


def check_attached(network: Any, images: Tensor) -> None:
    """Try an attached network on random images, in evaluation mode and without gradients.

    Args:
        network: as a method has attached to it.
        images: of the shape (B, ...) that it takes; their values are not read.

    Raises:
        ConfigError: its output is no logits, or it never calls a layer that has an adapter, which then has no effect.
    """
    called: set[str] = set()
    layers = {name: layer for name, layer in lora_layers(network).items() if not name.startswith(PREFIX)}
    hooks = [layer.register_forward_hook(lambda *_, name=name: called.add(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad(), evaluating(network):
            logits_of(network(random_images(images, 2)), batch=2)
    finally:
        for hook in hooks:
            hook.remove()
    if silent := [name for name in layers if name not in called]:
        raise ConfigError(
            f"the network never calls {silent[0].removeprefix(INSIDE)}, so that its adapter has no effect: its weight "
            "is read without a call, or the layer takes no part in the logits. Leave it out of targets"
        )
