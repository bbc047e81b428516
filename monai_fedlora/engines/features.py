"""Compute the frozen part of a network once per image and keep the result in memory.

Everything before the first block that trains is a pure function of the image. Where the images of an epoch are those of
the one before, its output is too.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from monai_fedlora.engines.memory import Memory, active_memory
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.protocol import Backbone, Features


def frozen_prefix_inferer(*, enabled: bool, augment: bool = False) -> Inferer:
    """A :class:`FrozenPrefixInferer`, or MONAI's plain one where it is not enabled.

    Raises:
        ConfigError: it is enabled for images that random transforms change in every epoch.
    """
    if not enabled:
        return SimpleInferer()
    if augment:
        raise ConfigError(
            "cache_features and augment are both on: an augmented image is new in every epoch, so its features would "
            "be kept for nothing. Turn one of them off"
        )
    return FrozenPrefixInferer()


class FrozenPrefixInferer(Inferer):
    """Run the blocks that train on kept outputs of the blocks that do not.

    Features are kept in float32 by the hashes of the image's bytes and of the frozen weights they went through, in this
    process only: in the :class:`~monai_fedlora.engines.memory.Memory` that is in use when the inferer is built, else in
    its own. They are computed for one image at a time, so that they do not depend on which images share a batch.

    Raises:
        ConfigError: the network cannot be cut, or nothing of it is frozen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._network: nn.Module | None = None
        self._block = 0
        self._prefix = ""
        self._shared = active_memory()
        self._memory = Memory()

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logits (B, C) of images (B, ...)."""
        if self._network is not network:
            self._network, self._block = network, first_trained_block(network)
            self._prefix, self._memory = prefix_digest(network, self._block), self._shared or Memory()
        rows = [self._features(image, network) for image in inputs]
        return network.suffix(Features(*(torch.cat(parts) for parts in zip(*rows, strict=True))), self._block)

    def _features(self, image: Tensor, network: Backbone) -> Features:
        content = image.detach().cpu().contiguous().numpy().tobytes()
        return self._memory.recall(
            (
                self._prefix,
                hashlib.blake2b(content, digest_size=16).digest(),
                image.device,
                torch.is_autocast_enabled(image.device.type),
            ),
            lambda: self._compute(image, network),
        )

    def _compute(self, image: Tensor, network: Backbone) -> Features:
        with torch.no_grad():
            return network.prefix(image.unsqueeze(0), self._block)


def first_trained_block(network: Any) -> int:
    """Index of the first block with a trainable parameter; the depth where only the readout trains.

    Raises:
        ConfigError: the network has no blocks to cut between, or a part before them trains.
    """
    if not isinstance(network, Backbone):
        raise ConfigError(f"cache_features needs a network that can be cut, which {type(network).__name__} cannot")
    blocks = network.blocks
    trains = [any(p.requires_grad for p in block.parameters()) for block in blocks]
    first = trains.index(True) if True in trains else len(blocks)
    behind = {id(p) for block in blocks for p in block.parameters()}
    behind |= {id(p) for name, p in network.named_parameters() if name.startswith(network.head_prefixes)}  # type: ignore[attr-defined]
    if any(p.requires_grad and id(p) not in behind for p in network.parameters()):  # type: ignore[attr-defined]
        raise ConfigError("cache_features needs a frozen embedding, but this method trains it; turn cache_features off")
    return first


def prefix_digest(network: Any, block: int) -> str:
    """Hash of the weights and tables that an image passes before ``block``, and of the network's class."""
    behind = tuple(f"{network.block_name(number)}." for number in range(block, len(network.blocks)))
    digest = hashlib.blake2b(f"{type(network).__qualname__} {block}".encode(), digest_size=16)
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith((*behind, *network.head_prefixes)):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
