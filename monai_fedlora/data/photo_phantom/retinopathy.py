"""Diabetic retinopathy by grade: which findings an eye has, and where.

The grades follow the international scale (Wilkinson et al., Ophthalmology 2003): 1 has microaneurysms only, 2 more than
those, 3 meets the 4-2-1 rule, 4 has new vessels or a preretinal haemorrhage. The numbers within a grade are ours. The
rule's "more than 20 haemorrhages in each quadrant" is 6 here, and the smallest findings are drawn larger than they are,
so that a picture of some hundred pixels shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.photo_phantom.strokes import Array
from monai_fedlora.data.photo_phantom.vessels import DISC
from monai_fedlora.errors import ConfigError

GRADES = ("nodr", "mild_npdr", "moderate_npdr", "severe_npdr", "pdr")
"""Folder names of GDRBench, in the order of its labels."""

QUADRANT = 6
"""Fewest haemorrhages of a severe eye in each quadrant around the middle of the picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is wrong with a retina; positions (N, 2) are in retina units.

    Attributes:
        microaneurysms: dots.
        haemorrhages: blots and flames.
        exudates: hard exudates, many to a cluster.
        wool: cotton wool spots.
        abnormal: intraretinal microvascular abnormalities.
        fronds: origins of new vessels; those on the disc start in its middle.
        preretinal: middle of a preretinal haemorrhage; at most one.
        scars: laser burns.
        drusen: pale spots that have nothing to do with diabetes.
        beading: relative variation of the veins' diameter along their course.
    """

    microaneurysms: Array
    haemorrhages: Array
    exudates: Array
    wool: Array
    abnormal: Array
    fronds: Array
    preretinal: Array
    scars: Array
    drusen: Array
    beading: float


NONE = (0, 0)
COUNTS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "nodr": {},
    "mild_npdr": {"microaneurysms": (3, 9)},
    "moderate_npdr": {"microaneurysms": (6, 20), "haemorrhages": (3, 14), "exudates": (0, 4), "wool": (0, 2)},
    "severe_npdr": {
        "microaneurysms": (10, 28),
        "haemorrhages": (4 * QUADRANT, 48),
        "exudates": (0, 5),
        "wool": (1, 6),
        "abnormal": (1, 4),
    },
    "pdr": {
        "microaneurysms": (6, 24),
        "haemorrhages": (4, 30),
        "exudates": (0, 5),
        "wool": (0, 4),
        "abnormal": (0, 3),
    },
}
"""Smallest and largest number of findings of each grade, :data:`NONE` where it has none; exudates in clusters."""


def draw_findings(grade: str, centre: Array, reach: float, rng: np.random.Generator) -> Findings:
    """Draw the findings of an eye.

    Args:
        grade: one of :data:`GRADES`.
        centre: (2) middle of the picture, retina units.
        reach: radius around it in which the findings lie, retina units.
        rng: source of numbers and places.

    Raises:
        ConfigError: unknown grade.
    """
    if grade not in COUNTS:
        raise ConfigError(f"unknown grade {grade!r}; choose from {', '.join(GRADES)}")

    def number(name: str) -> int:
        low, high = COUNTS[grade].get(name, NONE)
        return int(rng.integers(low, high + 1))

    def places(count: int, near: float = 0.12) -> Array:
        return _places(count, centre, reach, near, rng)

    haemorrhages = places(number("haemorrhages"))
    if grade == "severe_npdr":
        haemorrhages = _spread(haemorrhages, centre)
    clusters = [_cluster(middle, rng) for middle in 0.6 * places(number("exudates"), 0.2)]
    proliferative = grade == "pdr"
    fronds = places(int(rng.integers(0, 3)), 0.3) if proliferative else places(0)
    preretinal = places(int(rng.random() < 0.35), 0.3) if proliferative else places(0)
    if proliferative and (rng.random() < 0.5 or not len(fronds)):
        fronds = np.concatenate([fronds, DISC[None]])
    return Findings(
        microaneurysms=places(number("microaneurysms")),
        haemorrhages=haemorrhages,
        exudates=np.concatenate([places(0), *clusters]),
        wool=places(number("wool"), 0.25),
        abnormal=places(number("abnormal"), 0.3),
        fronds=fronds,
        preretinal=preretinal,
        scars=places(int(rng.integers(25, 60)) * int(proliferative and rng.random() < 0.25), 0.55),
        drusen=0.35 * places(int(rng.integers(3, 14)) * int(rng.random() < 0.2), 0.1),
        beading={"severe_npdr": rng.uniform(0.25, 0.45), "pdr": rng.uniform(0.0, 0.3)}.get(grade, 0.0),
    )


def _places(count: int, centre: Array, reach: float, near: float, rng: np.random.Generator) -> Array:
    """Random places in the picture, ``near`` or further from the fovea, off the disc; denser in the middle."""
    found = np.empty((0, 2))
    while len(found) < count:
        angle, way = rng.uniform(0, 2 * np.pi, 4 * count + 8), reach * rng.random(4 * count + 8) ** 0.65
        drawn = centre + np.stack([np.cos(angle), np.sin(angle)], -1) * way[:, None]
        off = (np.hypot(*drawn.T) > near) & (np.hypot(*(drawn - DISC).T) > 0.24)
        found = np.concatenate([found, drawn[off]])
    return found[:count]


def _spread(points: Array, centre: Array) -> Array:
    """Mirror points so that every quadrant around ``centre`` has :data:`QUADRANT` or more."""
    away = points - centre
    signs = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    for index in range(4 * QUADRANT):
        away[index] = np.abs(away[index]) * signs[index % 4]
    return centre + away


def _cluster(middle: Array, rng: np.random.Generator) -> Array:
    """A cluster of hard exudates: a compact group, or a ring around the leaking vessel."""
    count = int(rng.integers(9, 30))
    if rng.random() < 0.4:
        angle = rng.uniform(0, 2 * np.pi) + rng.uniform(-2.4, 2.4, count)
        ring = rng.uniform(0.07, 0.14) + rng.normal(0, 0.012, count)
        return middle + np.stack([np.cos(angle), np.sin(angle)], -1) * ring[:, None]
    return middle + rng.normal(0, 1, (count, 2)) * rng.uniform(0.02, 0.07, 2)
