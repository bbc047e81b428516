"""Compute the frozen part of a network once per image and keep the result.

Everything before the first part that trains is a pure function of the image. Where an image comes again, it stays
closed, and what the frozen part made of it comes in its place.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import torch
from monai.inferers import Inferer, SimpleInferer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_fedlora.engines.dataset import CaseDataset, CaseView, PrepareCases, collate_cases
from monai_fedlora.engines.device_room import room_on
from monai_fedlora.engines.distributed import unwrap
from monai_fedlora.engines.frozen import FrozenPart, frozen_part
from monai_fedlora.engines.joining import joined
from monai_fedlora.engines.left_out import say_left_out
from monai_fedlora.engines.memory import Memory, active_memory
from monai_fedlora.engines.on_device import OnDevice
from monai_fedlora.engines.precision import Kept, float32_settings
from monai_fedlora.engines.store import Entry, Store, key_of
from monai_fedlora.errors import ConfigError
from monai_fedlora.out_of_memory import TRAINING, memory_told

Run = Callable[[Sequence[Tensor], Any], Tensor]
"""From what a frozen part gives, or images, and what calls the network, to logits."""
_log = logging.getLogger(__name__)


def frozen_inferer(
    *, enabled: bool, augment: bool = False, views: int = 0, dtype: Kept = "float16", store: Store | None = None
) -> Inferer:
    """A :class:`FrozenInferer`, or MONAI's plain one where it is not enabled.

    Args:
        enabled: whether to keep what frozen parts compute.
        augment: whether random transforms change the images.
        views: number of different images that they make of a case; 0 for a new one in every epoch, of which nothing is
            kept.
        dtype: see :class:`FrozenInferer`.
        store: see :class:`FrozenInferer`.

    Raises:
        ConfigError: the type is unknown.
    """
    if not enabled:
        return SimpleInferer()
    if augment and not views:
        _log.info(
            "cache_features keeps nothing of the training images: augment makes new ones in every epoch "
            "(augmented_views is 0); with augmented_views=4, for example, each case has four, which take turns"
        )
        return SimpleInferer()
    return FrozenInferer(dtype=dtype, store=store)


class FrozenInferer(Inferer):
    """Run what trains on kept outputs of what does not.

    Outputs are found by the name of an image (:class:`~monai_fedlora.engines.dataset.CaseView`), which stays closed
    where they are kept, by a hash of the frozen weights and of the settings of the modules that hold them, and by the
    code. Of an image without a name, and of a network with a setting that cannot be described, they are kept in memory
    and found by this inferer alone. They are computed for one image at a time, so that they do not depend on which
    images share a batch, and used as they are kept, so that the first epoch computes with the same numbers as every
    other. Of a network that trains from its first layer on, and of images that come as tensors, nothing is kept.

    Args:
        dtype: type in which outputs are kept; one that float16 cannot hold is kept as it is.
        store: where they are kept. Without one, and wherever a :class:`~monai_fedlora.engines.memory.Memory` is in use
            when the inferer is built, in this process only. What finds no room is computed again. On a GPU they also
            stay in a share of its memory, see :func:`~monai_fedlora.engines.device_room.room_on`, until :meth:`rest`.

    Raises:
        ConfigError: the type is unknown.
    """

    def __init__(self, *, dtype: Kept = "float16", store: Store | None = None) -> None:
        super().__init__()
        if dtype not in get_args(Kept):
            raise ConfigError(f"cache_dtype is {dtype!r}; choose from {', '.join(get_args(Kept))}")
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._keeper: Memory | Store = active_memory() or store or Memory()
        self._own, self._told = Memory(), False
        self._left_out: dict[str, int] = {}
        self._said_left_out = False
        self._without_room = self._keeper
        self._room: Callable[[torch.device], int] = room_on
        self._keys: dict[tuple[str, CaseView], str] = {}
        self._kinds: dict[tuple[object, ...], str] = {}
        self._on_device: OnDevice | None = None
        self._network: nn.Module | None = None
        self._part: FrozenPart | None = None
        self._digest: str | None = None

    def keeps(self, network: nn.Module) -> bool:
        """Whether a part of the network is frozen, so that no image need be opened twice."""
        if self._network is not network:
            self._network, self._part = network, frozen_part(unwrap(network))
            self._digest = self._part.digest if self._part else None
            self._own, self._told = Memory(), False
            self._keys, self._kinds, self._on_device = {}, {}, None
            if self._part is None:
                _log.info(
                    "cache_features keeps nothing: the network trains from its first layer on, or its list of blocks "
                    "is not named"
                )
        return self._part is not None

    def tell_left_out(self) -> int:
        """Number of features that found no room since this was asked before; the first time it is also logged."""
        found, self._left_out = self._left_out, {}
        if found and not self._said_left_out:
            self._said_left_out = True
            say_left_out(
                found.values(), what="features of frozen blocks", counted="in an epoch", keeper=self._without_room
            )
        return len(found)

    def rest(self) -> None:
        """Let what is kept leave the GPU; it is copied there again when it is needed."""
        if self._on_device is not None:
            self._on_device.clear()

    def __call__(self, inputs: Tensor | list[CaseView], network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return the logits (B, C) of images (B, ...), or of views of B cases."""
        parts, run = self.cut(inputs, network)
        return run(parts, network)

    def cut(self, inputs: Tensor | list[CaseView], network: Any) -> tuple[list[Tensor], Run]:
        """What the frozen part gives of images (B, ...), or of views of B cases, and how the network goes on from it.

        Returns:
            Tensors (B, ...), the images themselves where nothing is frozen; and a function of them, or of some of their
            rows, and of the network, or of what calls it with other parameters, that gives the logits (B, C).
        """
        if not self.keeps(network) or self._part is None:
            return [inputs], _whole  # type: ignore[list-item]  # views come only of what is kept
        device = next(network.parameters()).device
        if isinstance(inputs, Tensor):
            if not self._told:
                self._told = True
                _log.warning(
                    "cache_features keeps nothing: the batches hold images, which have no names to find features by; "
                    "let case_loader batch a CaseDataset, and prepare_cases prepare the batches"
                )
            rows: list[Sequence[Tensor]] = [list(self._compute(image).values()) for image in inputs]
        else:
            kind = self._kind(device)
            rows = [self._recall(view, kind, device) for view in inputs]
        dtype = inputs.dtype if isinstance(inputs, Tensor) else torch.float32
        columns = enumerate(zip(*rows, strict=True))
        return [joined(place, column, device=device, dtype=dtype) for place, column in columns], self._part.logits

    def _kind(self, device: torch.device) -> str:
        """What decides the bits of a feature beside the image."""
        precision = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else "off"
        state = device, precision, float32_settings(device)
        if state not in self._kinds:
            cuda = device.type == "cuda"
            model = torch.cuda.get_device_name(device) if cuda else torch.backends.cpu.get_cpu_capability()
            self._kinds[state] = key_of(self._digest, *state[1:], device.type, model, self._dtype)
        return self._kinds[state]

    def _recall(self, view: CaseView, kind: str, device: torch.device) -> Sequence[Tensor]:
        """The parts of a case: on the device where there is room, else where they are kept."""
        if self._on_device is None or self._on_device.device != device:
            self._on_device = OnDevice(device, room=self._room)
        key = self._keys.get((kind, view))
        if key is None:
            key = hashlib.blake2b(f"{kind} {view.name or view}".encode(), digest_size=20).hexdigest()
            self._keys[kind, view] = key
        row = self._on_device.get(key)
        if row is None:
            keeper = self._own if self._digest is None or view.name is None else self._keeper
            with memory_told(f"computing features of one case on {device}", *TRAINING[1:]):
                entry = keeper.recall(key, lambda: self._compute(_opened(view).to(device)))
            made = [tensor for _, tensor in sorted(entry.items())]
            row = self._on_device.keep(key, made)
            if row is None and key in keeper.left_out:
                self._left_out[key], self._without_room = keeper.left_out[key], keeper
            row = row or made
        return row

    def _compute(self, image: Tensor) -> Entry:
        """What is kept of an image, as it is kept."""
        assert self._part is not None
        outputs = enumerate(self._part.compute(image.unsqueeze(0)))
        return {f"{number:03d}": self._rounded(output).cpu() for number, output in outputs}

    def _rounded(self, output: Tensor) -> Tensor:
        rounded = output.to(self._dtype)
        return rounded if torch.isfinite(rounded).all() else output


def _whole(images: Sequence[Tensor], network: Any) -> Tensor:
    logits: Tensor = network(images[0])
    return logits


def cut(inferer: Inferer, inputs: Tensor | list[CaseView], network: nn.Module) -> tuple[list[Tensor], Run]:
    """:meth:`FrozenInferer.cut` of an engine's inferer, or the whole network of one that keeps nothing."""
    return inferer.cut(inputs, network) if isinstance(inferer, FrozenInferer) else ([inputs], _whole)  # type: ignore[list-item]


def _opened(view: CaseView) -> Tensor:
    """The image of a view in full precision, which the network's does not concern."""
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        return view.image()


@contextmanager
def unopened_images(engine: Any) -> Iterator[None]:
    """Let an engine's data set name its images while the engine's inferer keeps what the network makes of them.

    Args:
        engine: a trainer or an evaluator; one with a loader or a way to prepare batches of its own sees images.
    """
    loader, inferer = engine.data_loader, engine.inferer
    named = isinstance(inferer, FrozenInferer) and isinstance(engine.prepare_batch, PrepareCases)
    named = named and isinstance(loader, DataLoader) and loader.collate_fn is collate_cases
    if named and isinstance(loader.dataset, CaseDataset) and inferer.keeps(engine.network):
        with loader.dataset.unopened():
            yield
        inferer.tell_left_out()
    else:
        yield
