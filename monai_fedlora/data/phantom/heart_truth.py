"""What is true of a phantom heart: volumes, ejection fractions and thickness, from the closed form of its surfaces."""

from __future__ import annotations

import numpy as np

from monai_fedlora.data.phantom.anatomy import N_ANGLES, Surfaces

TRUTHS = (
    "lv_ed_ml",
    "lv_es_ml",
    "rv_ed_ml",
    "rv_es_ml",
    "myo_ed_ml",
    "lv_ejection_percent",
    "rv_ejection_percent",
    "wall_mean_mm",
    "wall_largest_mm",
)
"""Names of what :func:`heart_truth` gives, in order; ``myo_ed_ml`` times 1.05 is the mass of the muscle in g."""

_WINDOW = N_ANGLES // 24  # a wall is as thick as it is over 15 degrees, not at one angle


def heart_truth(cut: Surfaces, distance: float) -> dict[str, float]:
    """Measure a whole heart.

    The walls are those of the cavity's slices at end diastole without the last fifth before the apex, where slices
    graze the wall; the largest is that over 15 degrees of the ring.

    Args:
        cut: at end diastole and end systole on slices that cover the whole heart.
        distance: slice distance, mm.

    Returns:
        Each of :data:`TRUTHS`, in mL, percent or mm.
    """
    endo, epi, rv_inner, rv = (
        (part**2).sum((1, 2)) * np.pi / N_ANGLES * distance / 1000 for part in (cut.endo, cut.epi, cut.rv_inner, cut.rv)
    )
    muscle, right = epi - endo, rv - rv_inner
    with_cavity = (cut.endo[0].min(-1) > 2) & (cut.height[0] > 0) & (cut.height[0] < 0.8)
    walls = (cut.epi[0] - cut.endo[0])[with_cavity]
    ring = np.concatenate([walls, walls[:, : _WINDOW - 1]], 1).cumsum(1)
    smooth = (ring[:, _WINDOW - 1 :] - np.pad(ring[:, :-_WINDOW], ((0, 0), (1, 0)))) / _WINDOW
    values = (
        *(endo[0], endo[1], right[0], right[1], muscle[0]),
        *(100 * (1 - endo[1] / endo[0]), 100 * (1 - right[1] / right[0])),
        *(walls.mean(), smooth.max()),
    )
    return {name: float(value) for name, value in zip(TRUTHS, values, strict=True)}
