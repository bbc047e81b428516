"""The eight diagnoses of ISIC 2019: their outlines and the functions that draw their signs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from monai_fedlora.data.photo_phantom import dermal, keratinocytic, melanocytic
from monai_fedlora.data.photo_phantom.outline import Habit
from monai_fedlora.data.photo_phantom.view import View


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One class of lesion.

    Attributes:
        habit: ranges of its outlines.
        draw: draws its signs and returns them by name.
        age: mean age of the patients, years (ours).
    """

    habit: Habit
    draw: Callable[[View, np.random.Generator], dict[str, float]]
    age: int


DIAGNOSES: Mapping[str, Diagnosis] = MappingProxyType(
    {
        "MEL": Diagnosis(
            Habit(size=(0.38, 0.85), elongation=(1.0, 1.5), lobes=(0.045, 0.14), ripple=(0.010, 0.030),
                  warp=(0.045, 0.12), bites=(0, 3), softness=(0.06, 0.32)),
            melanocytic.melanoma, 61,
        ),
        "NV": Diagnosis(
            Habit(size=(0.26, 0.75), elongation=(1.0, 1.5), lobes=(0.005, 0.055), ripple=(0.0, 0.008),
                  warp=(0.015, 0.065), bites=(0, 0), softness=(0.06, 0.45)),
            melanocytic.nevus, 44,
        ),
        "BCC": Diagnosis(
            Habit(size=(0.32, 0.75), elongation=(1.0, 1.5), lobes=(0.03, 0.10), ripple=(0.0, 0.012),
                  warp=(0.05, 0.12), bites=(0, 1), softness=(0.3, 0.8)),
            keratinocytic.basal_cell, 67,
        ),
        "AK": Diagnosis(
            Habit(size=(0.4, 0.85), elongation=(1.0, 1.5), lobes=(0.05, 0.12), ripple=(0.0, 0.015),
                  warp=(0.08, 0.16), bites=(0, 1), softness=(0.4, 0.9)),
            keratinocytic.actinic, 69,
        ),
        "BKL": Diagnosis(
            Habit(size=(0.32, 0.82), elongation=(1.0, 1.5), lobes=(0.02, 0.09), ripple=(0.005, 0.02),
                  warp=(0.03, 0.08), bites=(2, 8), softness=(0.03, 0.18)),
            keratinocytic.keratosis, 65,
        ),
        "DF": Diagnosis(
            Habit(size=(0.3, 0.6), elongation=(1.0, 1.3), lobes=(0.0, 0.04), ripple=(0.0, 0.01),
                  warp=(0.03, 0.08), bites=(0, 0), softness=(0.4, 0.9)),
            dermal.dermatofibroma, 50,
        ),
        "VASC": Diagnosis(
            Habit(size=(0.18, 0.5), elongation=(1.0, 1.35), lobes=(0.01, 0.06), ripple=(0.005, 0.02),
                  warp=(0.03, 0.07), bites=(0, 2), softness=(0.06, 0.22)),
            dermal.vascular, 52,
        ),
        "SCC": Diagnosis(
            Habit(size=(0.38, 0.8), elongation=(1.0, 1.45), lobes=(0.04, 0.11), ripple=(0.0, 0.02),
                  warp=(0.07, 0.14), bites=(0, 2), softness=(0.2, 0.55)),
            keratinocytic.squamous_cell, 71,
        ),
    }
)  # fmt: skip
"""Diagnoses by their ISIC 2019 code, in the order of its columns."""

CLASSES = tuple(DIAGNOSES)
"""ISIC 2019's eight classes; a label of Fed-ISIC2019 is an index into them."""
