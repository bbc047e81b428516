"""What surrounds the heart: chest wall, lung with vessels, liver and bowel, great vessels, arm.

Everything is drawn from distances, on a coarse grid, in the chest's own axes: ``front`` grows towards the
sternum, ``up`` towards the head, both in mm from the middle of the heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.vendors import Vendor

Array = np.ndarray


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


def draw_body(heart_radius: float, rv_reach: float, weight_index: float, rng: np.random.Generator) -> Body:
    """Draw a chest around a heart of this outer LV radius and RV reach (mm), for a body mass index (kg/m2)."""
    return Body(
        chest=rv_reach + rng.uniform(5, 12),
        depth=rng.uniform(88, 102),
        muscle=rng.uniform(11, 17),
        fat=float(np.clip(0.9 * (weight_index - 15) + rng.normal(0, 2.5), 4, 26)),
        diaphragm=heart_radius + rng.uniform(-3, 4),
        climb=rng.uniform(14, 22),
        arm=bool(rng.random() < 0.5),
    )


def smooth(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, ...]) -> Array:
    """Return a smooth random field of this shape, mean 0 and standard deviation about 1.

    ``cells`` gives the number of independent values along each axis.
    """
    field = rng.standard_normal(cells, dtype=np.float32)
    for axis, (size, count) in enumerate(zip(shape, cells, strict=True)):
        place = (np.arange(size, dtype=np.float32) + 0.5) * (count / size) - 0.5
        weights = np.exp(-((place[:, None] - np.arange(count, dtype=np.float32)) ** 2) / 0.6)
        weights /= np.sqrt((weights**2).sum(1, keepdims=True))
        field = np.moveaxis(np.tensordot(weights, field, (1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def edge(distance: Array, width: float = 1.5) -> Array:
    """Return 1 well inside (``distance`` positive, mm), 0 well outside, a ramp of ``width`` mm in between."""
    return np.clip(distance / width + 0.5, 0, 1)


def _blend(image: Array, value: float | Array, share: Array) -> None:
    image += share * (value - image)


def draw_surroundings(
    front: Array, up: Array, depth: Array, body: Body, vendor: Vendor, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw S slices of everything but the heart.

    Args:
        front, up: (S, Y, X) coordinates in mm.
        depth: (S,) position of each slice, 0 at the base and 1 at the apex of the heart.
        body, vendor: sizes and tissue signals.
        rng: source of the texture and of where the vessels lie.

    Returns:
        the signal (S, Y, X) float32, and the distance in mm to the chest wall's surface, positive inside.
    """
    shape = front.shape
    along = depth[:, None, None].astype(np.float32)
    fine = smooth(rng, shape, (max(3, shape[0] // 2), 30, 30))
    broad = smooth(rng, shape, (3, 6, 6))
    half_up, half_depth = 160 - 45 * np.clip(along, 0, 1), body.depth - 14 * np.clip(along, 0, 1)
    x = (front - (body.chest - half_depth)) / half_depth
    y = (up + 35 - 12 * along) / half_up
    radius = (np.abs(x) ** 2.5 + np.abs(y) ** 2.5) ** (1 / 2.5) + 1e-3
    reach = np.hypot(x * half_depth, y * half_up) + 1e-3
    outside = reach * (1 - 1 / radius) + 2 * broad  # mm beyond the inside of the chest wall
    shoulder = np.clip(y, 0, 1.2) ** 2
    fat = body.fat * np.clip(1 + 0.5 * x + 0.4 * broad + 0.8 * along * shoulder, 0.25, 3)
    muscle = body.muscle * (1 + 0.15 * broad + (0.6 + 1.6 * along) * shoulder + 0.5 * np.clip(-x, 0, 1))
    surface = muscle + fat - outside

    image = np.full(shape, 0.01, np.float32)
    _blend(image, vendor.fat * (1 + 0.06 * fine), edge(surface, 2.5))
    seam = np.clip(1 - np.abs(outside - 0.62 * muscle + 2.5 * fine) / 1.6, 0, 1)  # fat between muscles
    _blend(image, vendor.muscle * (0.95 + 0.16 * fine), edge(muscle - outside, 2))
    _blend(image, 0.8 * vendor.fat, 0.8 * seam * np.clip(0.4 + broad, 0, 1))
    _ribs(image, outside, reach, np.arctan2(y, x), along, muscle, vendor, fine)
    chest = edge(-outside, 2)
    _blend(image, vendor.lung * (1.1 + 0.2 * fine + 0.35 * broad), chest)
    _lung_vessels(image, front, up, depth, chest, vendor, rng)
    _front_fat(image, front, up, along, body, vendor, fine, chest)
    dome = -(body.diaphragm - body.climb * along) - 0.0042 * np.clip(-front - 5, 0, None) ** 2
    dome = dome - 0.002 * np.clip(front - 10, 0, None) ** 2 + 2.5 * broad
    _abdomen(image, front, up, depth, edge(dome - up, 3) * chest, dome, vendor, fine, broad, rng)
    _aorta_and_spine(image, front, up, along, chest, body, vendor, fine)
    if body.arm:
        _arm(image, front, up, along, body, vendor, fine, rng)
    return image, surface


def _ribs(
    image: Array, outside: Array, reach: Array, angle: Array, along: Array, muscle: Array, vendor: Vendor, fine: Array
) -> None:
    """Ribs cut across: marrow inside a dark rim, along the inner half of the wall."""
    arc = angle * reach + 14 * along
    place = arc % 31 - 15.5
    size = 1 + 0.35 * np.sin(arc / 17) + 0.1 * fine
    away = np.hypot(place / 1.7, outside - 0.3 * muscle) / size
    _blend(image, 0.4 * vendor.muscle, edge(4.3 - away, 2))
    _blend(image, 0.38 * vendor.fat, edge(2.9 - away, 1.5))


def _lung_vessels(
    image: Array, front: Array, up: Array, depth: Array, inside: Array, vendor: Vendor, rng: np.random.Generator
) -> None:
    """Pulmonary vessels, thick and many behind and above the base of the heart, thin at the rim."""
    away = np.hypot(front + 20, up - 25)
    near = np.exp(-((away / 62) ** 2))
    dots = smooth(rng, image.shape, (image.shape[0], 50, 50))
    _blend(image, vendor.blood * 0.55, np.clip((dots - 2.05 + 0.75 * near) * 1.2, 0, 1) * inside)
    for _ in range(30):
        angle = rng.uniform(0.6, 3.4)
        distance = 38 + 70 * rng.random() ** 1.5
        width = 0.9 + rng.gamma(2.0, 1.0) * np.clip(1.5 - distance / 100, 0.3, 1)
        centre = (distance * np.cos(angle) - 15, distance * np.sin(angle))
        _streak(image, front, up, depth, centre, width, angle + rng.normal(0, 0.5), rng.exponential(1.6),
                rng.uniform(-0.3, 0.8), 0.07 + 0.03 * width, vendor.blood * rng.uniform(0.5, 1.0), rng)  # fmt: skip


def _streak(
    image: Array, front: Array, up: Array, depth: Array, centre: tuple[float, float], width: float, angle: float,
    stretch: float, height: float, span: float, value: float, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Blend a bright blob, stretched along ``angle``, into the slices within ``span`` of ``height``."""
    drift = rng.normal(0, 25, 2)
    for index in np.flatnonzero(np.abs(depth - height) < span):
        shift = depth[index] - height
        x0, y0 = centre[0] + drift[0] * shift, centre[1] + drift[1] * shift
        near = (np.abs(front[index] - x0) < 4 * width * (1 + stretch)) & (np.abs(up[index] - y0) < 4 * width * (1 + stretch))
        rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        if not len(rows) or not len(columns):
            continue
        part = (index, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        dx, dy = front[part] - x0, up[part] - y0
        long, short = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        inside = edge(width - np.hypot(long / (1 + stretch), short), 1.8)
        image[part] += inside * (value - image[part]) * (image[part] < value)


def _front_fat(
    image: Array, front: Array, up: Array, along: Array, body: Body, vendor: Vendor, fine: Array, chest: Array
) -> None:
    """Fat that fills the corner between the heart, the sternum and the diaphragm."""
    rim = body.chest - 7 - 26 * along
    inside = edge(front - rim - 0.010 * (up + 18 + 10 * along) ** 2 - 2.5 * fine, 4) * chest
    _blend(image, vendor.fat * (0.62 + 0.22 * fine), inside)


def _abdomen(
    image: Array, front: Array, up: Array, depth: Array, inside: Array, dome: Array, vendor: Vendor, fine: Array,
    broad: Array, rng: np.random.Generator,
) -> None:  # fmt: skip
    """Below the diaphragm: liver in front, stomach and spleen behind, organs in fat further down."""
    lace = smooth(rng, image.shape, (4, 14, 14))
    organs = vendor.liver * (1.0 + 0.55 * broad + 0.12 * fine)
    organs = np.where(lace > 0.9, 0.08, organs)
    mix = edge(0.28 - np.abs(lace), 0.25)
    low = organs + mix * (0.85 * vendor.fat - organs)
    split = -25 + 25 * rng.normal() + 18 * broad
    liver = edge(front - split, 4) * edge(up - dome + rng.uniform(55, 110) + 12 * broad, 5)
    _blend(image, low, inside)
    _blend(image, vendor.liver * (0.95 + 0.10 * fine), inside * liver)
    along = depth[:, None, None]
    for _ in range(2):
        x0, y0 = rng.uniform(-75, -25), dome - rng.uniform(14, 40)
        size = rng.uniform(15, 26) * (0.7 + 0.5 * along)
        away = np.hypot((front - x0) / 1.25, up - y0) + 2.5 * broad
        value = rng.choice((0.10, 0.5, 0.95)) * vendor.blood
        _blend(image, 0.75 * vendor.liver, inside * edge(size - away, 3))
        _blend(image, value * (1 + 0.25 * fine + 0.2 * lace), inside * edge(size - 3.5 - away, 2))
    for _ in range(26):
        centre = (rng.uniform(-70, 70), -rng.uniform(45, 130))
        _streak(image, front, up, depth, centre, rng.uniform(1.2, 3.6), rng.uniform(0, 3.1), rng.exponential(0.8),
                rng.uniform(0, 1), 0.15, 0.8 * vendor.blood, rng)  # fmt: skip
    _blend(image, vendor.muscle * 0.9, chest_line(up - dome, inside))


def chest_line(height: Array, inside: Array) -> Array:
    """Weight of the thin muscle of the diaphragm, from the height above it (mm)."""
    return edge(1.6 - np.abs(height + 1.5), 1.5) * inside


def _aorta_and_spine(
    image: Array, front: Array, up: Array, along: Array, chest: Array, body: Body, vendor: Vendor, fine: Array
) -> None:
    """The descending aorta behind the heart, and a vertebra with its canal where the slices meet the back."""
    back = body.chest - 2 * body.depth
    spine = np.hypot((front - back - 2 - 8 * along) / 1.1, up + 62 + 40 * along)
    _blend(image, 0.35 * vendor.fat * (1 + 0.2 * fine), edge(17 - spine, 2.5))
    canal = np.hypot(front - back + 20 - 8 * along, up + 66 + 40 * along)
    _blend(image, 0.9 * vendor.blood, edge(6 - canal, 2))
    aorta = np.hypot(front - back - 34 - 6 * along, (up + 30 + 34 * along) / (1.05 + 0.5 * along))
    _blend(image, vendor.muscle, edge(13 - aorta, 2))
    _blend(image, vendor.blood * (1.0 + 0.05 * fine), edge(11 - aorta, 1.5))


def _arm(
    image: Array, front: Array, up: Array, along: Array, body: Body, vendor: Vendor, fine: Array,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """An arm beside the chest, with the stripes that off-resonance draws far from the magnet's centre."""
    x0, y0 = body.chest - 2 * body.depth - rng.uniform(35, 55), rng.uniform(60, 130)
    tilt = rng.uniform(-0.5, 0.5)
    dx, dy = front - x0, up - y0
    away = np.hypot((dx + tilt * dy) / 0.85, dy / 1.7) + 2.5 * fine
    stripes = 0.75 + 0.25 * np.cos(0.0016 * (dx - 40) ** 2 * (1 + 0.3 * along) + 0.12 * dy)
    _blend(image, 0.01, edge(43 - away, 3))
    _blend(image, vendor.fat * stripes, edge(40 - away, 2.5))
    _blend(image, vendor.muscle * stripes * (1 + 0.2 * fine), edge(31 - away, 3))
    _blend(image, 0.05, edge(9 - away, 2))
    _blend(image, 0.6 * vendor.fat, edge(6 - away, 2))
