"""What surrounds the heart: chest wall, lung with vessels, liver and bowel, great vessels, arm.

Everything is drawn from distances on a coarse grid whose axes are those of the chest: ``front`` points to the sternum,
``up`` to the head, both in mm from the middle of the heart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.canvas import Array, Grid, blend, edge, line, smooth
from monai_fedlora.data.phantom.vendors import Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """One patient's chest, mm.

    Attributes:
        chest: from the middle of the heart to the inside of the sternum.
        depth: half of the inside of the chest, front to back.
        muscle, fat: thickness of the chest wall's layers.
        diaphragm: from the middle of the heart down to the diaphragm, at the base of the heart.
        climb: how much higher the diaphragm stands in the apical slices.
        arm: whether the picture reaches the arm.
    """

    chest: float
    depth: float
    muscle: float
    fat: float
    diaphragm: float
    climb: float
    arm: bool


def draw_body(down_reach: float, front_reach: float, body_mass_index: float, rng: np.random.Generator) -> Body:
    """Draw a chest around a heart.

    Args:
        down_reach, front_reach: how far the heart reaches towards the feet and the sternum, mm.
        body_mass_index: kg/m2; sets the fat.
        rng: source of the rest.
    """
    return Body(
        chest=float(front_reach) + rng.uniform(5, 12),
        depth=rng.uniform(88, 102),
        muscle=rng.uniform(11, 17),
        fat=float(np.clip(0.9 * (body_mass_index - 15) + rng.normal(0, 2.5), 4, 26)),
        diaphragm=float(down_reach) + rng.uniform(-3, 4),
        climb=rng.uniform(19, 27),
        arm=bool(rng.random() < 0.5),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Streak:
    """A piece of a vessel: a bright spot, stretched along ``angle``, in the slices within ``span`` of ``height``."""

    centre: tuple[float, float]
    drift: tuple[float, float]
    width: float
    angle: float
    stretch: float
    height: float
    span: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bag:
    """Stomach or bowel: a wall around its content; ``below`` is the distance from the top of the diaphragm, mm."""

    front: float
    below: float
    size: float
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What all slices of one patient have in common.

    Attributes:
        fine, broad: (S, Y, X) texture of small and large grain.
        lace: (S, Y, X) random field whose contour lines are bowel walls.
        dots: (S, Y, X) random field whose peaks are lung vessels.
        lung, belly: pieces of vessels.
        bags: stomach and bowel.
        split: from the middle of the heart to the back of the liver, mm.
        liver: height of the liver, mm.
        arm: position (front, up) of the arm in mm, and its tilt.
    """

    fine: Array
    broad: Array
    lace: Array
    dots: Array
    lung: tuple[_Streak, ...]
    belly: tuple[_Streak, ...]
    bags: tuple[_Bag, ...]
    split: float
    liver: float
    arm: tuple[float, float, float]


def draw_surroundings(
    grid: Grid, depth: Array, body: Body, vendor: Vendor, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw S slices of everything but the heart.

    Args:
        grid: where; its own axes are ``front`` and ``up``.
        depth: (S,) position of each slice, 0 at the base and 1 at the apex of the heart.
        body, vendor: sizes and tissue signals.
        rng: source of the texture and of where the vessels lie.

    Returns:
        the signal (S, Y, X) float32, and the distance in mm to the chest wall's surface, positive inside.
    """
    scene = _draw_scene((len(depth), *grid.a.shape), body, vendor, rng)
    slices = [_draw_slice(index, along, grid, body, vendor, scene) for index, along in enumerate(depth.tolist())]
    return np.stack([image for image, _ in slices]), np.stack([surface for _, surface in slices])


def _draw_scene(shape: tuple[int, ...], body: Body, vendor: Vendor, rng: np.random.Generator) -> _Scene:
    def streak(centre: tuple[float, float], width: float, angle: float, **rest: float) -> _Streak:
        drift = (float(rng.normal(0, 25)), float(rng.normal(0, 25)))
        return _Streak(centre=centre, drift=drift, width=width, angle=angle, **rest)

    lung, belly = [], []
    for _ in range(30):
        angle = rng.uniform(0.6, 3.4)
        away = 38 + 70 * rng.random() ** 1.5
        width = 0.9 + min(rng.gamma(2.0, 1.0), 4) * min(max(1.5 - away / 100, 0.3), 1)
        lung.append(
            streak(
                (away * math.cos(angle) - 15, away * math.sin(angle)), width, angle + rng.normal(0, 0.5),
                stretch=8 * rng.random() ** 2 / (1 + width), height=rng.uniform(-0.3, 0.8), span=0.07 + 0.03 * width,
                value=vendor.blood * rng.uniform(0.5, 1.0),
            )
        )  # fmt: skip
    for _ in range(26):
        belly.append(
            streak(
                (rng.uniform(-70, 70), -rng.uniform(45, 130)), rng.uniform(1.2, 3.6), rng.uniform(0, 3.1),
                stretch=rng.exponential(0.8), height=rng.uniform(0, 1), span=0.15, value=0.8 * vendor.blood,
            )
        )  # fmt: skip
    bags = tuple(
        _Bag(
            front=rng.uniform(-75, -25), below=rng.uniform(14, 40), size=rng.uniform(15, 26),
            value=float(rng.choice((0.10, 0.5, 0.95))) * vendor.blood,
        )
        for _ in range(2)
    )  # fmt: skip
    return _Scene(
        fine=smooth(rng, shape, (max(3, shape[0] // 2), 30, 30)),
        broad=smooth(rng, shape, (3, 6, 6)),
        lace=smooth(rng, shape, (4, 14, 14)),
        dots=smooth(rng, shape, (shape[0], 50, 50)),
        lung=tuple(lung),
        belly=tuple(belly),
        bags=bags,
        split=25 * rng.normal() - 25,
        liver=rng.uniform(55, 110),
        arm=(body.chest - 2 * body.depth - rng.uniform(35, 55), rng.uniform(60, 130), rng.uniform(-0.5, 0.5)),
    )


def _draw_slice(index: int, along: float, grid: Grid, body: Body, vendor: Vendor, scene: _Scene) -> tuple[Array, Array]:
    front, up, fine, broad = grid.a, grid.b, scene.fine[index], scene.broad[index]
    later = min(max(along, 0.0), 1.0)
    half_up, half_depth = 160 - 45 * later, body.depth - 14 * later
    x = (front - (body.chest - half_depth)) * (1 / half_depth)
    y = (up + (35 - 12 * along)) * (1 / half_up)
    x2, y2 = x * x, y * y
    radius = np.sqrt(np.sqrt(x2 * x2 + y2 * y2 + 0.6 * x2 * y2)) + np.float32(1e-3)
    reach = np.hypot(x * half_depth, y * half_up)
    outside = reach * (1 - 1 / radius) + 2 * broad  # mm beyond the inside of the chest wall
    shoulder = np.clip(y, 0, 1.2) ** 2
    fat = body.fat * np.clip(1 + 0.5 * x + 0.4 * broad + 0.8 * along * shoulder, 0.25, 3)
    muscle = body.muscle * (1 + 0.15 * broad + (0.6 + 1.6 * along) * shoulder + 0.5 * np.maximum(-x, 0))
    surface = muscle + fat - outside

    image = np.full(front.shape, 0.01, np.float32)
    blend(image, vendor.fat * (1 + 0.06 * fine), edge(surface, 2.5))
    blend(image, vendor.muscle * (0.95 + 0.16 * fine), edge(muscle - outside, 2))
    seam = line(outside - 0.62 * muscle + 2.5 * fine, 1.6)  # fat between muscles
    blend(image, 0.8 * vendor.fat, 0.8 * seam * np.clip(0.4 + broad, 0, 1))
    _ribs(image, outside, np.arctan2(y, x) * reach + 14 * along, muscle, vendor)
    chest = edge(-outside, 2)
    blend(image, vendor.lung * (1.1 + 0.2 * fine + 0.35 * broad), chest)
    near = np.exp(((front + 20) ** 2 + (up - 25) ** 2) * (-1 / 62**2))  # vessels gather behind and above the base
    blend(image, vendor.blood * 0.55, np.clip((scene.dots[index] - 2.05 + 0.75 * near) * 1.2, 0, 1) * chest)
    _vessels(image, grid, along, scene.lung)
    rim = body.chest - 7 - 26 * along  # fat in the corner between heart, sternum and diaphragm
    corner = edge(front - rim - 0.010 * (up + (18 + 10 * along)) ** 2 - 2.5 * fine, 4) * chest
    blend(image, vendor.fat * (0.62 + 0.22 * fine), corner)
    dome = body.climb * along - body.diaphragm - 0.0042 * np.maximum(-front - 5, 0) ** 2
    dome += 2.5 * broad - 0.002 * np.maximum(front - 10, 0) ** 2
    _abdomen(image, grid, index, along, dome, chest, vendor, scene)
    _aorta_and_spine(image, grid, along, body, chest, vendor, fine)
    if body.arm:
        _arm(image, grid, along, vendor, fine, scene.arm)
    return image, surface


def _ribs(image: Array, outside: Array, arc: Array, muscle: Array, vendor: Vendor) -> None:
    """Ribs in cross-section: marrow inside a dark rim, in the inner half of the wall; ``arc``: mm around the chest."""
    place = arc - 31 * np.floor(arc * (1 / 31)) - 15.5
    away = np.hypot(place * np.float32(0.6), outside - 0.3 * muscle) / (1 + 0.35 * np.sin(arc * (1 / 17)))
    blend(image, 0.4 * vendor.muscle, edge(4.3 - away, 2))
    blend(image, 0.38 * vendor.fat, edge(2.9 - away, 1.5))


def _vessels(image: Array, grid: Grid, along: float, streaks: tuple[_Streak, ...]) -> None:
    """Draw the pieces of vessels that lie in this slice, where the picture is darker than half their signal."""
    for streak in streaks:
        shift = along - streak.height
        if abs(shift) >= streak.span:
            continue
        a0, b0 = streak.centre[0] + streak.drift[0] * shift, streak.centre[1] + streak.drift[1] * shift
        part = grid.patch((a0, b0), streak.width * (1 + streak.stretch) + 1)
        cos, sin = math.cos(streak.angle), math.sin(streak.angle)
        da, db = grid.a[part] - a0, grid.b[part] - b0
        long, short = da * cos + db * sin, db * cos - da * sin
        inside = edge(streak.width - np.hypot(long / (1 + streak.stretch), short), 1.8)
        blend(image[part], streak.value, inside * (image[part] < 0.5 * streak.value))


def _abdomen(
    image: Array, grid: Grid, index: int, along: float, dome: Array, chest: Array, vendor: Vendor, scene: _Scene
) -> None:
    """Below the diaphragm: liver in front, stomach behind, bowel in fat further down."""
    front, up, fine, broad, lace = grid.a, grid.b, scene.fine[index], scene.broad[index], scene.lace[index]
    inside = edge(dome - up, 3) * chest
    organs = vendor.liver * (1.0 + 0.55 * broad + 0.12 * fine)
    blend(organs, 0.08, edge(lace - 0.9, 0.1))
    blend(organs, 0.85 * vendor.fat, edge(0.28 - np.abs(lace), 0.25))
    liver = edge(front - scene.split - 18 * broad, 4) * edge(up - dome + scene.liver + 12 * broad, 5)
    blend(organs, vendor.liver * (0.95 + 0.10 * fine), liver)
    blend(image, organs, inside)
    top = float(dome.max())
    for bag in scene.bags:
        size = bag.size * (0.7 + 0.5 * along)
        b0 = top - bag.below - 0.0042 * bag.front**2
        part = grid.patch((bag.front, b0), 1.4 * size + 6)
        away = np.hypot((front[part] - bag.front) / 1.25, up[part] - b0) + 2.5 * broad[part]
        blend(image[part], 0.75 * vendor.liver, inside[part] * edge(size - away, 3))
        content = bag.value * (1 + 0.25 * fine[part] + 0.2 * lace[part])
        blend(image[part], content, inside[part] * edge(size - 3.5 - away, 2))
    _vessels(image, grid, along, scene.belly)
    blend(image, vendor.muscle * 0.9, line(up - dome + 1.5, 2.2) * chest)


def _aorta_and_spine(
    image: Array, grid: Grid, along: float, body: Body, chest: Array, vendor: Vendor, fine: Array
) -> None:
    """The descending aorta behind the heart, and a vertebra where the slices meet the back."""
    back = body.chest - 2 * body.depth + 20 * along
    part = grid.patch((back + 6, -66 - 40 * along), 20)
    away = np.hypot((grid.a[part] - back - 6) / 1.1, grid.b[part] + (66 + 40 * along))
    blend(image[part], 0.35 * vendor.fat * (1 + 0.2 * fine[part]), edge(15 - away, 2.5) * chest[part])
    part = grid.patch((back + 34 - 14 * along, -30 - 34 * along), 24)
    tilt = 1.05 + 0.5 * along
    away = np.hypot(grid.a[part] - (back + 34 - 14 * along), (grid.b[part] + (30 + 34 * along)) / tilt)
    blend(image[part], vendor.muscle, edge(12.5 - away, 2) * chest[part])
    blend(image[part], vendor.blood * (1.0 + 0.05 * fine[part]), edge(11 - away, 1.5) * chest[part])


def _arm(
    image: Array, grid: Grid, along: float, vendor: Vendor, fine: Array, place: tuple[float, float, float]
) -> None:
    """An arm beside the chest, with the stripes that off-resonance draws far from the magnet's centre."""
    a0, b0, tilt = place
    part = grid.patch((a0, b0), 95)
    da, db = grid.a[part] - a0, grid.b[part] - b0
    away = np.hypot((da + tilt * db) / 0.85, db / 1.7) + 1.2 * fine[part]
    stripes = 0.75 + 0.25 * np.cos(0.0016 * (da - 40) ** 2 * (1 + 0.3 * along) + 0.12 * db)
    blend(image[part], 0.01, edge(43 - away, 3))
    blend(image[part], vendor.fat * stripes, edge(40 - away, 2.5))
    blend(image[part], vendor.muscle * stripes * (1 + 0.2 * fine[part]), edge(31 - away, 3))
    blend(image[part], 0.05, edge(9 - away, 2))
    blend(image[part], 0.6 * vendor.fat, edge(6 - away, 2))
