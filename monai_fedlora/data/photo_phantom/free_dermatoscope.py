"""Dermatoscopes nobody modelled, and lesions beyond the bands of their diagnoses: every number from a wide range.

Networks that are trained on them must not lean on the looks of a clinic (domain randomisation, as SynthSeg does it for
brains: Billot et al., Medical Image Analysis 2023). The six of
:mod:`monai_fedlora.data.photo_phantom.dermatoscopes` do not enter; all ranges are ours.
"""

from __future__ import annotations

import math

import numpy as np

from monai_fedlora.data.photo_phantom.dermatoscopes import Dermatoscope
from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.data.photo_phantom.optics import Optics
from monai_fedlora.data.photo_phantom.outline import Habit

_WIDER = 0.5  # of a range's width, by which both ends move at most


def draw_optics(rng: np.random.Generator) -> Optics:
    """Draw colour, sharpness and noise of a camera; its file is not written, and has the usual quality."""
    u = rng.uniform
    red, green, blue = np.exp(rng.normal(0, 0.08, 3))
    return Optics(
        gain=(float(red), float(green), float(blue)),
        saturation=float(u(0.7, 1.25)),
        gamma=math.exp(u(-0.3, 0.4)),
        contrast=float(u(0, 0.45) * (rng.random() < 0.7)),
        exposure=float(u(0.04, 0.18)),
        drift=float(u(0, 0.05)),
        blur=math.exp(u(math.log(0.2), math.log(1.3))),
        noise=math.exp(u(math.log(0.004), math.log(0.04))),
    )


def draw_dermatoscope(rng: np.random.Generator) -> Dermatoscope:
    """Draw a dermatoscope and the people seen with it; the shares of diagnoses are equal and not used."""
    u = rng.uniform
    return Dermatoscope(
        code="free",
        name="drawn at random",
        centre=-1,
        optics=draw_optics(rng),
        aspect=float(u(1.0, 1.5)),
        rim=float(u(0.85, 1.5)) if rng.random() < 0.4 else 0.0,
        shade=float(u(0, 0.5)),
        magnification=math.exp(u(math.log(0.6), math.log(1.7))),
        glare=float(u(0, 0.5) * (rng.random() < 0.6)),
        bubbles=float(u(0, 0.8)),
        ruler=0.15,
        hair=float(u(0, 6)),
        stubble=float(u(0, 6)),
        tone=math.exp(u(math.log(0.06), math.log(0.6))),
        tones=0.4,
        redness=float(u(0.04, 0.2)),
        damage=float(u(0, 1)),
        shares=dict.fromkeys(CLASSES, 1.0),
    )


def draw_habit(habit: Habit, rng: np.random.Generator) -> Habit:
    """Draw the ranges of an outline: those of a diagnosis, wider by an amount that is itself drawn."""
    far = float(rng.random()) * _WIDER

    def wider(pair: tuple[float, float], least: float) -> tuple[float, float]:
        width = far * (pair[1] - pair[0])
        return max(pair[0] - width, least), pair[1] + width

    return Habit(
        size=wider(habit.size, 0.12),
        elongation=wider(habit.elongation, 1.0),
        lobes=wider(habit.lobes, 0.0),
        ripple=wider(habit.ripple, 0.0),
        warp=wider(habit.warp, 0.0),
        bites=(habit.bites[0], habit.bites[1] + round(2 * far)),
        softness=wider(habit.softness, 0.02),
    )
