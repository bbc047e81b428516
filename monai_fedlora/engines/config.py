"""Functions that bundle configs call by ``_target_``, so that they need no Python expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import nn

from monai_fedlora.data.cases import Datalist
from monai_fedlora.data.datalist import FILE_NAME, check_site_name, load_datalist
from monai_fedlora.data.site import cache_folder
from monai_fedlora.engines.compiling import compiled
from monai_fedlora.engines.distributed import others_explained
from monai_fedlora.engines.store import Store, store_limit, store_root
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.networks.catalogue import Architecture, architecture
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.transforms.cine import cine_augmentation, cine_preprocessing
from monai_fedlora.transforms.photograph import photograph_preprocessing
from monai_fedlora.transforms.photograph_augmentation import photograph_augmentation
from monai_fedlora.transforms.photograph_style import DEFAULT_STYLE

Levels = Sequence[float]


def pick_device(name: str = "auto") -> torch.device:
    """The named device; ``"auto"`` is the first GPU, or the CPU where there is none.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"the device {name!r} is unknown; give cpu, cuda:0 or auto") from None
    found = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= found:
        raise ConfigError(f"the device {name!r} is not there: PyTorch sees {found} GPUs; give cpu, or auto")
    return device


def on_device(network: nn.Module, *, device: torch.device | str, compiler: str = "off") -> nn.Module:
    """Move ``network`` to ``device`` and return it.

    Args:
        network: a network; where frozen features are kept, only what comes behind them is compiled.
        device: where to compute.
        compiler: see :func:`monai_fedlora.engines.compiling.compiled`.

    Raises:
        ConfigError: it cannot be compiled so.
    """
    return compiled(network.to(device), device=torch.device(device), mode=compiler)


def needs_shared_part(*, file: str) -> None:
    """Say that a training bundle's settings were given without what is built from them.

    Raises:
        ConfigError: always; the part that is shared replaces this call.
    """
    raise ConfigError(
        f"train.json holds this bundle's settings; what is built from them is in bundles/{file}, which all bundles "
        f"share and which is given after it: --config_file \"['BUNDLE/configs/train.json','BUNDLE/../{file}']\""
    )


def run_engine(engine: Any) -> None:
    """Run a trainer or an evaluator.

    Raises:
        FedLoraError: another process of the same training is gone, or did not answer in time.
    """
    with others_explained():
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


def preprocessing(
    *,
    size: str,
    style: str | None = None,
    image_mean: Levels | None = None,
    image_std: Levels | None = None,
) -> Compose:
    """Deterministic transforms for a named backbone: of cines, or of photographs.

    Args:
        size: name in :data:`monai_fedlora.networks.catalogue.BACKBONES`.
        style: of the photographs, "dermoscopy" (also None), "fundus" or "plain"; None for cines.
        image_mean: of each colour channel, of levels in [0, 1]; None for the backbone's, and for cines.
        image_std: likewise.

    Raises:
        ConfigError: there is no such size or style, a level is not valid, or the backbone takes no photographs.
    """
    chosen = architecture(size)
    if chosen.modality == "cine":
        return Compose(cine_preprocessing(**_grid(chosen, style, image_mean, image_std)))
    return Compose(photograph_preprocessing(**_picture(chosen, style, image_mean, image_std)))


def augmentation(
    *,
    size: str,
    enabled: bool = True,
    style: str | None = None,
    image_mean: Levels | None = None,
    image_std: Levels | None = None,
) -> Sequence[Callable]:
    """Random transforms for a named backbone, or none.

    Args:
        size: name in :data:`monai_fedlora.networks.catalogue.BACKBONES`.
        enabled: false gives no transforms.
        style, image_mean, image_std: as in :func:`preprocessing`.

    Raises:
        ConfigError: there is no such size or style, a level is not valid, or the backbone takes no photographs.
    """
    chosen = architecture(size)
    if chosen.modality == "cine":
        transforms = cine_augmentation(**_grid(chosen, style, image_mean, image_std))
    else:
        transforms = photograph_augmentation(**_picture(chosen, style, image_mean, image_std))
    return transforms if enabled else ()


def site_store(*, site: str, enabled: bool = True) -> Store | None:
    """Where a site keeps what can be computed again, for itself alone; None if not enabled or if it may have no room.

    It lies in a folder of the site's own below :func:`monai_fedlora.engines.store.store_root`.

    Raises:
        ConfigError: the limit in the environment is no number.
        DataError: the site's name is no name.
    """
    check_site_name(site)
    limit = store_limit()
    return Store(store_root() / site, limit=limit) if enabled and limit else None


def class_prompts(*, templates: Sequence[str] | None, class_texts: Mapping[str, str] | None) -> Prompts | None:
    """How classes are put into words; None where nothing is said of it.

    Raises:
        ConfigError: see :class:`monai_fedlora.networks.prompts.Prompts`.
    """
    said = {"templates": templates and tuple(templates), "class_texts": class_texts}
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return Prompts(**given) if given else None


def text_store(*, site: str) -> Path:
    """The folder in which a site keeps the features of the texts about its classes."""
    check_site_name(site)
    return cache_folder() / "texts" / site


def _grid(chosen: Architecture, style: str | None, mean: Levels | None, std: Levels | None) -> dict[str, Any]:
    for name, value in (("style", style), ("image_mean", mean), ("image_std", std)):
        if value is not None:
            raise ConfigError(f"{name} {value!r} is for photographs, and {chosen.name} takes cines; leave it out")
    return {"image_size": chosen.image_size, "spacing": chosen.spacing}


def _picture(chosen: Architecture, style: str | None, mean: Levels | None, std: Levels | None) -> dict[str, Any]:
    return {
        "style": style or DEFAULT_STYLE,
        "image_size": chosen.image_size,
        "mean": chosen.mean if mean is None else mean,
        "std": chosen.std if std is None else std,
    }
