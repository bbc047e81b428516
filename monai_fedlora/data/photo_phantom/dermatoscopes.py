"""Six synthetic dermatoscopes, with the clinics and patients of each.

All numbers are ours, chosen so that the six sites differ in the ways the six centres of Fed-ISIC2019 do (du Terrail
et al., NeurIPS Datasets and Benchmarks 2022):

* colour: white balance, saturation and tone curve;
* field of view: round with black corners, softly shaded, or filling the picture; shape of the picture;
* contact: gel bubbles, surface glare without cross-polarised light, ruler marks;
* sharpness, noise, magnification and compression;
* patients: skin tone, redness, sun damage, hair;
* case mix: which diagnoses occur. Half of the sites lack one of the four that demonstrations use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.data.photo_phantom.optics import Optics


def _shares(**shares: float) -> Mapping[str, float]:
    return MappingProxyType({name: shares.get(name, 0.0) for name in CLASSES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dermatoscope:
    """Parameters of a clinic's camera and of its patients.

    Attributes:
        code: letter of the camera.
        name: type of the camera.
        centre: number of the centre in the layout of Fed-ISIC2019.
        optics: colour, sharpness and noise.
        aspect: width over height of a picture.
        rim: radius of the round field in halves of the shorter side; beyond it is black. 0 fills the picture.
        shade: how much darker the corners are, 0..1.
        magnification: size of a lesion in the picture, over its usual size.
        glare, bubbles, ruler, hair, stubble: strength of the surface reflections, mean number of gel bubbles, share
            of pictures with ruler marks, mean number of long and of shaved hairs.
        tone, tones: median melanin of the skin and the deviation of its logarithm.
        redness: mean blood of the skin.
        damage: mean strength of freckles and fine red veins, 0..1.
        shares: relative share of each diagnosis.
    """

    code: str
    name: str
    centre: int
    optics: Optics
    aspect: float
    rim: float
    shade: float
    magnification: float
    glare: float
    bubbles: float
    ruler: float
    hair: float
    stubble: float
    tone: float
    tones: float
    redness: float
    damage: float
    shares: Mapping[str, float] = field(hash=False)


DERMATOSCOPES: Mapping[str, Dermatoscope] = MappingProxyType(
    {
        "A": Dermatoscope(
            code="A", name="contact dermatoscope with a round field", centre=0,
            optics=Optics(gain=(0.93, 0.93, 0.97), gamma=1.08, contrast=0.15, blur=0.35, noise=0.016, quality=88),
            aspect=4 / 3, rim=1.16, shade=0.25, magnification=0.85,
            glare=0.25, bubbles=0.35, ruler=0.05, hair=2.0, stubble=2.0,
            tone=0.16, tones=0.6, redness=0.07, damage=0.35,
            shares=_shares(MEL=23, NV=33, BCC=20, AK=6, BKL=12, DF=1, VASC=4, SCC=1),
        ),
        "B": Dermatoscope(
            code="B", name="video dermatoscope, red cast", centre=1,
            optics=Optics(gain=(1.05, 0.90, 0.95), saturation=1.05, exposure=0.05, drift=0.035, blur=0.75, noise=0.010,
                          quality=85, chroma=2),
            aspect=4 / 3, rim=0, shade=0.05, magnification=1.15,
            glare=0.08, bubbles=0.1, ruler=0.0, hair=4.0, stubble=0.3,
            tone=0.12, tones=0.45, redness=0.13, damage=0.10,
            shares=_shares(MEL=4, NV=74, BCC=1, BKL=14, DF=1, VASC=7),
        ),
        "C": Dermatoscope(
            code="C", name="polarised dermatoscope on a mirrorless camera", centre=2,
            optics=Optics(gain=(0.92, 0.95, 1.04), saturation=0.95, contrast=0.10, exposure=0.09, drift=0.03, blur=0.25,
                          noise=0.012, quality=92),
            aspect=1.5, rim=1.38, shade=0.18, magnification=0.95,
            glare=0.12, bubbles=0.3, ruler=0.10, hair=3.0, stubble=1.0,
            tone=0.13, tones=0.55, redness=0.06, damage=0.30,
            shares=_shares(MEL=20, NV=44, BCC=7, AK=1, BKL=19, DF=2, VASC=7, SCC=1),
        ),
        "D": Dermatoscope(
            code="D", name="skin-cancer practice, polarised, ruler in the field", centre=3,
            optics=Optics(gain=(0.95, 0.97, 1.0), saturation=1.02, contrast=0.2, exposure=0.08, blur=0.3, noise=0.014,
                          quality=90),
            aspect=4 / 3, rim=0, shade=0.15, magnification=0.8,
            glare=0.2, bubbles=0.2, ruler=0.6, hair=1.5, stubble=6.0,
            tone=0.22, tones=0.5, redness=0.10, damage=0.95,
            shares=_shares(MEL=20, NV=26, BCC=14, AK=6, BKL=29, DF=2, SCC=9),
        ),
        "E": Dermatoscope(
            code="E", name="telephone with a lens, city clinic", centre=4,
            optics=Optics(gain=(1.0, 0.95, 0.86), saturation=1.0, gamma=1.12, contrast=0.1, exposure=0.14, drift=0.05,
                          blur=0.55, noise=0.030, quality=72, chroma=2),
            aspect=1.0, rim=0, shade=0.45, magnification=0.9,
            glare=0.35, bubbles=0.4, ruler=0.02, hair=4.0, stubble=1.0,
            tone=0.55, tones=0.55, redness=0.08, damage=0.15,
            shares=_shares(NV=36, BCC=3, BKL=26, DF=3, VASC=30, AK=2),
        ),
        "F": Dermatoscope(
            code="F", name="scanned slides, immersion oil", centre=5,
            optics=Optics(gain=(1.0, 0.92, 1.0), saturation=1.0, gamma=1.05, contrast=0.40, exposure=0.05, blur=0.45,
                          noise=0.022, quality=90),
            aspect=1.5, rim=0, shade=0.08, magnification=1.1,
            glare=0.45, bubbles=0.6, ruler=0.0, hair=1.0, stubble=1.0,
            tone=0.13, tones=0.4, redness=0.08, damage=0.20,
            shares=_shares(MEL=36, NV=50, BCC=3, DF=2, VASC=9),
        ),
    }
)  # fmt: skip
"""Dermatoscopes by their letter."""
