"""What a file of weights is, before any job names it."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.api.federation import CINE_BUNDLE, IMAGE_BUNDLE
from monai_fedlora.networks.checkpoint_files import listed
from monai_fedlora.networks.fits import Fit, find_fits
from monai_fedlora.networks.image_settings import ImageSettings, read_image_settings
from monai_fedlora.networks.open_clip_config import open_clip_config_beside
from monai_fedlora.networks.position import Resizing
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.networks.vit_config import config_beside
from monai_fedlora.networks.weights_sources import find_weights

__all__ = ["DescribedBackbone", "FittingSize", "describe_backbone"]

_SHOWN = 4
"""Names of tensors that a line shows."""


@dataclass(frozen=True, kw_only=True)
class FittingSize:
    """A size of the catalogue that a file fits, and what becomes of images.

    Attributes:
        name: for ``--size``, with the image size in pixels where the files beside say another than it is released for.
        source: the publication.
        n_loaded: tensors of the network that the file fills.
        left_over: names of the file's tensors that the network has no use for.
        image_size: of the network's input; ``image_size_from`` is who says it.
        mean, std: of each colour channel, of levels in [0, 1]; None for cines. ``normalisation_from`` is who says it.
        settings: what names and shapes of tensors do not tell; ``settings_from`` is who says it.
        resizing: how learned positions of another image size are interpolated, by the name of
            a rule in ``monai_fedlora.networks.position``; None where there are none.
        texts: whether its text tower can be used; None where it has none.
        no_texts: why not.
        command: that writes a job with it.
    """

    name: str
    source: str
    n_loaded: int
    left_over: tuple[str, ...]
    image_size: tuple[int, ...]
    image_size_from: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    normalisation_from: str
    settings: str
    settings_from: str
    resizing: Resizing | None
    texts: bool | None
    no_texts: str | None
    command: str

    @property
    def notes(self) -> list[str]:
        """The same, a line each."""
        size = " x ".join(map(str, self.image_size))
        lines = [f"fits {self.name}: {self.source}"]
        if self.mean is None or self.std is None:
            lines.append(f"  images: {size} voxels ({self.image_size_from}), each scaled to its own range")
        else:
            mean, std = (" ".join(f"{level:g}" for level in levels) for levels in (self.mean, self.std))
            lines += [
                f"  images: {size} pixels ({self.image_size_from})",
                f"  normalised by: mean {mean}, standard deviation {std} ({self.normalisation_from})",
                f"  settings: {self.settings} ({self.settings_from})",
            ]
        if self.resizing is not None:
            lines.append(f"  positions, for another image size: interpolated, {self.resizing}")
        lines.append(f"  used: {self.n_loaded} tensors of the network")
        if self.left_over:
            lines.append(f"  left over by images: {listed(list(self.left_over), _SHOWN)}")
        if self.texts:
            lines.append("  texts: its text tower and tokens are there, for methods that compare images with words")
        elif self.no_texts:
            lines.append(f"  texts cannot be read: {self.no_texts}")
        return [*lines, f"  use: {self.command}"]


@dataclass(frozen=True, kw_only=True)
class DescribedBackbone:
    """What a file of weights is, and how it would be used.

    Attributes:
        path: the file, or the folder of several, on this machine.
        sha256: what a plan pins.
        tensors: in the file.
        layout: whose names the tensors have; None where they have nobody's that is known.
        prefix: what stands in front of every name of the network's.
        fitting: the sizes that it fits.
        unfit: by size that it could be of, why it does not fit.
    """

    path: Path
    sha256: str
    tensors: int
    layout: str | None
    prefix: str
    fitting: tuple[FittingSize, ...]
    unfit: dict[str, str]

    @property
    def usable(self) -> bool:
        """Whether a job can name it."""
        return bool(self.fitting)

    @property
    def notes(self) -> list[str]:
        """What it is, what of it is used, left over or missing, and how to use it, a line each."""
        known = f"named as in {self.layout}" if self.layout else "named as in no known layout"
        behind = f", each behind {self.prefix!r}" if self.prefix else ""
        lines = [f"{self.path}: {self.tensors} tensors, {known}{behind}", f"SHA-256: {self.sha256}"]
        for each in self.fitting:
            lines += each.notes
        if not self.fitting:
            lines += [f"not {name}: {why}" for name, why in self.unfit.items()]
            lines.append(
                "no size of the catalogue fits; a network that you build yourself takes adapters by fl.attach, see "
                "docs/backbones.md"
            )
        elif len(self.fitting) > 1:
            lines.append("names and shapes alone do not tell these sizes apart: take the one that its owner names")
        return lines

    def to_json(self) -> dict[str, Any]:
        """As values of JSON."""
        return {**asdict(self), "path": str(self.path), "usable": self.usable}


def describe_backbone(source: str | os.PathLike[str]) -> DescribedBackbone:
    """Say what a file of weights is: whose layout, which size, what of it is used, and what becomes of images.

    Args:
        source: a file, a folder, or a name on the hub, ``hf://owner/repo``.

    Returns:
        The description; ``usable`` says whether a job can name the file.

    Raises:
        WeightsError: a file is missing or damaged, or holds more than tensors.

    Examples:
        >>> import monai_fedlora as fl
        >>> from monai_fedlora.resources import weights_path
        >>> found = fl.describe_backbone(weights_path("demo_vit.safetensors"))
        >>> found.usable, found.layout, [each.name for each in found.fitting]
        (True, "this package's own", ['vit_demo'])
    """
    named = str(source)
    checkpoint = find_weights(named)
    found = find_fits(named, checkpoint)
    fitting = [fit for fit in found.sizes if not fit.problem]
    said = read_image_settings(named) if any(fit.architecture.mean for fit in fitting) else ImageSettings()
    config = checkpoint.config or config_beside(checkpoint.path) or open_clip_config_beside(checkpoint.path)
    return DescribedBackbone(
        path=checkpoint.path,
        sha256=checkpoint.sha256(),
        tensors=found.n_tensors,
        layout=found.layout,
        prefix=found.prefix,
        fitting=tuple(_fitting(fit, said, named, config) for fit in fitting),
        unfit={fit.architecture.name: fit.problem for fit in found.sizes if fit.problem},
    )


def _fitting(fit: Fit, said: ImageSettings, source: str, config: Path | None) -> FittingSize:
    row = fit.architecture
    name, image_size, who = row.name, row.image_size, f"as {row.name} has it"
    mean, std, normalised_by = row.mean, row.std, who
    settings, settings_from = "", who
    if isinstance(row.shape, ViTSettings):
        shape = row.shape
        if said.side is not None and said.side.value % shape.patch == 0:
            side, who = said.side.value, said.side.file
            name = row.name if (side, side) == row.image_size else f"{row.name}-{side}"
            image_size = (side, side)
        told = {each.file for each in (said.mean, said.std) if each is not None}
        mean = said.mean.value if said.mean else mean
        std = said.std.value if said.std else std
        normalised_by = " and ".join(sorted(told)) or normalised_by
        settings = f"{shape.n_heads} heads, {shape.activation}, epsilon {shape.norm_eps:g}, readout {shape.readout}"
        settings_from = _who_says(fit, config)
    bundle = CINE_BUNDLE if row.modality == "cine" else IMAGE_BUNDLE
    words = ["monai-fedlora", "job", "dual_lora", "--output", "JOB", "--bundle", bundle, "--size", name]
    return FittingSize(
        name=name,
        source=row.source,
        n_loaded=fit.n_loaded,
        left_over=fit.skipped,
        image_size=image_size,
        image_size_from=who,
        mean=mean,
        std=std,
        normalisation_from=normalised_by,
        settings=settings,
        settings_from=settings_from,
        resizing=fit.resizing,
        texts=None if row.text is None else fit.no_texts is None,
        no_texts=fit.no_texts,
        command=shlex.join([*words, "--backbone", source]),
    )


def _who_says(fit: Fit, config: Path | None) -> str:
    """Who says heads, activation and epsilon, which no name or shape of a tensor tells."""
    name = fit.architecture.name
    assumed = f"assumed as of {name}: no file beside says {', '.join(fit.assumed)}" if fit.assumed else ""
    if config is not None:
        return "; ".join(filter(None, (config.name, f"the readout is that of {name}", assumed)))
    return assumed or "the file itself"
