"""Which case comes when: a pure function of (seed, epoch) and of the process."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import Sampler

from monai_fedlora.engines.distributed import rank, world_size
from monai_fedlora.engines.seeds import mix
from monai_fedlora.errors import DataError


class CaseSampler(Sampler[int]):
    """Order of the cases of one process.

    Args:
        cases: anything with a length; only its length is used.
        shuffle: draw a new order each epoch (training), or keep the data list's (evaluation). Shuffled shards
            of several processes have equal length, for which some end with a case of another one; ordered shards hold
            every case exactly once. The batches of all processes together are those of one process with so many times
            the batch size.
        seed: of the shuffling.

    Attributes:
        repeated: how many cases at the end of this process's are another one's, 0 or 1; the loss leaves them out.

    Raises:
        DataError: there is no case to shuffle, or there are fewer cases than processes.
    """

    def __init__(self, cases: Sized, *, shuffle: bool, seed: int = 0) -> None:
        self.size = len(cases)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 1
        self.repeated = int(shuffle and rank() >= (self.size % world_size() or world_size()))
        if shuffle and self.size == 0:
            raise DataError("there is no training case; check the data list, or leave this site out")
        if 0 < self.size < world_size():
            raise DataError(f"{world_size()} processes cannot share {self.size} case(s); start fewer processes")

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.size))
        if self.shuffle:
            generator = torch.Generator().manual_seed(mix(self.seed, "order", self.epoch))
            order = torch.randperm(self.size, generator=generator).tolist()
            order += order[: -self.size % world_size()]
        return iter(order[rank() :: world_size()])

    def __len__(self) -> int:
        size = self.size + (-self.size % world_size() if self.shuffle else 0)
        return len(range(rank(), size, world_size()))
