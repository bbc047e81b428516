"""Compute the frozen part of a network once per image and keep the result.

Everything before the first part that trains is a pure function of the image. Where an image comes again, what the
frozen part made of it does too.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn

from monai_fedlora.engines.distributed import unwrap
from monai_fedlora.engines.frozen import FrozenPart, frozen_part
from monai_fedlora.engines.memory import Memory, active_memory
from monai_fedlora.engines.precision import Kept
from monai_fedlora.engines.store import Entry, Store, as_bytes, key_of
from monai_fedlora.errors import ConfigError

_SHARE_OF_GPU = 0.25
"""Of the memory that is free when the first features are kept; training and evaluation keep apart (ours)."""
_log = logging.getLogger(__name__)


def frozen_inferer(
    *, enabled: bool, augment: bool = False, views: int = 0, dtype: Kept = "float16", store: Store | None = None
) -> Inferer:
    """A :class:`FrozenInferer`, or MONAI's plain one where it is not enabled.

    Args:
        enabled: whether to keep what frozen parts compute.
        augment: whether random transforms change the images.
        views: number of different images that they make of a case; 0 for a new one in every epoch.
        dtype: see :class:`FrozenInferer`.
        store: see :class:`FrozenInferer`.

    Raises:
        ConfigError: it is enabled for images that are new in every epoch, or the type is unknown.
    """
    if not enabled:
        return SimpleInferer()
    if augment and not views:
        raise ConfigError(
            "cache_features is on, but augment makes a new image in every epoch (augmented_views is 0), whose features "
            "would be kept for nothing. Set augmented_views to the number of augmented images per case, for example 4, "
            "or turn augment or cache_features off"
        )
    return FrozenInferer(dtype=dtype, store=store)


class FrozenInferer(Inferer):
    """Run what trains on kept outputs of what does not.

    Outputs are found by a hash of the image's bytes, of the frozen weights that they went through, of the settings of
    the modules that hold these, and of the code. Of a network with a setting that cannot be described, they are kept in
    memory and found by this inferer alone. They are computed for one image at a time, so that they do not depend on
    which images share a batch, and used as they are kept, so that the first epoch computes with the same numbers as
    every other. Of a network that trains from its first layer on nothing is kept.

    Args:
        dtype: type in which outputs are kept; one that float16 cannot hold is kept as it is.
        store: where they are kept. Without one, and wherever a :class:`~monai_fedlora.engines.memory.Memory` is in use
            when the inferer is built, in this process only. On a GPU they also stay in a quarter of its free memory.

    Raises:
        ConfigError: the type is unknown.
    """

    def __init__(self, *, dtype: Kept = "float16", store: Store | None = None) -> None:
        super().__init__()
        if dtype not in get_args(Kept):
            raise ConfigError(f"cache_dtype is {dtype!r}; choose from {', '.join(get_args(Kept))}")
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._keeper: Memory | Store = active_memory() or store or Memory()
        self._room: Callable[[torch.device], int] = _room_on
        self._on_device: dict[str, Sequence[Tensor]] = {}
        self._left: int | None = None
        self._network: nn.Module | None = None
        self._part: FrozenPart | None = None
        self._digest: str | None = None
        self._own = Memory()

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logits (B, C) of images (B, ...)."""
        if self._network is not network:
            self._network, self._part = network, frozen_part(unwrap(network))
            self._digest = self._part.digest if self._part else None
            self._own = Memory()
            self._on_device.clear()
            self._left = None
            if self._part is None:
                _log.info("the network trains from its first layer on, so that cache_features keeps nothing")
        if self._part is None:
            logits: Tensor = network(inputs)
            return logits
        rows = [self._recall(image, self._part) for image in inputs]
        parts = [torch.cat([tensor.to(inputs.dtype) for tensor in column]) for column in zip(*rows, strict=True)]
        return self._part.logits(parts, network)

    def _recall(self, image: Tensor, part: FrozenPart) -> Sequence[Tensor]:
        content = hashlib.sha256(as_bytes(image)).hexdigest()
        precision = torch.get_autocast_dtype(image.device.type) if _autocasts(image) else image.dtype
        kind = (precision, torch.get_float32_matmul_precision(), image.device, self._dtype)
        key = key_of(self._digest, content, tuple(image.shape), *kind)

        def make() -> Entry:
            outputs = part.compute(image.unsqueeze(0))
            return {f"{number:03d}": self._rounded(output) for number, output in enumerate(outputs)}

        if key in self._on_device:
            return self._on_device[key]
        keeper = self._own if self._digest is None else self._keeper
        entry = keeper.recall(key, make)
        parts = [entry[name].to(image.device, non_blocking=True) for name in sorted(entry)]
        self._leave_on_device(key, parts, image.device)
        return parts

    def _leave_on_device(self, key: str, parts: Sequence[Tensor], device: torch.device) -> None:
        if self._left is None:
            self._left = self._room(device)
        size = sum(part.nbytes for part in parts)
        if size <= self._left:
            self._on_device[key] = parts
            self._left -= size

    def _rounded(self, output: Tensor) -> Tensor:
        rounded = output.to(self._dtype)
        return rounded if torch.isfinite(rounded).all() else output


def _room_on(device: torch.device) -> int:
    """Bytes that kept features may take on a device: a part of what is free on a GPU, nothing on a processor."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.mem_get_info(device)[0] * _SHARE_OF_GPU)


def _autocasts(image: Tensor) -> bool:
    return torch.is_autocast_enabled(image.device.type)
