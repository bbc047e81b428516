"""Cases in memory: the deterministic part of the pipeline is computed once, the random part per epoch."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import CacheDataset, MetaTensor
from monai.transforms import Compose
from torch.utils.data import DataLoader, Dataset

from monai_fedlora.engines.sampler import CaseSampler
from monai_fedlora.engines.seeds import mix

_log = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Preprocessed cases, with augmentation that depends only on (seed, epoch, case).

    The same epoch therefore shows the same images whatever the order, the number of worker processes, or the
    time the process started.

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
        self._cases = CacheDataset(
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
