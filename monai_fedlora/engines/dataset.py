"""Cases for training and evaluation: images, or names of images for whoever keeps what was computed from them."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from monai.engines.utils import default_prepare_batch
from monai.transforms import Compose
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from monai_fedlora.engines.memory import Memory, active_memory, fingerprint
from monai_fedlora.engines.preprocessed import Preprocessed, as_tensors
from monai_fedlora.engines.sampler import CaseSampler
from monai_fedlora.engines.seeds import mix
from monai_fedlora.engines.store import Entry, Store, key_of
from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.orientation import filled_slices, one_order

FEATURES = "features"
"""Key of a :class:`CaseView` in an item, and of a list of them in a batch, in place of images."""
FILLED = "filled_slices"
"""Key of the number of slices that an image fills, beside a view of it."""
_log = logging.getLogger(__name__)
_datasets: WeakValueDictionary[int, CaseDataset] = WeakValueDictionary()
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class CaseView:
    """One image of a case, which is named and not opened.

    Attributes:
        dataset: number of the data set in this process.
        index: of the case.
        seed: of the augmentation; None for none.
        order: of the axes, see :mod:`monai_fedlora.engines.orders`.
    """

    dataset: int
    index: int
    seed: int | None
    order: int = 0

    @property
    def name(self) -> str | None:
        """A string, equal in every process for images that are equal to the bit; None where that is unknown."""
        return _datasets[self.dataset].name(self)

    def image(self) -> Tensor:
        """Open it.

        Raises:
            DataError: a file cannot be used.
        """
        return _datasets[self.dataset].image(self)


class CaseDataset(Dataset):
    """Preprocessed cases, with augmentation that depends only on (seed, epoch, case).

    The same epoch therefore shows the same images whatever the order, the number of worker processes, or the
    time the process started.

    Args:
        data: one MONAI dictionary per case.
        transform: deterministic MONAI transforms, which leave a tensor under ``image``; see
            :class:`~monai_fedlora.engines.preprocessed.Preprocessed`.
        augmentation: random MONAI transforms of ``image``, and of what changes along with it, applied at every access;
            empty for none.
        seed: of the augmentation.
        views: number of different images that the augmentation makes of a case, taking turns in the epochs; 0 for a new
            one in every epoch.
        along: keys of tensors on the image's grid, such as ``mask``, which the augmentation changes with the image.
        store: on disk, for preprocessed cases.
        progress: show a bar on a terminal while the cases are read.

    Raises:
        ConfigError: the number of views is negative.
        DataError: a file cannot be used.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Sequence[Callable] | Callable,
        *,
        augmentation: Sequence[Callable] = (),
        seed: int = 0,
        views: int = 0,
        along: Sequence[str] = (),
        store: Store | None = None,
        progress: bool = False,
    ) -> None:
        if type(views) is not int or views < 0:
            raise ConfigError(f"augmented_views is {views!r}; give a whole number, or 0 for a new image in every epoch")
        self.data = list(data)
        self.views = views
        self.along = tuple(along)
        self._store = store
        self._seen = Memory()
        self.augmentation = Compose(list(augmentation))
        self.seed = seed
        self.epoch = 1
        if self.data:
            _log.info("reading %d cases", len(self.data))
        self._described = fingerprint(self.augmentation)
        self._cases = Preprocessed(self.data, transform, store=store, progress=progress and sys.stderr.isatty())
        self._number = next(_numbers)
        self._opens = True
        _datasets[self._number] = self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 1, whose augmentation comes next."""
        self.epoch = 1 + (epoch - 1) % self.views if self.views else epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._item(self.view(index))

    def plain(self, index: int) -> dict[str, Any]:
        """A case without augmentation."""
        return self._item(CaseView(self._number, index, None))

    @contextmanager
    def unopened(self) -> Iterator[None]:
        """Let items hold a :class:`CaseView` under ``features`` in place of ``image``."""
        before, self._opens = self._opens, False
        try:
            yield
        finally:
            self._opens = before

    def view(self, index: int) -> CaseView:
        """Name what the epoch shows of a case."""
        random = bool(self.augmentation.transforms)
        return CaseView(self._number, index, mix(self.seed, "augmentation", self.epoch, index) if random else None)

    def name(self, view: CaseView) -> str | None:
        """See :attr:`CaseView.name`."""
        if self._cases.keys is None or (view.seed is not None and self._described is None):
            return None
        augmented = None if view.seed is None else f"{self._described} {view.seed}"
        return f"{self._cases.keys[view.index]} {augmented} {view.order}"

    def image(self, view: CaseView) -> Tensor:
        """See :meth:`CaseView.image`.

        Raises:
            ConfigError: the augmentation changes more than the image, and features cannot stand for it.
        """
        item, rest = self._open(view), self._cases.rest[view.index]
        others = {key: value for key, value in rest.items() if key not in self.along}
        if item.keys() - {Keys.IMAGE} != rest.keys() or any(item[key] is not value for key, value in others.items()):
            raise ConfigError(
                "the augmentation changes more of a case than its image; turn cache_features off, or let it not"
            )
        image = torch.as_tensor(item[Keys.IMAGE])
        return one_order(image, view.order) if view.order else image

    def _item(self, view: CaseView) -> dict[str, Any]:
        if self._opens:
            return self._open(view)
        return {**self._cases.rest[view.index], **self._beside(view), FEATURES: view}

    def _beside(self, view: CaseView) -> Mapping[str, Tensor]:
        """What changes along with the image, as it lies beside this view of it, and how many slices the image fills.

        It is kept as the features of the view are; the image is opened for it once.
        """
        if not self.along:
            return {}

        def compute() -> Entry:
            item = self._open(view)
            found = {key: torch.as_tensor(item[key]).contiguous() for key in self.along}
            return {**found, FILLED: torch.tensor(filled_slices(torch.as_tensor(item[Keys.IMAGE])))}

        name = self.name(view)
        keeper = active_memory() or self._store
        if name is not None and keeper is not None:
            return keeper.recall(key_of("beside", name, *self.along), compute)
        return self._seen.recall(f"{view.index} {view.seed}", compute)

    def _open(self, view: CaseView) -> dict[str, Any]:
        item = {**self._cases.rest[view.index], Keys.IMAGE: self._cases.image(view.index)}
        if view.seed is None:
            return item
        self.augmentation.set_random_state(seed=view.seed)
        own = {key: deepcopy(item[key]) for key in (Keys.IMAGE, *self.along)}
        return as_tensors(self.augmentation({**item, **own}))


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
        collate_fn=collate_cases,
        generator=torch.Generator().manual_seed(seed),
        pin_memory=torch.cuda.is_available(),
    )


def collate_cases(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack the tensors of cases into a batch; views of cases stay a list. Of no cases the batch is empty."""
    if not items:
        return {}
    views = [item[FEATURES] for item in items if FEATURES in item]
    batch: dict[str, Any] = default_collate([{k: v for k, v in item.items() if k != FEATURES} for item in items])
    return {**batch, FEATURES: views} if views else batch


def labels_of(batch: Mapping[str, Any]) -> Tensor | None:
    """Class indices (B,) of a batch, where there are any."""
    labels = batch.get(Keys.LABEL)
    return labels if isinstance(labels, Tensor) else None


@dataclass(frozen=True, kw_only=True)
class PrepareCases:
    """What an engine takes from a batch: images (B, ...), or views of B cases, and targets where there are any.

    Views are taken out of the batch, which MONAI's engines can then decollate.

    Attributes:
        target: takes the targets from a batch, on the processor; a tensor whose first axis is the batch, or None.
        turns: whether they lie on the image's grid, (B, F, X, Y, Z), and turn with it where its order is unknown.
    """

    target: Callable[[Mapping[str, Any]], Tensor | None] = labels_of
    turns: bool = False

    def __call__(
        self, batch: dict[str, Any], device: torch.device, non_blocking: bool = False, **kwargs: Any
    ) -> tuple[Tensor | list[CaseView], Tensor | None]:
        """Images, or views, and targets on a device."""
        if FEATURES not in batch:
            images, labels = default_prepare_batch(batch, device, non_blocking, **kwargs)
            if self.target is labels_of:
                return images, labels
        target = self.target(batch)
        moved = target.to(device=device, non_blocking=non_blocking, **kwargs) if target is not None else None
        return (batch.pop(FEATURES) if FEATURES in batch else images), moved


prepare_cases = PrepareCases()
"""Of batches for classification."""
