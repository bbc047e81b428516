"""Sites of a few lesions each, made from the centres of Fed-ISIC2019, and as many lesions that they do not have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import monai_fedlora as fl
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import FILE_NAME, read_prepared
from monai_fedlora.engines.config import preprocessing
from monai_fedlora.engines.seeds import mix
from monai_fedlora.files import write_json

SPARE = 8
"""Lesions of a site's validation split, and of its test split."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Photographs of which the attacker asks whether a site trains on them, one of each lesion.

    Attributes:
        images: (N, 3, H, W), preprocessed.
        labels: (N,) classes.
        member: (N,) bool, the answer: half of them.
    """

    images: Tensor
    labels: Tensor
    member: Tensor


def prepared(source: Path, work: Path) -> Path:
    """The whole centres, read once."""
    whole = work / "whole"
    if not whole.is_dir():
        fl.prepare("fed_isic2019", source=source, output=whole, task="binary", published_split=False)
    return whole


def deal(
    whole: Path, output: Path, *, cases: int, seed: int, size: str, spare: int = SPARE
) -> Mapping[str, Candidates]:
    """Write a datalist for every centre with enough lesions, and return its candidates by its name.

    Members and others are drawn from the same lesions of the same centre, so that nothing but membership tells them
    apart; of a lesion with several photographs one is taken.
    """
    transform, found = preprocessing(size=size, style="dermoscopy"), dict[str, Candidates]()
    for centre in read_prepared(whole):
        one = {case.unit or case.subject: case for _, case in centre.all_cases()}
        lesions = [one[name] for name in sorted(one)]
        if len(lesions) < 2 * cases + 2 * spare:
            continue
        order = np.random.default_rng(mix(seed, centre.site)).permutation(len(lesions))
        drawn = [lesions[place] for place in order[: 2 * cases + 2 * spare]]
        members, others, left = drawn[:cases], drawn[cases : 2 * cases], drawn[2 * cases :]
        own = dataclasses.replace(
            centre, training=tuple(members), validation=tuple(left[:spare]), test=tuple(left[spare:])
        )
        write_json(output / centre.site / FILE_NAME, own.to_json())
        found[centre.site] = Candidates(
            images=_read(centre, members + others, transform),
            labels=torch.tensor([case.label for case in members + others]),
            member=torch.arange(2 * cases) < cases,
        )
    return found


def _read(centre: Datalist, cases: list[Case], transform: object) -> Tensor:
    assert callable(transform)
    paths = [str(centre.image_root / str(case.image)) for case in cases]
    return torch.stack([torch.as_tensor(dict(transform({"image": path}))["image"]) for path in paths])
