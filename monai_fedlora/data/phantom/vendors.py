"""Four synthetic scanner vendors that image the same heart differently.

All numbers are ours, chosen so that the four sites differ in the ways in which real ones do:

* contrast: the brightness of blood, muscle and fat, the gamma curve and the stored intensity range;
* coil sensitivity: how fast the signal falls off behind the chest wall;
* sharpness: the part of k-space that was acquired and how it was filtered, hence Gibbs ringing or blur;
* noise: its level; the magnitude of complex noise is Rician;
* geometry: pixel size, matrix, slice distance, number of slices;
* orientation: the rotation of the chest in the picture, a fixed rotation or flip of the picture that the affine does
not
  hold, and the order of axes in files, which the affine holds (``geometry``);
* appearance of normal hearts: mean body height, darkness of the trabeculated layer (a dark layer looks like a thicker
  wall and a smaller cavity), and the share of the stroke that a prospectively triggered cine misses;
* case mix: the share of normal hearts (that of M&Ms, Campello et al., IEEE TMI 2021) and of the diseases (ours).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

GROUPS = ("NOR", "MINF", "DCM", "HCM", "RV")
"""ACDC's five groups: normal, infarction, dilated, hypertrophic, abnormal right ventricle."""


def _mix(minf: float, dcm: float, hcm: float, rv: float) -> Mapping[str, float]:
    return MappingProxyType({"MINF": minf, "DCM": dcm, "HCM": hcm, "RV": rv})


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """Parameters of a vendor's scanners and of the patients who are scanned with them.

    Attributes:
        code: letter used by M&Ms.
        name: the vendor, as M&Ms spells it.
        blood, myocardium, fat, muscle, liver, lung: signal of each tissue, arbitrary units, blood near 1.
        gamma: exponent applied to the magnitude image.
        scale: stored value of a signal of 1.
        coil_gain: signal next to the chest wall over the signal far from it, minus one.
        coil_length: distance over which the coil's sensitivity falls by e, mm.
        noise: standard deviation of each of the two noise channels, in units of the signal.
        acquired: part of k-space that was measured along each in-plane axis, 0..1.
        apodisation: 0 cuts k-space sharply (Gibbs ringing), 1 tapers it to zero (blur).
        pixel: in-plane pixel size, mm.  matrix: pixels (x, y) before ``quarter_turns``.
        slice_distance: distance between slice centres, mm.  slices: fewest and most slices of a stack.
        circular: whether the picture is black outside a circle.
        view: mean rotation of the chest in the picture, degrees.
        quarter_turns, mirrored: rotation and flip of the picture that the affine does not hold.
        trabeculation: 0 draws the trabeculated layer as blood, 1 as dark as muscle.
        ink: strength of the dark line where fat meets water, 0..1.
        height: mean body height of the people scanned, cm.
        missed_stroke: share of the stroke volume missed at end diastole.
        normal: share of normal hearts, 0..1.  diseases: relative shares of the other groups.
    """

    code: str
    name: str
    blood: float
    myocardium: float
    fat: float
    muscle: float
    liver: float
    lung: float
    gamma: float
    scale: float
    coil_gain: float
    coil_length: float
    noise: float
    acquired: float
    apodisation: float
    pixel: float
    matrix: tuple[int, int]
    slice_distance: float
    slices: tuple[int, int]
    circular: bool
    view: float
    quarter_turns: int
    mirrored: bool
    trabeculation: float
    ink: float
    height: float
    missed_stroke: float
    normal: float
    diseases: Mapping[str, float] = field(hash=False)

    def shares(self) -> dict[str, float]:
        """Return the share of each group among this vendor's patients; the shares add up to 1."""
        total = sum(self.diseases.values())
        return {"NOR": self.normal} | {
            group: (1 - self.normal) * self.diseases[group] / total for group in GROUPS if group != "NOR"
        }


VENDORS: Mapping[str, Vendor] = MappingProxyType(
    {
        "A": Vendor(
            code="A", name="Siemens",
            blood=1.0, myocardium=0.31, fat=0.98, muscle=0.25, liver=0.33, lung=0.045,
            gamma=1.0, scale=420.0, coil_gain=0.9, coil_length=70.0,
            noise=0.018, acquired=0.78, apodisation=0.25,
            pixel=1.5, matrix=(160, 192), slice_distance=10.0, slices=(9, 10), circular=False,
            view=0.0, quarter_turns=0, mirrored=False,
            trabeculation=0.60, ink=0.55, height=172.0, missed_stroke=0.0,
            normal=22 / 96, diseases=_mix(3, 3, 3, 2),
        ),
        "B": Vendor(
            code="B", name="Philips",
            blood=0.92, myocardium=0.36, fat=1.15, muscle=0.32, liver=0.42, lung=0.06,
            gamma=0.85, scale=600.0, coil_gain=0.35, coil_length=120.0,
            noise=0.012, acquired=0.92, apodisation=0.15,
            pixel=1.3, matrix=(192, 176), slice_distance=8.0, slices=(11, 13), circular=False,
            view=68.0, quarter_turns=0, mirrored=False,
            trabeculation=0.35, ink=0.35, height=180.0, missed_stroke=0.0,
            normal=65 / 125, diseases=_mix(2, 2, 5, 2),
        ),
        "C": Vendor(
            code="C", name="GE",
            blood=0.95, myocardium=0.27, fat=1.35, muscle=0.22, liver=0.26, lung=0.03,
            gamma=1.3, scale=210.0, coil_gain=1.7, coil_length=45.0,
            noise=0.020, acquired=0.85, apodisation=0.1,
            pixel=1.4, matrix=(192, 192), slice_distance=10.0, slices=(9, 10), circular=True,
            view=35.0, quarter_turns=3, mirrored=False,
            trabeculation=0.80, ink=0.75, height=170.0, missed_stroke=0.04,
            normal=21 / 77, diseases=_mix(5, 3, 2, 1),
        ),
        "D": Vendor(
            code="D", name="Canon",
            blood=0.78, myocardium=0.42, fat=0.72, muscle=0.38, liver=0.48, lung=0.09,
            gamma=0.95, scale=1500.0, coil_gain=0.5, coil_length=90.0,
            noise=0.034, acquired=0.62, apodisation=0.8,
            pixel=1.8, matrix=(160, 160), slice_distance=9.0, slices=(10, 12), circular=False,
            view=15.0, quarter_turns=0, mirrored=True,
            trabeculation=0.95, ink=0.15, height=160.0, missed_stroke=0.08,
            normal=14 / 50, diseases=_mix(2, 4, 2, 3),
        ),
    }
)  # fmt: skip
"""Vendors by their M&Ms letter."""
