"""Sizes and function of phantom hearts by ACDC's definition of its five groups.

The ranges follow the criteria published with ACDC (Bernard et al., IEEE TMI 2018, section II.A). Values are uniform in
a range (ours) that keeps enough distance from the criteria for a mask on a pixel grid to meet them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.vendors import Vendor
from monai_fedlora.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Bands:
    """Ranges from which a group's hearts are drawn.

    Volumes are per body surface area, mL/m2; ejection fractions are 0..1; thicknesses in mm at end diastole;
    ``elongation`` is the cavity's length over its diameter.
    """

    lv_volume: tuple[float, float]
    lv_ejection: tuple[float, float]
    wall: tuple[float, float]
    bulge: tuple[float, float] = (0.0, 0.0)
    rv_volume: tuple[float, float] = (62.0, 88.0)
    rv_ejection: tuple[float, float] = (0.50, 0.64)
    elongation: tuple[float, float] = (1.6, 1.85)


BANDS: dict[str, Bands] = {
    "NOR": Bands(lv_volume=(58, 80), lv_ejection=(0.57, 0.68), wall=(6.8, 8.9)),
    "MINF": Bands(
        lv_volume=(76, 112), lv_ejection=(0.20, 0.36), wall=(7.5, 9.8), elongation=(1.45, 1.7), rv_ejection=(0.45, 0.62)
    ),
    "DCM": Bands(
        lv_volume=(110, 165), lv_ejection=(0.12, 0.34), wall=(6.2, 8.8), elongation=(1.3, 1.5),
        rv_volume=(65, 98), rv_ejection=(0.25, 0.50),
    ),
    "HCM": Bands(
        lv_volume=(56, 78), lv_ejection=(0.63, 0.76), wall=(10.5, 12.5), bulge=(7.5, 12.5), rv_volume=(55, 80),
    ),
    "RV": Bands(
        lv_volume=(50, 72), lv_ejection=(0.55, 0.64), wall=(6.5, 8.8), rv_volume=(120, 165), rv_ejection=(0.18, 0.40),
    ),
}  # fmt: skip
"""Ranges of each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A patch of the wall with soft borders, in angle around the ring and in height from base to apex.

    Attributes:
        angle: middle of the patch, radians from the middle of the septum, positive towards the inferior wall.
        half_width: half of its angular extent, radians.
        height, half_height: middle and half extent from base (0) to apex (1).
    """

    angle: float
    half_width: float
    height: float
    half_height: float

    def weight(self, angle: np.ndarray, height: np.ndarray) -> np.ndarray:
        """Return the patch's weight (0..1) at broadcastable angles (radians) and heights (0 base, 1 apex)."""
        turn = np.abs((angle - self.angle + np.pi) % (2 * np.pi) - np.pi) / self.half_width
        rise = np.abs(height - self.height) / self.half_height
        return _plateau(turn) * _plateau(rise)


def _plateau(distance: np.ndarray) -> np.ndarray:
    """1 up to 0.7, falling as a cosine to 0 at 1.3."""
    return 0.5 + 0.5 * np.cos(np.pi * np.clip((distance - 0.7) / 0.6, 0, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heart:
    """One patient's heart.

    Attributes:
        group: ACDC group.
        sex: ``F`` or ``M``.  age: years.  height, weight: body, cm and kg.
        lv_volume, rv_volume: end-diastolic volumes, mL.  lv_ejection, rv_ejection: ejection fractions, 0..1.
        wall: mean end-diastolic wall thickness, mm.
        bulge: thickness added in ``thick``, mm.
        elongation: length of the LV cavity over its diameter.
        shortening: descent of the valve plane from end diastole to end systole, mm.
        flattening: how much the septum bows towards the LV, 0..1.
        thick: the hypertrophied patch, if any.  scar: the akinetic, thinned patch, if any.
    """

    group: str
    sex: str
    age: int
    height: float
    weight: float
    lv_volume: float
    lv_ejection: float
    rv_volume: float
    rv_ejection: float
    wall: float
    bulge: float
    elongation: float
    shortening: float
    flattening: float
    thick: Region | None
    scar: Region | None

    @property
    def surface(self) -> float:
        """Body surface area, m2 (Mosteller 1987)."""
        return float(np.sqrt(self.height * self.weight / 3600))


def draw_heart(group: str, vendor: Vendor, rng: np.random.Generator) -> Heart:
    """Draw a patient's heart.

    Raises:
        ConfigError: ``group`` is not one of ACDC's.
    """
    if group not in BANDS:
        raise ConfigError(f"unknown group {group!r}; choose from {', '.join(BANDS)}")
    bands = BANDS[group]
    sex = "M" if rng.random() < 0.55 else "F"
    height = float(np.clip(rng.normal(vendor.height + (5 if sex == "M" else -6), 6), 145, 205))
    weight = float(np.clip(rng.normal(25.5, 3), 19, 36)) * (height / 100) ** 2
    surface = np.sqrt(height * weight / 3600)
    size = height / 172  # lengths scale with the body, volumes with its surface
    ejection = rng.uniform(*bands.lv_ejection) * (1 - vendor.missed_stroke)
    scar = thick = None
    if group == "MINF":
        scar = Region(
            angle=rng.choice((-0.9, -0.9, 1.3, 2.6)) + rng.normal(0, 0.15), half_width=rng.uniform(0.75, 1.05),
            height=rng.uniform(0.55, 0.75), half_height=rng.uniform(0.35, 0.5),
        )  # fmt: skip
    if group == "HCM":
        thick = Region(
            angle=rng.normal(-0.25, 0.3), half_width=rng.choice((0.9, 1.2, 1.7)) + rng.normal(0, 0.1),
            height=rng.uniform(0.3, 0.5), half_height=rng.uniform(0.38, 0.55),
        )  # fmt: skip
    return Heart(
        group=group,
        sex=sex,
        age=int(rng.integers(20, 81)),
        height=height,
        weight=weight,
        lv_volume=surface * rng.uniform(*bands.lv_volume),
        lv_ejection=ejection,
        rv_volume=surface * rng.uniform(*bands.rv_volume),
        rv_ejection=rng.uniform(*bands.rv_ejection) * (1 - vendor.missed_stroke),
        wall=float(np.clip(size, 0.93, 1.05)) * rng.uniform(*bands.wall),
        bulge=rng.uniform(*bands.bulge),
        elongation=rng.uniform(*bands.elongation),
        shortening=size * (4 + 17 * ejection) * rng.uniform(0.85, 1.1),
        flattening=rng.uniform(0.35, 0.8) if group == "RV" else rng.uniform(0, 0.12),
        thick=thick,
        scar=scar,
    )
