"""Cases in memory: the deterministic part of the pipeline is computed once, the random part per epoch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset

from monai_fedlora.engines.memory import active_memory, fingerprint
from monai_fedlora.engines.sampler import CaseSampler
from monai_fedlora.engines.seeds import mix
from monai_fedlora.engines.store import Store
from monai_fedlora.engines.stored_cases import stored_cases
from monai_fedlora.errors import ConfigError

_log = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Preprocessed cases, with augmentation that depends only on (seed, epoch, case).

    The same epoch therefore shows the same images whatever the order, the number of worker processes, or the
    time the process started.

    Where a :class:`~monai_fedlora.engines.memory.Memory` is in use, a case that another data set of this process has
    preprocessed in the same way is taken from there. Else, with a store, from the site's disk.

    Args:
        data: one MONAI dictionary per case.
        transform: deterministic MONAI transforms, computed once per case and kept in memory or in the store.
        augmentation: random MONAI transforms, applied at every access; empty for none.
        seed: of the augmentation.
        views: number of different images that the augmentation makes of a case, taking turns in the epochs; 0 for a new
            one in every epoch.
        cache_rate: fraction of the cases kept in memory, in [0, 1], where there is no store.
        store: on disk, for preprocessed cases.
        progress: show a bar on a terminal while the cases are read.

    Raises:
        ConfigError: the number of views is negative.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Sequence[Callable] | Callable,
        *,
        augmentation: Sequence[Callable] = (),
        seed: int = 0,
        views: int = 0,
        cache_rate: float = 1.0,
        store: Store | None = None,
        progress: bool = False,
    ) -> None:
        if type(views) is not int or views < 0:
            raise ConfigError(f"augmented_views is {views!r}; give a whole number, or 0 for a new image in every epoch")
        self.data = list(data)
        self.views = views
        self.augmentation = Compose(list(augmentation))
        self.seed = seed
        self.epoch = 1
        if self.data:
            _log.info("reading %d cases", len(self.data))
        bar = progress and sys.stderr.isatty()
        remembered = _remembered(self.data, transform) if cache_rate == 1 else None
        stored = stored_cases(self.data, transform, store=store, progress=bar) if store and not remembered else None
        self._cases: Any = (
            remembered or stored or CacheDataset(self.data, transform, cache_rate=cache_rate, progress=bar)
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 1, whose augmentation comes next."""
        self.epoch = 1 + (epoch - 1) % self.views if self.views else epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.augmentation.set_random_state(seed=mix(self.seed, "augmentation", self.epoch, index))
        return _as_tensors(self.augmentation(self._cases[index]))

    def plain(self, index: int) -> dict[str, Any]:
        """A case without augmentation."""
        return _as_tensors(self._cases[index])


def _as_tensors(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.as_tensor() if isinstance(value, MetaTensor) else value for key, value in item.items()}


def _remembered(data: Sequence[Mapping[str, Any]], transform: Sequence[Callable] | Callable) -> list[Any] | None:
    """The preprocessed cases by way of the memory in use; None where there is none, or it cannot know the transform."""
    memory = active_memory()
    if memory is None:
        return None
    transforms, cases = fingerprint(transform), [fingerprint(dict(item)) for item in data]
    if transforms is None or None in cases:
        return None

    def read(item: Mapping[str, Any]) -> Any:
        return CacheDataset([item], transform, progress=False)[0]

    return [
        memory.recall(("case", transforms, case), partial(read, item)) for case, item in zip(cases, data, strict=True)
    ]


def case_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    num_workers: int = 0,
) -> DataLoader:
    """Batch the cases of ``dataset`` in the order of a :class:`CaseSampler`.

    Building and reading the loader leaves torch's global random state alone. Where there is a GPU, batches lie in
    memory that it reads while it computes.

    Raises:
        DataError: there is no case to shuffle, or there are fewer cases than processes.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=CaseSampler(dataset, shuffle=shuffle, seed=seed),  # type: ignore[arg-type]
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )
