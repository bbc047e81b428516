"""Functions that bundle configs call by ``_target_``, so that they need no Python expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import nn

from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import FILE_NAME, load_datalist
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.networks.cinema import SIZES
from monai_fedlora.transforms.cine import cine_augmentation, cine_preprocessing


def pick_device(name: str = "auto") -> torch.device:
    """The named device; ``"auto"`` is the first GPU, or the CPU where there is none."""
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def on_device(network: nn.Module, *, device: torch.device | str) -> nn.Module:
    """Move ``network`` to ``device`` and return it."""
    return network.to(device)


def run_engine(engine: Any) -> None:
    """Run a trainer or an evaluator."""
    engine.run()


def count(items: Sized) -> int:
    """Number of items."""
    return len(items)


def run_folder(*, bundle: str, site: str) -> str:
    """Where a run writes if nothing else is said: ``runs/<bundle>/<site>`` in the current folder."""
    return str(Path("runs") / bundle / site)


def file_in(*, folder: str | Path, name: str) -> str:
    """Path of the file ``name`` in ``folder``."""
    return str(Path(folder) / name)


def open_datalist(path: str | Path) -> Datalist:
    """Read ``datalist.json``, given itself or its folder.

    Raises:
        DataError: see :func:`load_datalist`.
    """
    path = Path(path)
    return load_datalist(path / FILE_NAME if path.is_dir() else path)


def class_names(datalist: Datalist) -> list[str]:
    """Class names of a datalist, in label order."""
    return list(datalist.classes)


def cases(datalist: Datalist, *, split: str, required: bool = True) -> list[dict[str, Any]]:
    """Items of a split.

    Raises:
        ConfigError: there is no such split.
        DataError: the split is empty, but required.
    """
    items: list[dict[str, Any]] = list(datalist.items(split))
    if required and not items:
        raise DataError(f"the {split} split of site {datalist.site} is empty")
    return items


def preprocessing(*, size: str) -> Compose:
    """Deterministic cine transforms for a named network size.

    Raises:
        ConfigError: there is no such size.
    """
    return Compose(cine_preprocessing(**_grid(size)))


def augmentation(*, size: str, enabled: bool = True) -> Sequence[Callable]:
    """Random cine transforms for a named network size, or none.

    Raises:
        ConfigError: there is no such size.
    """
    return cine_augmentation(**_grid(size)) if enabled else ()


def _grid(size: str) -> dict[str, Any]:
    if size not in SIZES:
        raise ConfigError(f"there is no network size {size!r}; choose from {', '.join(SIZES)}")
    return {"image_size": SIZES[size].image_size, "spacing": SIZES[size].spacing}
