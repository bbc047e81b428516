"""Scanners nobody modelled: every number is drawn from a wide continuous range.

Networks that are trained on them must not lean on the looks of a maker (domain randomisation, as SynthSeg does it for
brains: Billot et al., Medical Image Analysis 2023). The four makers of :mod:`monai_fedlora.data.phantom.vendors` do not
enter; all ranges are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len

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
        phases: part of k-space that was measured along the columns over that along the rows, 0..1.
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
    phases: float
    profile: float


def draw_scanner(rng: np.random.Generator) -> Vendor:
    """Draw a scanner; the shares of groups in it, its stack of slices and its turns are not used.

    How far its numbers may lie from those of common cines is drawn first, so that common and strange ones both occur.
    """
    u, far = rng.uniform, rng.random()

    def about(low: float, high: float, least: float, most: float) -> float:
        """A number from a common range, which ``far`` widens to ``least`` and ``most``."""
        return float(u(low + far * (least - low), high + far * (most - high)))

    blood = u(0.75, 1.2)
    pixel = 2.2 - 1.2 * u(0, 1) ** 2
    across, down = (next_fast_len(int(np.clip(u(200, 310) / pixel, 96, 288)), real=True) for _ in range(2))
    return Vendor(
        code="free",
        name="drawn at random",
        blood=blood,
        myocardium=blood * about(0.2, 0.4, 0.12, 0.62),
        fat=about(0.6, 1.1, 0.3, 1.4),
        muscle=about(0.15, 0.32, 0.1, 0.5),
        liver=about(0.15, 0.4, 0.1, 0.65),
        lung=about(0.02, 0.06, 0.005, 0.14),
        gamma=math.exp(about(-0.2, 0.25, -0.5, 0.5)),
        scale=math.exp(u(math.log(250), math.log(2500))),
        coil_gain=about(0.0, 0.9, 0.0, 2.2),
        coil_length=u(35, 150),
        noise=math.exp(about(math.log(0.005), math.log(0.02), math.log(0.002), math.log(0.06))),
        acquired=about(0.65, 1.0, 0.4, 1.0),
        apodisation=u(0.0, 0.95),
        pixel=pixel,
        matrix=(across, down),
        slice_distance=about(8.5, 10.3, 5.0, 11.0),
        slices=(0, 0),
        circular=bool(rng.random() < 0.1),
        view=u(-20, 75),
        quarter_turns=0,
        mirrored=False,
        trabeculation=about(0.5, 1.0, 0.0, 1.3),
        ink=about(0.2, 0.8, 0.0, 1.0),
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
        rv_blood=u(0.5, 1.08),
        flow=sometimes(0.7, 0.05, 0.6),
        bias=u(0.0, 0.3),
        band=sometimes(0.15, 0.3, 0.9),
        sharpen=sometimes(0.2, 0.2, 1.2),
        contrast=sometimes(0.3, 1.0, 6.0),
        window=(sometimes(0.3, 0.0, 5.0), 100 - sometimes(0.5, 0.0, 4.0)),
        eight_bit=bool(rng.random() < 0.3),
        unsteady=u(0.2, 3.0),
        restless=u(0.0, 1.0),
        phases=u(0.6, 1.0),
        profile=u(0.12, 1 / 3),
    )
