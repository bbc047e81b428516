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

_log = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Preprocessed cases, with augmentation that depends only on (seed, epoch, case).

    The same epoch therefore shows the same images whatever the order, the number of worker processes, or the
    time the process started.

    Where a :class:`~monai_fedlora.engines.memory.Memory` is in use, a case that another data set of this process has
    preprocessed in the same way is taken from there.

    Args:
        data: one MONAI dictionary per case.
        transform: deterministic MONAI transforms, computed once per case and kept in memory.
        augmentation: random MONAI transforms, applied at every access; empty for none.
        seed: of the augmentation.
        cache_rate: fraction of the cases kept in memory, in [0, 1].
        progress: show a bar on a terminal while the cases are read.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Sequence[Callable] | Callable,
        *,
        augmentation: Sequence[Callable] = (),
        seed: int = 0,
        cache_rate: float = 1.0,
        progress: bool = False,
    ) -> None:
        self.data = list(data)
        self.augmentation = Compose(list(augmentation))
        self.seed = seed
        self.epoch = 1
        if self.data:
            _log.info("reading %d cases", len(self.data))
        remembered = _remembered(self.data, transform) if cache_rate == 1 else None
        self._cases: Any = remembered or CacheDataset(
            self.data, transform, cache_rate=cache_rate, progress=progress and sys.stderr.isatty()
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.augmentation.set_random_state(seed=mix(self.seed, "augmentation", self.epoch, index))
        item = self.augmentation(self._cases[index])
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

    Building and reading the loader leaves torch's global random state alone.

    Raises:
        DataError: there is no case to shuffle, or there are fewer cases than processes.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=CaseSampler(dataset, shuffle=shuffle, seed=seed),  # type: ignore[arg-type]
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(seed),
    )
