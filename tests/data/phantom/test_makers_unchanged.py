"""The four makers' pictures are the demonstrations': what is added for the stream must not change them."""

from __future__ import annotations

import numpy as np
import pytest

from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import VENDORS


@pytest.mark.parametrize(
    ("code", "group", "counts", "mean", "deviation", "pattern"),
    [
        ("A", "NOR", (7698, 8074, 10309), 132.740, 134.298, -139),
        ("B", "HCM", (11111, 40040, 12499), 202.633, 167.696, -4890),
        ("C", "MINF", (12871, 13026, 9235), 54.260, 118.216, -11490),
    ],
)
def test_a_makers_patient_is_the_one_it_was(code, group, counts, mean, deviation, pattern) -> None:
    """Up to the rounding of another processor's arithmetic; ``pattern`` weighs every pixel by a number of its own."""
    patient = make_patient(group, VENDORS[code], (7, 3))
    image = patient.image.astype(float)
    weights = np.cos(np.arange(image.size) * 0.37).reshape(image.shape)
    assert np.bincount(patient.mask.ravel())[1:] == pytest.approx(np.array(counts), abs=3)
    assert (image.mean(), image.std()) == pytest.approx((mean, deviation), abs=0.002)
    assert (image * weights).sum() == pytest.approx(pattern, abs=60)
