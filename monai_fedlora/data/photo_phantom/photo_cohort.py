"""The lesions or patients of a phantom of photographs: class and number of pictures of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.cohort import share_out


@dataclass(frozen=True, slots=True)
class Unit:
    """A lesion or a patient.

    Attributes:
        group: its class.
        pictures: number of its pictures, one or two.
    """

    group: str
    pictures: int


def draw_units(pictures: int, shares: Mapping[str, float], doubles: float, seed: Sequence[int]) -> list[Unit]:
    """Return units with a total of ``pictures`` pictures, in random order.

    Args:
        pictures: number of pictures.
        shares: relative share of each class among the pictures.
        doubles: share of the pictures that belong to a unit of two.
        seed: seed of the order.
    """
    units = []
    for group, count in share_out(pictures, shares).items():
        pairs = min(count // 2, int(count * doubles / 2 + 0.5))
        units += [Unit(group, 2)] * pairs + [Unit(group, 1)] * (count - 2 * pairs)
    order = np.random.default_rng(np.random.SeedSequence([*seed])).permutation(len(units))
    return [units[place] for place in order]
