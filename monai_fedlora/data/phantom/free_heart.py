"""Hearts of no group: sizes, function and shape drawn from continuous ranges between and beyond those of the groups.

Half of the hearts are drawn from a group's bands, with wider shapes; of the other half every number is drawn for
itself. A heart gets a group's label only where it meets the criteria clearly; all ranges are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from monai_fedlora.data.phantom.anatomy import ANGLES, Form
from monai_fedlora.data.phantom.pathology import Heart, Region, draw_heart
from monai_fedlora.data.phantom.vendors import GROUPS, Vendor

Array = np.ndarray

NO_GROUP = -1


def draw_free_heart(vendor: Vendor, rng: np.random.Generator) -> Heart:
    """Draw a heart; ``group`` is empty for one that was not drawn from a group's bands.

    Args:
        vendor: its ``height`` and ``missed_stroke`` are used.
        rng: source of all numbers.
    """
    heart = draw_heart(str(rng.choice(GROUPS)), vendor, rng)
    if rng.random() < 0.5:
        return replace(
            heart,
            elongation=heart.elongation * rng.uniform(0.9, 1.15),
            shortening=heart.shortening * rng.uniform(0.6, 1.25),
            flattening=min(1.0, heart.flattening + rng.uniform(0, 0.15)),
            wall=heart.wall * rng.uniform(0.75, 1.05),
            rv_volume=heart.rv_volume * (rng.uniform(0.8, 1.4) if heart.group == "RV" else rng.uniform(0.85, 1.1)),
        )
    u, surface = rng.uniform, heart.surface
    lv_index = math.exp(u(math.log(38), math.log(185)))
    ejection = float(np.clip(u(0.08, 0.8) + 0.1 * (75 - lv_index) / 75, 0.07, 0.8))  # large hearts eject less
    scar = thick = None
    if rng.random() < 0.3:
        ejection = min(ejection, u(0.1, 0.55))  # the rest of the wall cannot do the work of all
        scar = Region(
            angle=u(-math.pi, math.pi), half_width=u(0.35, 1.4), height=u(0.15, 0.95), half_height=u(0.2, 0.6)
        )
    elif rng.random() < 0.4:
        thick = Region(angle=u(-math.pi, math.pi), half_width=u(0.4, 2.0), height=u(0.1, 0.9), half_height=u(0.2, 0.7))
    return replace(
        heart,
        group="",
        lv_volume=surface * lv_index,
        lv_ejection=ejection,
        rv_volume=surface * math.exp(u(math.log(42), math.log(230))),
        rv_ejection=u(0.12, 0.72),
        wall=u(4.2, 8.0) if rng.random() < 0.5 else u(6.0, 14.5),
        bulge=0.0 if thick is None else u(1.0, 15.0),
        elongation=u(1.2, 2.1),
        shortening=(2 + 19 * ejection) * u(0.5, 1.3),
        flattening=u(0, 0.15) if rng.random() < 0.6 else u(0, 1.0),
        thick=thick,
        scar=scar,
    )


def clear_group(heart: Heart, truth: Mapping[str, float]) -> int:
    """The group whose criteria a heart meets with a margin, a number in ``GROUPS``; -1 for none or several.

    The criteria are ACDC's (Bernard et al., IEEE TMI 2018), the margins ours.

    Args:
        heart: sizes and function.
        truth: as ``heart_truth.heart_truth`` measures it.
    """
    lv, rv = truth["lv_ed_ml"] / heart.surface, truth["rv_ed_ml"] / heart.surface
    ejection, rv_ejection = heart.lv_ejection, heart.rv_ejection
    thick, mass = truth["wall_largest_mm"], 1.05 * truth["myo_ed_ml"] / heart.surface
    scarred = heart.scar is not None
    wide = heart.scar is not None and heart.scar.half_width > 0.65 and heart.scar.half_height > 0.32
    rv_well = rv < 100 and rv_ejection > 0.43
    met = {
        "NOR": ejection > 0.54 and 40 < lv < 86 and thick < 11 and rv_well and not scarred and heart.flattening < 0.3,
        "MINF": ejection < 0.38 and wide and thick < 12.5 and rv_ejection > 0.38 and rv < 105,
        "DCM": ejection < 0.37 and lv > 104 and thick < 11.5 and not scarred,
        "HCM": ejection > 0.54 and lv < 92 and thick > 15.5 and mass > 90 and rv_well and not scarred,
        "RV": ejection > 0.5 and lv < 86 and thick < 11.5 and not scarred and (rv > 116 or rv_ejection < 0.36),
    }
    found = [number for number, group in enumerate(GROUPS) if met[group]]
    return found[0] if len(found) == 1 else NO_GROUP


def draw_free_form(heart: Heart, rng: np.random.Generator) -> Form:
    """Draw a shape: rings, walls and crescents that change along the heart."""
    u = rng.uniform
    ring_waves = [(n, u(0, most), u(-np.pi, np.pi), u(-1.2, 1.2)) for n, most in ((2, 0.16), (3, 0.07), (4, 0.04))]
    wall_waves = [(n, u(0, most), u(-np.pi, np.pi), u(-1.0, 1.0)) for n, most in ((1, 0.16), (2, 0.10), (3, 0.06))]
    outlet, thin = u(-0.9, 0.1), u(0, 0.6)  # the wall below the aorta is thin or missing
    apical = u(-0.1, 0.3)
    skew, tilt = rng.normal(-0.12, 0.15), u(0.8, 2.4)
    anterior, inferior = u(1.15, 1.75), u(1.05, 1.6)
    wide = float(np.clip((heart.rv_volume / heart.surface - 90) / 80, 0, 1))  # a dilated RV forms the apex
    narrowing, power = u(0.25, 0.7) * (1 - 0.4 * wide), u(2.0, 5.0)
    tip, fall = u(0.76 + 0.14 * wide, 0.96 + 0.03 * wide), u(1.3, 4.5)
    blunt = u(-0.15, 0.6)
    over = u(0.0, 0.1) if rng.random() < 0.6 else 0.0
    corners = [(u(-1.2, -0.5), u(0, 0.9), u(0.25, 0.5)), (u(0.4, 1.1), u(0, 0.8), u(0.25, 0.5))]
    hollow, waist = u(0.0, 0.45), u(-0.3, 0.3)
    ripples = [(n, u(0, 0.12), u(-np.pi, np.pi), u(-3, 3)) for n in (4, 5, 7)]

    def waves(of: list[tuple[int, float, float, float]], height: Array) -> Array:
        total = np.ones((len(height), len(ANGLES)))
        for n, amount, phase, drift in of:
            total += amount * np.cos(n * ANGLES + phase + drift * height)
        return total

    def ring(height: Array) -> Array:
        squared = waves(ring_waves, height) * (1 - 0.5 * heart.flattening * np.exp(-((ANGLES / 0.75) ** 2)))
        towards_apex = np.clip((height - 0.2) / 0.8, 0, 1) ** 2
        return np.asarray(squared / squared.mean(1, keepdims=True) * (1 + blunt * towards_apex))

    def wall(height: Array) -> Array:
        opening = thin * np.exp(-((np.clip(height, 0, None) / 0.12) ** 2)) * np.exp(-(((ANGLES - outlet) / 0.6) ** 2))
        return np.asarray(waves(wall_waves, height) * (1 - opening) * (1 - apical * np.clip(height - 0.4, 0, 0.6)))

    def room(height: Array) -> Array:
        inside = (height >= -over) & (height < tip)
        size = np.clip(1 - (np.clip(height - 0.08, 0, None) / (tip - 0.08)) ** fall, 0, None)
        size = size * np.where(height < 0, np.clip(1 + 2.5 * height, 0.4, 1), 1)
        along = np.clip(height, 0, 1)
        place = ANGLES - skew * (tilt - 2 * height)
        half = np.where(place < 0, anterior, inferior) * (1 - narrowing * along)
        lean = np.abs(place) / half
        crescent = np.clip(1 - lean**power, 0, None)
        crescent = crescent * (1 - hollow * np.exp(-(((place - waist) / 0.45) ** 2)))
        for angle, amount, width in corners:
            crescent = crescent * (1 + amount * np.exp(-(((place - angle * (1 - 0.4 * along)) / width) ** 2)))
        return np.where(inside, size * crescent * np.clip(waves(ripples, height), 0.5, None), 0)

    return Form(ring=ring, wall=wall, room=room)
