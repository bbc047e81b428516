"""Eight sites made from the four centres of Fed-ISIC2019, with their photographs in memory."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import monai_fedlora as fl
from monai_fedlora.data.cases import Case
from monai_fedlora.data.datalist import read_prepared
from monai_fedlora.engines.config import preprocessing
from monai_fedlora.files import load_tensors, save_tensors

CLASSES = ("NV", "MEL", "BCC", "BKL")
"""Those of which every split has a hundred photographs or more."""
PARTS = ("training", "test")
HALVES = ("a", "b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Photographs:
    """Of one site and one split.

    Attributes:
        images: (N, 3, H, W), preprocessed.
        labels: (N,) places in :data:`CLASSES`.
        lesions: (N,) their names.
    """

    images: Tensor
    labels: Tensor
    lesions: tuple[str, ...]


Sites = Mapping[str, Mapping[str, Photographs]]
"""By site and by part."""


def chosen(cases: Sequence[Case], *, half: int, most: int) -> list[Case]:
    """Photographs of one of two halves of the lesions, no more than ``most`` of a class; the same ones each time."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: hashlib.sha256(case.subject.encode()).hexdigest()):
        lesion = case.unit or case.subject
        own = hashlib.sha256(lesion.encode()).digest()[0] % 2 == half
        if own and case.group in CLASSES and len(found[case.group]) < most:
            found[case.group].append(case)
    return [case for name in CLASSES for case in found[name]]


def eight_sites(source: Path, work: Path, *, size: str, most: Mapping[str, int]) -> Sites:
    """Read and preprocess the photographs, or what an earlier start has kept of them in ``work``.

    Args:
        source: folder of Fed-ISIC2019.
        work: folder of this benchmark.
        size: of the backbone.
        most: photographs of a class at a site, by part.
    """
    whole, kept = work / "whole", work / "images"
    if not whole.is_dir():
        fl.prepare("fed_isic2019", source=source, output=whole, fractions=(0.5, 0.0, 0.5), published_split=False)
    transform, sites = preprocessing(size=size, style="dermoscopy"), dict[str, dict[str, Photographs]]()
    for centre in read_prepared(whole):
        for half, letter in enumerate(HALVES):
            site = f"{centre.site}{letter}"
            for part in PARTS:
                cases = chosen(centre.cases(part), half=half, most=most[part])
                path = kept / f"{site}_{part}_{most[part]}.safetensors"
                if not path.is_file():
                    items = [dict(transform({"image": str(centre.image_root / str(case.image))})) for case in cases]
                    images = torch.stack([torch.as_tensor(item["image"]) for item in items])
                    save_tensors(path, {"images": images})
                sites.setdefault(site, {})[part] = Photographs(
                    images=load_tensors(path)[0]["images"],
                    labels=torch.tensor([CLASSES.index(case.group) for case in cases]),
                    lesions=tuple(case.unit or case.subject for case in cases),
                )
    return sites
