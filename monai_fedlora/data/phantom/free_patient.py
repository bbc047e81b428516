"""Phantoms that stand for no demonstration: any heart, any scanner, and the truth about it in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from monai_fedlora.data.phantom import acquisition, anatomy
from monai_fedlora.data.phantom.free_scanner import draw_scanner
from monai_fedlora.data.phantom.geometry import draw_directions
from monai_fedlora.data.phantom.heart_truth import heart_truth
from monai_fedlora.data.phantom.pathology import Heart, draw_heart
from monai_fedlora.data.phantom.patient import Streams, draw_scene
from monai_fedlora.data.phantom.vendors import GROUPS, Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePatient:
    """A pair of stacks with the truth about the heart.

    Attributes:
        image: (2, Z, Y, X) int16, ED and ES.
        occupancy: (2, 3, Z, Y, X) float32, the share of each voxel that LV, muscle and RV fill, 0..1.
        spacing: (x, y, z) mm.
        directions: (3, 3) directions of the picture's axes in the patient; None where the file does not hold them.
        truth: as :func:`monai_fedlora.data.phantom.heart_truth.heart_truth` gives it, of the whole heart.
        label: ACDC's group, a number in ``vendors.GROUPS``; -1 for none.
    """

    image: np.ndarray
    occupancy: np.ndarray
    spacing: tuple[float, float, float]
    directions: np.ndarray | None
    truth: dict[str, float]
    label: int


def make_free_patient(seed: int | tuple[int, ...]) -> FreePatient:
    """Generate a patient; the same seed gives the same one, bit for bit."""
    streams = Streams.of(seed)
    vendor = draw_scanner(streams.numbers)
    label = int(streams.numbers.integers(len(GROUPS)))
    heart = draw_heart(GROUPS[label], vendor, streams.numbers)
    z = _positions(heart, vendor, streams.numbers)
    cut = anatomy.surfaces(heart, z, anatomy.contraction(2), vendor.slice_distance, streams.shape)
    truth = heart_truth(cut, vendor.slice_distance)
    kept = _kept(len(z), streams.numbers)
    cut = replace(cut, endo=cut.endo[:, kept], epi=cut.epi[:, kept], rv=cut.rv[:, kept], height=cut.height[:, kept])
    scene = draw_scene(heart, cut, z[kept], vendor, streams)
    image = acquisition.store(acquisition.acquire(scene.signal, vendor, streams.noise), vendor)
    occupancy = np.stack([scene.mask == value for value in (1, 2, 3)], 1).astype(np.float32)
    directions = draw_directions(streams.lying)
    return FreePatient(
        image=image,
        occupancy=occupancy,
        spacing=(vendor.pixel, vendor.pixel, vendor.slice_distance),
        directions=directions if streams.lying.random() < 0.6 else None,
        truth=truth,
        label=label,
    )


def _positions(heart: Heart, vendor: Vendor, rng: np.random.Generator) -> np.ndarray:
    """Slice centres in mm below the valve plane that cover the whole heart and up to two slices beyond each end."""
    distance = vendor.slice_distance
    above, below = (int(rng.integers(0, 3)) for _ in range(2))
    count = math.ceil(anatomy.heart_length(heart) / distance) + above + below
    return (np.arange(count) - above + rng.uniform(0.0, 0.9)) * distance


def _kept(count: int, rng: np.random.Generator) -> slice:
    """The slices that a stack has; some stacks lack the base or the apex."""
    first = int(rng.integers(1, 3)) if rng.random() < 0.2 else 0
    last = int(rng.integers(1, 3)) if rng.random() < 0.2 else 0
    return slice(first, max(count - last, first + 4))
