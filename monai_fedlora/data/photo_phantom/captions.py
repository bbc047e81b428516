"""Captions of phantom photographs, made from what was drawn, for training models on images and texts.

A caption states some of the facts about its picture. These are kept beside the text, so that one can tell for every
other picture whether the caption is true for it too. All words and limits are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from monai_fedlora.data.photo_phantom.dermoscopy import Dermoscopy
from monai_fedlora.data.photo_phantom.fundus import Fundus
from monai_fedlora.data.photo_phantom.photo_kinds import Camera

CLASS_NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "MEL": ("melanoma", "malignant melanoma"),
        "NV": ("melanocytic naevus", "naevus", "nevus", "mole"),
        "BCC": ("basal cell carcinoma",),
        "AK": ("actinic keratosis",),
        "BKL": ("benign keratosis", "seborrhoeic keratosis"),
        "DF": ("dermatofibroma",),
        "VASC": ("vascular lesion", "angioma", "haemangioma"),
        "SCC": ("squamous cell carcinoma",),
        "nodr": ("no diabetic retinopathy", "retina without diabetic retinopathy"),
        "mild_npdr": ("mild non-proliferative diabetic retinopathy", "mild diabetic retinopathy"),
        "moderate_npdr": ("moderate non-proliferative diabetic retinopathy", "moderate diabetic retinopathy"),
        "severe_npdr": ("severe non-proliferative diabetic retinopathy", "severe diabetic retinopathy"),
        "pdr": ("proliferative diabetic retinopathy",),
    }
)
"""Names of the classes, the most common one first."""

OPENINGS = ("a photo of", "a photograph of", "a picture of", "an image of", "a close-up of", "this is", "")
SPECIAL_OPENINGS = {
    "dermoscopy": ("a dermoscopic image of", "a dermoscopy photo of", "a skin lesion photo of"),
    "fundus": ("a fundus photo of", "a fundus image of", "a retinal photograph of"),
}
CAMERAS = {
    "dermoscopy": {
        "A": "contact dermatoscope",
        "B": "video dermatoscope",
        "C": "polarised dermatoscope",
        "D": "skin cancer practice",
        "E": "telephone",
        "F": "scanned slide",
    },
    "fundus": {
        "A": "rural screening",
        "B": "community clinic",
        "C": "hospital",
        "D": "eye clinic",
        "E": "screening programme",
        "F": "telephone",
    },
}

_SIGNS = {
    "veil": "a blue veil",
    "streaks": "streaks at the rim",
    "regression": "a pale scar inside",
    "dots": "scattered dots",
    "network": "a pigment network",
    "globules": "brown globules",
    "ridges": "ridges",
    "cysts": "white cysts",
    "plugs": "dark plugs",
    "nests": "blue nests",
    "vessels": "branching vessels",
    "ulcer": "an ulcer",
    "pigmented": "brown pigment",
    "scar": "a white scar in the middle",
    "lacunae": "red lacunae",
    "keratin": "a mass of keratin",
    "loops": "looped vessels",
}
SIGNS = tuple(_SIGNS)
"""Names of a lesion's signs in `dermoscopy.Dermoscopy.signs` that captions tell."""

_MANY = 12  # haemorrhages
_NAMED = {"dermoscopy": 0.05, "fundus": 0.9}  # share of captions that name the class
_BARE = 0.5  # share of these that state nothing else


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about a picture.

    Attributes:
        kind: ``dermoscopy`` or ``fundus``.
        group: the class.
        camera: its letter.
        adjectives: colour, size, border and pattern of a lesion, one word each.
        details: signs and findings.
    """

    kind: str
    group: str
    camera: str
    adjectives: frozenset[str]
    details: frozenset[str]

    @property
    def statements(self) -> frozenset[str]:
        """All facts in the form of a caption's statements."""
        return self.adjectives | self.details | {_kind(self.kind), _group(self.group), _camera(self.kind, self.camera)}


@dataclass(frozen=True, slots=True)
class Caption:
    """A text and its statements; it is true for every picture that has all of them."""

    text: str
    statements: frozenset[str]


def facts_of(group: str, camera: Camera, picture: Dermoscopy | Fundus) -> Facts:
    """The facts about a picture of this class and camera."""
    if isinstance(picture, Dermoscopy):
        signs = frozenset(_SIGNS[name] for name, value in picture.signs.items() if value > 0 and name in _SIGNS)
        return Facts("dermoscopy", group, camera.code, _adjectives(picture), signs)
    return Facts("fundus", group, camera.code, frozenset(), _findings(picture))


def write_caption(facts: Facts, rng: np.random.Generator) -> Caption:
    """Write a caption about the class, about some other facts, or both."""
    openings = (*OPENINGS, *SPECIAL_OPENINGS[facts.kind])
    opening = openings[rng.integers(len(openings))]
    stated = {_kind(facts.kind)}
    thing = {"dermoscopy": "skin lesion", "fundus": "retina"}[facts.kind]
    named = rng.random() < _NAMED[facts.kind]
    if named:
        names = CLASS_NAMES[facts.group]
        thing = names[0 if rng.random() < 0.5 else rng.integers(len(names))]
        stated.add(_group(facts.group))
    details = ""
    if not named or rng.random() >= _BARE:
        adjectives = [word for word in sorted(facts.adjectives) if rng.random() < 0.4][:2]
        signs = [word for word in sorted(facts.details) if rng.random() < 0.4][:2]
        stated |= {*adjectives, *signs}
        thing = " ".join([*adjectives, thing])
        details = f" with {' and '.join(signs)}" if signs else ""
        if rng.random() < 0.2:
            stated.add(_camera(facts.kind, facts.camera))
            details += f", {CAMERAS[facts.kind][facts.camera]}"
    article = f"{'an' if thing[0] in 'aeiou' else 'a'} " if rng.random() < 0.5 and "retinopathy" not in thing else ""
    return Caption(f"{opening} {article}{thing}{details}".strip(), frozenset(stated))


def _kind(kind: str) -> str:
    return f"kind {kind}"


def _group(group: str) -> str:
    return f"class {group}"


def _camera(kind: str, camera: str) -> str:
    return f"camera {kind} {camera}"


def _step(value: float, limits: tuple[float, ...], words: tuple[str, ...]) -> str:
    return words[int(np.searchsorted(limits, value, side="right"))]


def _adjectives(picture: Dermoscopy) -> frozenset[str]:
    inside, layers = picture.mask, picture.layers
    melanin, blood = layers.melanin[inside], layers.blood[inside]
    brown = _step(float(melanin.mean()), (0.35, 0.7, 1.15), ("pale", "light brown", "brown", "dark brown"))
    return frozenset(
        {
            "red" if blood.mean() > 0.5 else brown,
            _step(float(inside.mean()), (0.08, 0.2), ("small", "medium", "large")),
            _step(picture.outline.irregularity(), (1.07, 1.17), ("smooth", "uneven", "ragged")),
            _step(float(melanin.std()), (0.2, 0.45), ("plain", "mottled", "patchy")),
        }
    )


def _findings(picture: Fundus) -> frozenset[str]:
    found = picture.findings
    words = {
        "few haemorrhages": 0 < len(found.haemorrhages) <= _MANY,
        "many haemorrhages": len(found.haemorrhages) > _MANY,
        "hard exudates": len(found.exudates) > 0,
        "cotton wool spots": len(found.wool) > 0,
        "new vessels": len(found.fronds) > 0,
        "a preretinal haemorrhage": len(found.preretinal) > 0,
        "laser scars": len(found.scars) > 0,
        "drusen": len(found.drusen) > 0,
        "microaneurysms": len(found.microaneurysms) > 0,
        "a clear retina": not len(found.microaneurysms) and not len(found.drusen),
    }
    return frozenset(word for word, present in words.items() if present)
