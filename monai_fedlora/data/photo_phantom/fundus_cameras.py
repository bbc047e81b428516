"""Six synthetic fundus cameras, with the screening programmes or clinics and the patients of each.

All numbers are ours, chosen so that the six sites differ in the ways the six training domains of GDRBench do (Che et
al., MICCAI 2023):

* field of view: whole circle or cut at top and bottom, its width, and whether macula or disc is in the middle;
* colour: white balance, saturation, tone curve; pigment of the eyes;
* light: fall-off, haze at the rim, dust on the lens, sharpness, noise, compression;
* case mix: which grades occur. A referral clinic has no healthy eye, a screening programme no proliferative one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from monai_fedlora.data.photo_phantom.optics import Optics
from monai_fedlora.data.photo_phantom.retinopathy import GRADES


def _shares(*shares: float) -> Mapping[str, float]:
    return MappingProxyType(dict(zip(GRADES, shares, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class FundusCamera:
    """Parameters of a fundus camera and of its patients.

    Attributes:
        code: letter of the camera.
        name: type of the camera.
        domain: folder in the layout of GDRBench.
        suffix: ``.png`` or ``.jpg``, of its files.
        optics: colour, sharpness and noise.
        aspect: width over height of a picture.
        fill: radius of the round field in halves of the shorter side; above 1 the picture cuts it.
        reach: radius of the field in retina units, 1 being 22.5 degrees.
        look: position of the picture's middle between fovea (0) and disc (1).
        notch: whether the rim of the field has a notch.
        shade: how much darker the rim is, 0..1.
        haze: strength of the pale haze along the rim, 0..1.
        dust: number of specks on the lens, at the same places in all pictures.
        pigment, pigments: median melanin of the fundus and the deviation of its logarithm.
        shares: relative share of each grade.
    """

    code: str
    name: str
    domain: str
    suffix: str
    optics: Optics
    aspect: float
    fill: float
    reach: float
    look: float
    notch: bool
    shade: float
    haze: float
    dust: int
    pigment: float
    pigments: float
    shares: Mapping[str, float] = field(hash=False)


FUNDUS_CAMERAS: Mapping[str, FundusCamera] = MappingProxyType(
    {
        "A": FundusCamera(
            code="A", name="rural screening, mixed cameras", domain="APTOS", suffix=".png",
            optics=Optics(gain=(0.98, 0.90, 0.80), gamma=1.12, contrast=0.1, exposure=0.14, drift=0.05, blur=0.5,
                          noise=0.016),
            aspect=4 / 3, fill=1.08, reach=1.0, look=0.25, notch=False, shade=0.40, haze=0.15, dust=2,
            pigment=0.75, pigments=0.25, shares=_shares(49, 10, 27, 6, 8),
        ),
        "B": FundusCamera(
            code="B", name="community clinics, non-mydriatic", domain="DEEPDR", suffix=".jpg",
            optics=Optics(gain=(1.05, 0.88, 0.74), saturation=1.12, exposure=0.10, drift=0.03, blur=0.4, noise=0.014,
                          quality=88, chroma=2),
            aspect=1.0, fill=0.97, reach=1.0, look=0.45, notch=True, shade=0.25, haze=0.35, dust=0,
            pigment=0.60, pigments=0.20, shares=_shares(44, 12, 20, 18, 6),
        ),
        "C": FundusCamera(
            code="C", name="hospital, referred eyes", domain="FGADR", suffix=".png",
            optics=Optics(gain=(0.90, 0.92, 0.86), saturation=0.9, gamma=1.05, exposure=0.09, blur=0.35, noise=0.012),
            aspect=1.0, fill=0.96, reach=1.0, look=0.0, notch=False, shade=0.30, haze=0.10, dust=1,
            pigment=0.65, pigments=0.25, shares=_shares(0, 12, 32, 36, 20),
        ),
        "D": FundusCamera(
            code="D", name="eye clinic, 50 degrees, cut at top and bottom", domain="IDRID", suffix=".jpg",
            optics=Optics(gain=(1.10, 0.86, 0.62), saturation=1.15, contrast=0.2, exposure=0.06, blur=0.3, noise=0.010,
                          quality=92),
            aspect=1.5, fill=1.22, reach=1.1, look=0.1, notch=False, shade=0.35, haze=0.05, dust=0,
            pigment=0.70, pigments=0.2, shares=_shares(32, 5, 33, 18, 12),
        ),
        "E": FundusCamera(
            code="E", name="screening programme, three-chip camera", domain="MESSIDOR", suffix=".png",
            optics=Optics(gain=(1.02, 0.84, 0.60), gamma=1.15, contrast=0.15, exposure=0.07, blur=0.45, noise=0.014),
            aspect=1.5, fill=0.98, reach=0.98, look=0.15, notch=True, shade=0.30, haze=0.10, dust=3,
            pigment=0.38, pigments=0.35, shares=_shares(58, 16, 21, 5, 0),
        ),
        "F": FundusCamera(
            code="F", name="telephone adapter, green cast", domain="RLDR", suffix=".jpg",
            optics=Optics(gain=(0.86, 1.0, 0.92), saturation=0.95, gamma=1.08, exposure=0.16, drift=0.05, blur=0.75,
                          noise=0.026, quality=75, chroma=2),
            aspect=1.0, fill=0.94, reach=0.92, look=0.3, notch=False, shade=0.5, haze=0.5, dust=4,
            pigment=0.68, pigments=0.25, shares=_shares(10, 21, 55, 8, 6),
        ),
    }
)  # fmt: skip
"""Fundus cameras by their letter."""
