"""Pre-training a backbone: on prepared sites without labels, on labelled phantoms, or a CLIP on captioned pictures."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import torch
from monai.data import Dataset
from torch.utils.data import ConcatDataset

from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.data.datalist import FILE_NAME, SPLITS, load_datalist
from monai_fedlora.data.phantom.cohort import name_seed
from monai_fedlora.data.photo_phantom.captions import facts_of, write_caption
from monai_fedlora.data.photo_phantom.optics import encode
from monai_fedlora.data.photo_phantom.photo_kinds import KINDS
from monai_fedlora.engines import supervised_pretraining
from monai_fedlora.engines.config import augmentation, pick_device, preprocessing
from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.heart_pretraining import Measured, heart_lesson
from monai_fedlora.engines.memory import Memory, using
from monai_fedlora.engines.photo_pretraining import MeasuredPictures, photo_lesson
from monai_fedlora.engines.supervised_pretraining import Lesson
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.files import sha256
from monai_fedlora.networks import contrast, pretraining
from monai_fedlora.networks.anchors import text_shape
from monai_fedlora.networks.catalogue import BUILT_IN, Architecture, architecture, build_backbone
from monai_fedlora.networks.cinema import SIZES
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.networks.weights import load_backbone

__all__ = ["Pretrained", "pretrain", "pretrain_clip", "pretrain_supervised"]

_SIDE = 120  # shorter side of a picture, pixels
_SKIN = 0.4  # share of skin lesions among the pictures; the others are retinas

OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A file of weights that was trained.

    Attributes:
        path: the safetensors file, a ``backbone`` for every function that takes one.
        losses: mean loss of each epoch.
    """

    path: Path
    losses: tuple[float, ...]

    @property
    def sha256(self) -> str:
        """Hash of the file, by which plans name it."""
        return sha256(self.path)


@dataclass(frozen=True, kw_only=True)
class PretrainedOnPhantoms(Pretrained):
    """A backbone that was trained on labelled phantoms.

    Attributes:
        measured: how well it reads phantoms that it has not seen.
    """

    measured: Measured | MeasuredPictures


def pretrain(
    data: Sequence[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    size: str = "small",
    styles: Sequence[str] = (),
    epochs: int = 60,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    mask_ratio: float = 0.6,
    standardise: bool = False,
    device: str = "auto",
    mixed_precision: Literal["off", "bf16"] = "off",
    seed: int = 0,
    provenance: str = "",
    on_epoch: OnEpoch = lambda epoch, loss: None,
) -> Pretrained:
    """Pre-train a backbone by masked auto-encoding on all splits of prepared sites; labels are not used.

    Args:
        data: folders of prepared sites.
        output: safetensors file to write.
        size: a backbone's name.
        styles: of the photographs, "dermoscopy", "fundus" or "plain": one for all, or one for each folder.
        epochs: passes over the images.
        batch_size: images in a step.
        learning_rate: the highest one.
        mask_ratio: share of the tokens hidden, between 0 and 1.
        standardise: bring the features that the head reads to mean 0 and unit scale over these images, inside the last
            norms.
        device: where to compute, such as "cpu" or "cuda:1"; "auto" takes the first GPU.
        mixed_precision: "bf16" computes matrix products and convolutions in bfloat16, for GPUs.
        seed: of every random choice.
        provenance: what the images are, kept in the file.
        on_epoch: called after each epoch with its number, from 1, and its loss.

    Returns:
        The file and the losses.

    Raises:
        ConfigError: a setting is out of range, or a site has images of another kind than the backbone takes.
        DataError: a folder holds no prepared site, or an image cannot be read.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.pretrain(["no_such_folder"], output="backbone.safetensors", size="vit_demo")
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.DataError: no_such_folder holds no prepared site...
    """
    data, styles = one_or_more(data), one_or_more(styles)
    if not data:
        raise ConfigError("there is nothing to train on; give folders of prepared sites")
    _check(output=output, mixed_precision=mixed_precision)
    if len(styles) not in (0, 1, len(data)):
        raise ConfigError(
            f"--style was given {len(styles)} times for {len(data)} --data; give it once, or once for each"
        )
    each: Sequence[str | None] = styles if len(styles) == len(data) else [*styles, None][:1] * len(data)
    modality = architecture(size).modality
    parts, plain = [], []
    with using(Memory()):
        for folder, style in zip(data, each, strict=True):
            items = _items(Path(folder), modality=modality, size=size)
            parts.append(_augmented(items, size=size, style=style, seed=seed))
            if standardise:
                plain.append(CaseDataset(items, preprocessing(size=size, style=style)))
    losses = pretraining.pretrain(
        _images(parts),
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        lr=learning_rate,
        mask_ratio=mask_ratio,
        seed=seed,
        output=Path(output),
        device=pick_device(device),
        bf16=mixed_precision == "bf16",
        standardise_on=(case["image"] for part in plain for case in part) if plain else None,  # type: ignore[attr-defined]
        provenance=provenance,
        on_epoch=_with_augmentation(parts, on_epoch),
    )
    return Pretrained(path=Path(output), losses=losses)


def pretrain_supervised(
    *,
    output: str | os.PathLike[str],
    size: str = "small",
    epochs: int = 60,
    phantoms: int = 512,
    views: int = 4,
    batch_size: int = 16,
    learning_rate: float = 1.5e-3,
    held_out: int = 200,
    start: str | os.PathLike[str] | None = None,
    device: str = "auto",
    mixed_precision: Literal["off", "bf16"] = "off",
    workers: int = 0,
    seed: int = 0,
    provenance: str = "",
    on_resume: Callable[[int], None] = lambda epochs: None,
    on_epoch: OnEpoch = lambda epoch, loss: None,
) -> PretrainedOnPhantoms:
    """Pre-train a backbone on labelled phantoms that are drawn while it trains.

    A cine backbone learns masks, volumes and classes of hearts, together with the decoder of its segmentation network,
    which lies in the same file. A vision transformer for photographs learns masks, amounts of pigment and blood, signs
    and classes of skin lesions and retinas.

    A training that was stopped goes on where the same call with the same settings is made again: what is reached after
    each epoch is kept beside the output, in a file whose name ends in ``.state``.

    Args:
        output: safetensors file to write.
        size: name of a cine backbone, or of a vision transformer for photographs.
        epochs: how many.
        phantoms: new ones in each epoch.
        views: how often each is shown in its epoch, turned, bent and with other levels each time.
        batch_size: phantoms in a step.
        learning_rate: the highest one.
        held_out: phantoms on which the result is measured.
        start: weights from which the backbone starts, as this function wrote them; None for random ones.
        device: where to compute, such as "cpu" or "cuda:1"; "auto" takes the first GPU.
        mixed_precision: "bf16" computes matrix products and convolutions in bfloat16, for GPUs.
        workers: processes that draw phantoms beside the training; the result does not depend on them.
        seed: of every random choice.
        provenance: kept in the file.
        on_resume: called with the number of finished epochs where a training goes on.
        on_epoch: called after each epoch with its number, from 1, and its loss.

    Returns:
        The file, the losses, and how well it reads phantoms that it has not seen.

    Raises:
        ConfigError: a setting is out of range, the backbone is of another kind, or a training of other settings was
            stopped beside this output.
        WeightsError: ``start`` does not fit.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.pretrain_supervised(output="backbone.safetensors", size="clip_demo")
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: labelled phantoms do not teach 'clip_demo'...
    """
    _check(output=output, mixed_precision=mixed_precision)
    place = pick_device(device)
    losses, measured = supervised_pretraining.pretrain_supervised(
        _lesson(size, seed=seed, device=place),
        size=size,
        epochs=epochs,
        phantoms=phantoms,
        views=views,
        batch_size=batch_size,
        lr=learning_rate,
        held_out=held_out,
        start=None if start is None else Path(start),
        seed=seed,
        output=Path(output),
        device=place,
        bf16=mixed_precision == "bf16",
        workers=workers,
        provenance=provenance,
        on_resume=on_resume,
        on_epoch=on_epoch,
    )
    return PretrainedOnPhantoms(path=Path(output), losses=losses, measured=measured)


def _lesson(size: str, *, seed: int, device: torch.device) -> Lesson[Any]:
    """What phantoms teach a backbone of this name."""
    if not _is_taught(chosen := architecture(size)):
        known = ", ".join(name for name, one in BUILT_IN.items() if _is_taught(one))
        raise ConfigError(f"labelled phantoms do not teach {size!r}; choose from {known}")
    if size in SIZES:
        return heart_lesson(size, seed=seed, device=device)
    return photo_lesson(chosen, seed=seed, device=device)


def _is_taught(chosen: Architecture) -> bool:
    """Whether phantoms with labels teach it: networks of this package, but none with a tower for texts."""
    return chosen.name in SIZES or (isinstance(chosen.shape, ViTSettings) and chosen.text is None)


def pretrain_clip(
    pictures: int,
    *,
    output: str | os.PathLike[str],
    size: str,
    cameras: Sequence[str] | None = None,
    start: str | None = None,
    epochs: int = 60,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    device: str = "auto",
    mixed_precision: Literal["off", "bf16"] = "off",
    seed: int = 0,
    provenance: str = "",
    on_picture: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: OnEpoch = lambda epoch, loss: None,
) -> Pretrained:
    """Train a small CLIP on generated skin lesions and retinas, and captions of what they show.

    Args:
        pictures: how many, at least 2.
        output: safetensors file to write; the tokens go beside it.
        size: name of a CLIP architecture, such as "clip_demo".
        cameras: that take the pictures, by letter; None for all.
        start: weights of vit_demo from which the image tower starts; None for random ones.
        epochs: passes over the pictures.
        batch_size: pictures in a step, at least 2.
        learning_rate: the highest one.
        device: where to compute, such as "cpu" or "cuda:1"; "auto" takes the first GPU.
        mixed_precision: "bf16" computes matrix products and convolutions in bfloat16, for GPUs.
        seed: of every random choice.
        provenance: what the pictures are, kept in the file.
        on_picture: called with the number of pictures drawn, and of all.
        on_epoch: called after each epoch with its number, from 1, and its loss.

    Returns:
        The file and the losses.

    Raises:
        ConfigError: the architecture reads no text, a camera is unknown, or a setting is out of range.

    Examples:
        >>> import monai_fedlora as fl
        >>> fl.pretrain_clip(100, output="clip.safetensors", size="vit_demo")
        Traceback (most recent call last):
            ...
        monai_fedlora.errors.ConfigError: ...vit_demo...
    """
    text_shape(size)
    _check(output=output, mixed_precision=mixed_precision)
    skin = round(pictures * _SKIN)
    if min(skin, pictures - skin) < 1:
        raise ConfigError("--captioned needs 2 pictures or more")
    tower: Any = None
    if start is not None:
        tower = build_backbone("vit_demo", out_chans=1)
        load_backbone(tower, start)
    facts: list[Any] = []
    parts = []
    with tempfile.TemporaryDirectory(prefix="pretrain_captioned_") as folder:
        for kind, count in (("dermoscopy", skin), ("fundus", pictures - skin)):
            told = partial(_tell, on_picture, len(facts), pictures)
            items, about = _draw(Path(folder), kind, count, cameras, seed, told)
            parts.append(_augmented(items, size=size, style=kind, seed=seed))
            facts += about
    losses = contrast.pretrain_clip(
        _images(parts),
        statements=[one.statements for one in facts],
        caption=lambda number, rng: write_caption(facts[number], rng),
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        lr=learning_rate,
        seed=seed,
        output=Path(output),
        device=pick_device(device),
        bf16=mixed_precision == "bf16",
        start=tower,
        provenance=provenance,
        on_epoch=_with_augmentation(parts, on_epoch),
    )
    return Pretrained(path=Path(output), losses=losses)


def _check(*, output: str | os.PathLike[str], mixed_precision: str) -> None:
    """Refuse before anything is computed what would only show at its end, or never."""
    if mixed_precision not in ("off", "bf16"):
        raise ConfigError(f"mixed_precision is {mixed_precision!r}; it is 'off' or 'bf16'")
    if Path(output).is_dir():
        raise ConfigError(f"{output} is a folder; name the safetensors file to write")


def _augmented(items: list[dict[str, Any]], *, size: str, style: str | None, seed: int) -> CaseDataset:
    random = augmentation(size=size, style=style)
    return CaseDataset(items, preprocessing(size=size, style=style), augmentation=random, seed=seed, progress=True)


def _tell(on_picture: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    on_picture(before + done, total)


def _images(parts: Sequence[CaseDataset]) -> Any:
    return Dataset(ConcatDataset(parts), transform=itemgetter("image"))  # type: ignore[arg-type]


def _with_augmentation(parts: Sequence[CaseDataset], on_epoch: OnEpoch) -> OnEpoch:
    """Let the data sets augment for the next epoch, and tell of the one that has ended."""

    def told(epoch: int, loss: float) -> None:
        for part in parts:
            part.set_epoch(epoch + 1)
        on_epoch(epoch, loss)

    return told


def _items(folder: Path, *, modality: str, size: str) -> list[dict[str, Any]]:
    """The cases of all splits of all prepared sites in a folder."""
    datalists = [load_datalist(path) for path in sorted(folder.glob(f"*/{FILE_NAME}"))]
    if not datalists:
        raise DataError(f"{folder} holds no prepared site (<site>/{FILE_NAME}); run monai-fedlora data first")
    if wrong := [datalist for datalist in datalists if datalist.modality != modality]:
        raise ConfigError(
            f"site {wrong[0].site} in {folder} holds cases of kind {wrong[0].modality!r}, but {size} takes {modality!r}"
        )
    return [item for datalist in datalists for split in SPLITS for item in datalist.items(split)]


def _draw(
    folder: Path, name: str, count: int, codes: Sequence[str] | None, seed: int, on_picture: Callable[[int], None]
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Write pictures of one kind and say what they show; the classes of its demonstration are drawn most often."""
    kind = KINDS[name]
    letters = codes or [*kind.cameras]
    if unknown := [code for code in letters if code not in kind.cameras]:
        raise ConfigError(f"there is no camera {unknown[0]!r}; choose from {', '.join(kind.cameras)}")
    groups = [*kind.demo] * 3 + [*kind.classes]
    items, facts = [], []
    for number in range(count):
        on_picture(number)
        camera = kind.cameras[letters[number // len(groups) % len(letters)]]
        group = groups[number % len(groups)]
        picture = kind.make(group, camera, (seed, name_seed(name), number), size=_SIDE)
        path = folder / f"{name}{number}.jpg"
        path.write_bytes(encode(picture.pixels, camera.optics, ".jpg"))
        items.append({"image": str(path)})
        facts.append(facts_of(group, camera, picture))
    return items, facts
