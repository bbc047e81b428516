"""Scanners nobody modelled: every number is drawn from a wide continuous range.

Networks that are trained on them must not lean on the looks of a maker (domain randomisation, as SynthSeg does it for
brains: Billot et al., Medical Image Analysis 2023). The four makers of :mod:`monai_fedlora.data.phantom.vendors` do not
enter; all ranges are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.vendors import Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What happens to the picture besides what every scanner does.

    Attributes:
        rv_blood: signal of the blood in the RV over that in the LV.
        flow: share of its signal that moving blood loses at most, 0..1.
        bias: standard deviation of the logarithm of a smooth field over the picture.
        band: share of the signal lost in the dark bands of off-resonance, 0..1; 0 for none.
        sharpen: weight of the detail that is added to the picture, 0 for none.
        contrast: steepness of an S-shaped curve of the grey levels, 0 for none.
        window: percentiles between which the grey levels are stored; clipped outside.
        eight_bit: whether the levels are stored as 0..255.
        unsteady: standard deviation of the heart's place between breath-holds, mm.
        restless: the same between the frames of a slice, mm.
        profile: weight of the outer thirds of the distance between slices in a slice.
    """

    rv_blood: float
    flow: float
    bias: float
    band: float
    sharpen: float
    contrast: float
    window: tuple[float, float]
    eight_bit: bool
    unsteady: float
    restless: float
    profile: float


def draw_scanner(rng: np.random.Generator) -> Vendor:
    """Draw a scanner; the shares of groups in it, its stack of slices and its turns are not used."""
    u = rng.uniform
    blood = u(0.75, 1.2)
    pixel = u(1.0, 2.2)
    across, down = (int(np.clip(u(200, 350) / pixel, 96, 288)) for _ in range(2))
    gain = u(0.0, 1.0) if rng.random() < 0.6 else u(0.0, 2.2)
    return Vendor(
        code="free",
        name="drawn at random",
        blood=blood,
        myocardium=blood * u(0.16, 0.6),
        fat=u(0.35, 1.25),
        muscle=u(0.12, 0.45),
        liver=u(0.12, 0.6),
        lung=u(0.01, 0.12),
        gamma=math.exp(u(-0.5, 0.4)),
        scale=math.exp(u(math.log(250), math.log(2500))),
        coil_gain=gain,
        coil_length=u(35, 150),
        noise=math.exp(u(math.log(0.003), math.log(0.05))),
        acquired=u(0.42, 1.0) if rng.random() < 0.6 else u(0.7, 1.0),
        apodisation=u(0.0, 0.95),
        pixel=pixel,
        matrix=(across, down),
        slice_distance=u(7.5, 10.5) if rng.random() < 0.8 else u(5, 11),
        slices=(0, 0),
        circular=bool(rng.random() < 0.15),
        view=u(-20, 75),
        quarter_turns=0,
        mirrored=False,
        trabeculation=u(0.1, 1.2),
        ink=u(0.0, 0.9),
        height=u(156, 184),
        missed_stroke=0.0,
        normal=1.0,
        diseases={},
    )


def draw_export(rng: np.random.Generator) -> Export:
    """Draw the rest of a scanner, and what was done to the picture afterwards."""
    u = rng.uniform

    def sometimes(share: float, low: float, high: float) -> float:
        return float(u(low, high)) if rng.random() < share else 0.0

    return Export(
        rv_blood=u(0.65, 1.08),
        flow=sometimes(0.7, 0.05, 0.6),
        bias=u(0.0, 0.3),
        band=sometimes(0.15, 0.3, 0.9),
        sharpen=sometimes(0.2, 0.2, 1.2),
        contrast=sometimes(0.3, 1.0, 6.0),
        window=(sometimes(0.3, 0.0, 5.0), 100 - sometimes(0.5, 0.0, 4.0)),
        eight_bit=bool(rng.random() < 0.3),
        unsteady=u(0.2, 3.0),
        restless=u(0.0, 1.0),
        profile=u(0.12, 1 / 3),
    )
