"""Scanners nobody modelled: every number is drawn from a wide continuous range.

Networks that are trained on them must not lean on the looks of a maker (domain randomisation, as SynthSeg does it for
brains: Billot et al., Medical Image Analysis 2023). The four makers of :mod:`monai_fedlora.data.phantom.vendors` do not
enter; all ranges are ours.
"""

from __future__ import annotations

import math

import numpy as np

from monai_fedlora.data.phantom.vendors import Vendor


def draw_scanner(rng: np.random.Generator) -> Vendor:
    """Draw a scanner; the shares of groups in it, its stack of slices and its turns are not used."""
    u = rng.uniform
    blood = u(0.7, 1.15)
    pixel = u(1.0, 2.2)
    across, down = (int(np.clip(u(200, 360) / pixel, 96, 288)) for _ in range(2))
    return Vendor(
        code="free",
        name="drawn at random",
        blood=blood,
        myocardium=blood * u(0.2, 0.58),
        fat=u(0.45, 1.5),
        muscle=u(0.14, 0.45),
        liver=u(0.18, 0.6),
        lung=u(0.01, 0.13),
        gamma=math.exp(u(-0.45, 0.45)),
        scale=math.exp(u(math.log(180), math.log(2500))),
        coil_gain=u(0.1, 2.2),
        coil_length=u(35, 150),
        noise=math.exp(u(math.log(0.004), math.log(0.05))),
        acquired=u(0.5, 1.0),
        apodisation=u(0.0, 0.95),
        pixel=pixel,
        matrix=(across, down),
        slice_distance=u(7.5, 10.5) if rng.random() < 0.8 else u(5, 12),
        slices=(0, 0),
        circular=bool(rng.random() < 0.2),
        view=u(-25, 75),
        quarter_turns=0,
        mirrored=False,
        trabeculation=u(0.1, 1.0),
        ink=u(0.0, 0.9),
        height=u(156, 184),
        missed_stroke=0.0,
        normal=1.0,
        diseases={},
    )
