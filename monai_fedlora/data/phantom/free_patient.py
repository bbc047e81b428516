"""Phantoms that stand for no demonstration: any heart, any scanner, and the truth about it in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom import acquisition, anatomy
from monai_fedlora.data.phantom.free_drawing import PARTS, draw_blood, draw_free_slices
from monai_fedlora.data.phantom.free_heart import clear_group, draw_free_form, draw_free_heart
from monai_fedlora.data.phantom.free_picture import add_tissue, exported, scan, shading
from monai_fedlora.data.phantom.free_scanner import draw_export, draw_scanner
from monai_fedlora.data.phantom.geometry import draw_directions
from monai_fedlora.data.phantom.heart_truth import heart_truth
from monai_fedlora.data.phantom.pathology import Heart
from monai_fedlora.data.phantom.patient import Streams, set_stage

_ROLL_DEGREES = (15.0, 40.0)
"""Standard deviation of the rotation of body and heart in the picture, and the largest (ours)."""

_UNKNOWN = 0.4
"""Share of the files that do not hold the orientation (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePatient:
    """A pair of stacks with the truth about the heart.

    Attributes:
        image: (2, Z, Y, X) float32 grey levels of ED and ES, whole numbers.
        occupancy: (2, 3, Z, Y', X') float32, the share of each voxel that LV, muscle and RV fill, 0..1, in the part
            of the picture that holds the heart.
        corner: column and row of the image at which that part begins.
        spacing: (x, y, z) mm.
        directions: (3, 3) directions of the picture's axes in the patient; None where the file does not hold them.
        truth: as :func:`monai_fedlora.data.phantom.heart_truth.heart_truth` gives it, of the whole heart.
        label: ACDC's group, a number in ``vendors.GROUPS``; -1 for none.
    """

    image: np.ndarray
    occupancy: np.ndarray
    corner: tuple[int, int]
    spacing: tuple[float, float, float]
    directions: np.ndarray | None
    truth: dict[str, float]
    label: int


def make_free_patient(seed: int | tuple[int, ...]) -> FreePatient:
    """Generate a patient; the same seed gives the same one, bit for bit."""
    streams = Streams.of(seed)
    numbers = streams.numbers
    vendor, export = draw_scanner(numbers), draw_export(numbers)
    heart = draw_free_heart(vendor, numbers)
    form, blood = draw_free_form(heart, streams.shape), draw_blood(streams.shape)
    thin = vendor.slice_distance / PARTS
    first, last, z = _positions(heart, vendor.slice_distance, numbers)
    whole = anatomy.surfaces(heart, z, anatomy.contraction(2), thin, form)
    truth = heart_truth(whole, thin)
    cut = _part(whole, slice(first * PARTS, last * PARTS))
    spread, most = _ROLL_DEGREES
    stage = set_stage(
        heart,
        _part(cut, slice(PARTS // 2, None, PARTS)),
        z[first * PARTS : last * PARTS][PARTS // 2 :: PARTS],
        vendor,
        streams.shape,
        streams.body,
        roll=math.radians(float(np.clip(numbers.normal(0, spread), -most, most))),
        unsteady=export.unsteady,
        coarse=3.0,
    )
    add_tissue(stage.signal, vendor.blood, vendor.pixel, streams.texture)
    signal, shares = draw_free_slices(stage, cut, blood, vendor, export, streams.texture)
    signal *= stage.gain * shading(stage.gain.shape, export, streams.texture)
    levels = acquisition.store(scan(signal, vendor, export, streams.noise), vendor).astype(np.float32)
    directions = draw_directions(streams.lying)
    return FreePatient(
        image=exported(levels, export),
        occupancy=shares,
        corner=(int(stage.box[1].start), int(stage.box[0].start)),
        spacing=(vendor.pixel, vendor.pixel, vendor.slice_distance),
        directions=None if streams.lying.random() < _UNKNOWN else directions,
        truth=truth,
        label=clear_group(heart, truth),
    )


def _positions(heart: Heart, distance: float, rng: np.random.Generator) -> tuple[int, int, np.ndarray]:
    """Places of the parts of slices in mm below the valve plane, which cover the whole heart, base first.

    Returns:
        The first and the last slice plus one that the stack has, of all that are cut, and the places.
    """
    most_above = 3
    length = anatomy.heart_length(heart)
    count = math.ceil(length / distance + 1) + most_above + 1
    centres = (np.arange(count) - most_above + rng.uniform(0.0, 1.0)) * distance
    z = (centres[:, None] + (np.arange(PARTS) - PARTS // 2) * (distance / PARTS)).ravel()
    first, last = most_above, int(np.searchsorted(centres, length))
    lacking = rng.random(2) < 0.2
    first += int(rng.integers(1, 3)) if lacking[0] else -int(rng.choice(3, p=(0.35, 0.5, 0.15)))
    last += -int(rng.integers(1, 4)) if lacking[1] else int(rng.choice(2, p=(0.7, 0.3)))
    return first, max(last, first + 4), z


def _part(cut: anatomy.Surfaces, kept: slice) -> anatomy.Surfaces:
    """The surfaces on some of the slices."""
    return anatomy.Surfaces(
        endo=cut.endo[:, kept],
        epi=cut.epi[:, kept],
        rv=cut.rv[:, kept],
        rv_inner=cut.rv_inner[:, kept],
        height=cut.height[:, kept],
    )
