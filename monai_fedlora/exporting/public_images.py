"""Public images: phantoms, and cases that their owner declares public."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from monai_fedlora.data.datalist import load_datalist, read_prepared
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import CINE_PHANTOMS, PHANTOMS, PhantomSettings, phantom_data, phantom_sites
from monai_fedlora.errors import DataError, ExportError
from monai_fedlora.exporting.directions import PublicFeatures
from monai_fedlora.exporting.modality import Modality
from monai_fedlora.networks.head_inputs import head_inputs, joined
from monai_fedlora.transforms.orientation import all_orders, is_known

PER_SCANNER = 32
"""Number of phantoms of each scanner or camera (ours)."""

PER_KIND = 5
"""Number of images of each scanner from which each kind of unusual image is made (ours)."""

MOST_OF_A_SITE = 96
"""Most public cases of a site, taken evenly from its list (ours)."""

SEED = 20261
"""Seed of the phantoms (ours), different from those of a plan's sites."""

Item = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PublicImages:
    """Sources of public images; phantoms are made on demand.

    Attributes:
        ordinary: functions that give datalist items, by scanner or camera.
        foreign: functions that give items of another kind of image, by kind.
        description: of all images, for a bundle's metadata.
        cases: names in ``ordinary`` that are cases of patients.
    """

    ordinary: Mapping[str, Callable[[], Sequence[Item]]]
    foreign: Mapping[str, Callable[[], Sequence[Item]]]
    description: str
    cases: tuple[str, ...] = ()


def public_images(phantom: str, *, prepared: Path | None = None) -> PublicImages:
    """Find or make public images.

    Args:
        phantom: "cine", "dermoscopy" or "fundus".
        prepared: folder of prepared sites whose cases are public, in addition to the phantoms.

    Raises:
        DataError: the prepared folder holds no site, or cannot be used.
        ExportError: it holds another kind of images.
    """
    ordinary: dict[str, Callable[[], Sequence[Item]]] = {
        f"phantom {site}": partial(_phantoms, phantom, site) for site in phantom_sites(phantom)
    }
    text = f"{PER_SCANNER} phantoms ({phantom}) of each of {len(ordinary)} devices"
    cases: list[str] = []
    found = read_prepared(prepared) if prepared and prepared.is_dir() else ()
    if prepared and not found:
        raise DataError(f"--public-data {prepared} is no prepared folder: it holds no site's datalist.json")
    for datalist in found:
        if (datalist.modality == "cine") != (phantom in CINE_PHANTOMS):
            raise ExportError(f"{prepared}: {datalist.site} has another kind of images than the model's ({phantom})")
        items = [item for split in ("training", "validation", "test") for item in datalist.items(split)]
        items = items[:: -(-len(items) // MOST_OF_A_SITE)]
        ordinary[f"public {datalist.site}"] = partial(list, items)
        cases.append(f"public {datalist.site}")
        text += f", {len(items)} public cases of {datalist.site} ({datalist.dataset})"
    others = [] if phantom in CINE_PHANTOMS else [kind for kind in PHANTOMS if kind not in (*CINE_PHANTOMS, phantom)]
    foreign = {f"phantom {kind}": partial(_phantoms, kind, "site-1") for kind in others}
    return PublicImages(ordinary=ordinary, foreign=foreign, description=text, cases=tuple(cases))


def _phantoms(phantom: str, site: str) -> list[Item]:
    kind = PhantomSettings if phantom in CINE_PHANTOMS else PhotoPhantomSettings
    settings = kind(training=PER_SCANNER, validation=0, test=0, seed=SEED)
    return list(load_datalist(phantom_data(site, phantom=phantom, settings=settings)).items("training"))


def public_features(
    network: nn.Module,
    images: PublicImages,
    modality: Modality,
    *,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> PublicFeatures:
    """Run a finished network on public images, and on unusual images made from them.

    Args:
        network: maps prepared images to logits.
        images: sources of the images.
        modality: reads and prepares them, and makes unusual images.
        on_image: called with the number of images done, and of all.

    Returns:
        Inputs of the classification heads. Kinds that the preprocessing refuses are absent: no distance is needed to
        detect them.

    Raises:
        ExportError: the inputs of the network's heads cannot be recorded.
    """
    preprocessor = modality.preprocessor().eval()
    found: dict[bool, dict[str, list[Tensor]]] = {True: {}, False: {}}
    ordinary_items = {name: items() for name, items in images.ordinary.items()}
    foreign_items = {name: items() for name, items in images.foreign.items()}
    kinds = len(modality.foreign)
    total = sum(len(items) + min(PER_KIND, len(items)) * kinds for items in ordinary_items.values())
    total += sum(map(len, foreign_items.values()))
    stream = _stream(ordinary_items, foreign_items, modality)
    with torch.no_grad(), eval_mode(network), head_inputs(network) as inputs:
        for done, (ordinary, name, raw) in enumerate(stream, start=1):
            try:
                prepared = preprocessor(raw[0][None].float(), *(part[None] for part in raw[1:]))
            except ValueError:
                if ordinary:
                    raise
            else:
                network(_every_order(prepared, *raw))
                if not inputs:
                    raise ExportError("the network does not show what its heads read")
                found[ordinary].setdefault(name, []).append(joined(inputs).mean(dim=0, keepdim=True))
            on_image(done, total)
    groups = [{name: torch.cat(rows) for name, rows in found[ordinary].items()} for ordinary in (True, False)]
    return PublicFeatures(ordinary=groups[0], foreign=groups[1])


def _every_order(prepared: Tensor, image: Tensor, affine: Tensor | None = None) -> Tensor:
    """A prepared image (1, ...), or all orders of its axes if its orientation is unknown."""
    known = affine is None or is_known(affine, list(image.shape[1:]))
    return prepared if known else all_orders(prepared[0])


def _stream(
    ordinary: Mapping[str, Sequence[Item]], foreign: Mapping[str, Sequence[Item]], modality: Modality
) -> Iterator[tuple[bool, str, tuple[Tensor, ...]]]:
    """All images, each with whether it is an ordinary one and the name of its group."""
    for scanner, items in ordinary.items():
        for index, item in enumerate(items):
            image, *rest = modality.inputs(item)
            yield True, scanner, (image, *rest)
            if index < PER_KIND:
                for kind, change in modality.foreign.items():
                    yield False, kind, (change(image), *rest)
    for kind, items in foreign.items():
        for item in items:
            yield False, kind, modality.inputs(item)
