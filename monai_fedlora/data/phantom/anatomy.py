"""Surfaces of a beating heart on a stack of short-axis slices.

In each slice the left ventricle is a ring around a centre of its own. A surface is given by a radius for each angle, so
that areas, volumes and mass have closed forms: the area inside ``r`` is ``sum(r**2) * step / 2``. Angle 0 points to the
middle of the septum; angles increase towards the inferior wall.

While the heart contracts, the valve plane descends towards the apex, which rests. A slab of muscle keeps its volume: if
its height shrinks to ``1/stretch``, its area grows by ``stretch``. The cavity shrinks by a common factor, which is
chosen so that the ejection fraction is exact on these slices; akinetic wall does not move inwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.pathology import Heart

N_ANGLES = 360
ANGLES = (np.arange(N_ANGLES) + 0.5) * (2 * np.pi / N_ANGLES) - np.pi
_STEP = 2 * np.pi / N_ANGLES
_EQUATOR = 0.2  # height of the widest ring, share of the length


@dataclass(frozen=True, slots=True, kw_only=True)
class Surfaces:
    """Radii in mm on T frames, S slices and ``N_ANGLES`` angles.

    Attributes:
        endo: inner border of the LV muscle, 0 where there is no cavity.
        epi: its outer border, 0 below the apex.
        rv: outer border of the RV cavity, equal to ``rv_inner`` where there is no RV.
        rv_inner: its inner border: ``epi``, or the ring that ``epi`` would be where the RV reaches above the LV.
        height: (T, S), 0 at the valve plane, 1 at the apex; negative above the valves.
    """

    endo: np.ndarray
    epi: np.ndarray
    rv: np.ndarray
    rv_inner: np.ndarray
    height: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What makes the shape of a heart its own, as functions of heights (S, 1) from base (0) to apex (1).

    Attributes:
        ring: squared radius of the cavity over that of a circle of the same area, (S, N_ANGLES) or (N_ANGLES,).
        wall: thickness of the wall over that of the heart's numbers, (S, N_ANGLES).
        room: area of the RV per radian, up to a factor, (S, N_ANGLES).
    """

    ring: Callable[[np.ndarray], np.ndarray]
    wall: Callable[[np.ndarray], np.ndarray]
    room: Callable[[np.ndarray], np.ndarray]


def draw_form(heart: Heart, rng: np.random.Generator) -> Form:
    """Draw the shape of a heart as the makers' patients have it: one ring at all heights, and a smooth crescent."""
    ring = _ring_shape(heart, rng)
    skew, spread = rng.normal(-0.12, 0.1), rng.normal(1.0, 0.05)
    return Form(
        ring=lambda height: ring,
        wall=lambda height: np.ones_like(height),
        room=lambda height: _rv_room(height[:, 0], skew, spread),
    )


def contraction(frames: int) -> np.ndarray:
    """Return how far the heart has contracted at each of ``frames`` times: 0 end diastole, 1 end systole.

    Two frames are end diastole and end systole. More frames cover one beat: systole takes 0.36 of it, followed by
    rapid filling, diastasis and the atrial kick. Frame 0 is end diastole; see :func:`systolic_frame`.
    """
    if frames == 2:
        return np.array([0.0, 1.0])
    es = systolic_frame(frames)
    time = np.arange(frames, dtype=float)
    systole = 0.5 - 0.5 * np.cos(np.pi * np.clip(time / es, 0, 1))
    rest = np.clip((time - es) / (frames - es), 0, 1)
    rapid = 0.75 * (0.5 - 0.5 * np.cos(np.pi * np.clip(rest / 0.45, 0, 1)))
    kick = 0.25 * (0.5 - 0.5 * np.cos(np.pi * np.clip((rest - 0.75) / 0.25, 0, 1)))
    return np.where(time <= es, systole, 1 - rapid - kick)


def systolic_frame(frames: int) -> int:
    """Return the index of the end-systolic frame among ``frames``."""
    return 1 if frames == 2 else max(1, round(0.36 * frames))


def cavity_size(heart: Heart) -> tuple[float, float]:
    """Return the LV cavity's largest radius and its length at end diastole, mm."""
    s = (np.arange(200) + 0.5) / 200
    fullness = float(np.mean(_profile(s) ** 2))
    radius = (heart.lv_volume * 1000 / (2 * np.pi * heart.elongation * fullness)) ** (1 / 3)
    return radius, 2 * heart.elongation * radius


def heart_length(heart: Heart) -> float:
    """Return the distance from the valve plane to the outside of the apex at end diastole, mm."""
    return cavity_size(heart)[1] + 0.8 * heart.wall


def surfaces(heart: Heart, z: np.ndarray, beat: np.ndarray, distance: float, form: Form) -> Surfaces:
    """Cut the heart at ``z`` (S positions in mm below the diastolic valve plane) at each contraction in ``beat`` (T).

    Args:
        heart: sizes and function.
        z: slice centres, ``distance`` mm apart.
        beat: contractions, the first of them 0.
        distance: slice distance, mm.
        form: the individual shape.

    Volumes and mass summed over the slices equal those of ``heart`` at every frame (up to the pixel grid).
    """
    radius, _ = cavity_size(heart)
    length = heart_length(heart)

    def cut(z_material: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared endocardial radius and wall area per radian of the relaxed heart, at material heights."""
        height = (z_material / length)[:, None]
        inside = (height >= 0) & (height < 1)
        p_endo = _profile(z_material / (length - 0.8 * heart.wall))[:, None]
        p_epi = _profile(z_material / length)[:, None]
        wall = _wall(heart, height) * form.wall(height)
        ring = form.ring(height)
        endo = radius * p_endo * np.sqrt(ring)
        epi = np.maximum(p_epi * (radius * np.sqrt(ring) + wall), endo + 0.4 * heart.wall)
        return np.where(inside, endo**2, 0), np.where(inside, (epi**2 - endo**2) / 2, 0)

    def volume(square: np.ndarray) -> float:
        return float(square.sum()) * _STEP / 2 * distance / 1000

    relaxed, _ = cut(z)
    radius *= np.sqrt(heart.lv_volume / volume(relaxed))
    _, muscle = cut(z)
    mass = volume(2 * muscle)
    endos, epis, rvs, inners, heights = [], [], [], [], []
    for amount in beat:
        descent = amount * heart.shortening
        stretch = length / (length - descent)
        material = (z - descent) * stretch
        height = material / length
        endo2, muscle = cut(material)
        endo2 = endo2 * stretch
        moving = np.ones_like(endo2) if heart.scar is None else 1 - heart.scar.weight(ANGLES, height[:, None])
        target = heart.lv_volume * (1 - heart.lv_ejection * amount)
        factor = (volume(endo2) - target) / volume(endo2 * moving)
        endo2 = endo2 * np.clip(1 - factor * moving, 0.02, None)
        endo2 *= target / volume(endo2)
        muscle *= mass / volume(2 * muscle)
        epi2 = endo2 + 2 * muscle
        room = form.room(height[:, None])
        room = room * (heart.rv_volume * (1 - heart.rv_ejection * amount) / volume(2 * room))
        base = epi2[np.argmax(height >= 0)]
        inner2 = np.where((room > 0) & (height < 0)[:, None], base, epi2)
        endos.append(np.sqrt(endo2))
        epis.append(np.sqrt(epi2))
        rvs.append(np.sqrt(inner2 + 2 * room))
        inners.append(np.sqrt(inner2))
        heights.append(height)
    endo, epi, rv, rv_inner = (np.stack(part) for part in (endos, epis, rvs, inners))
    return Surfaces(endo=endo, epi=epi, rv=rv, rv_inner=rv_inner, height=np.stack(heights))


def _profile(height: np.ndarray) -> np.ndarray:
    """Radius of a truncated ellipsoid from base (0) to tip (1), relative to its largest radius; 0 beyond the tip."""
    above = 1 - 0.10 * ((_EQUATOR - height) / _EQUATOR) ** 2
    below = np.sqrt(np.clip(1 - ((height - _EQUATOR) / (1 - _EQUATOR)) ** 2, 0, None))
    return np.where(height < _EQUATOR, np.clip(above, 0, 1), below)


def _ring_shape(heart: Heart, rng: np.random.Generator) -> np.ndarray:
    """Squared radius of the ring over that of a circle of the same area, per angle."""
    ring = 1 + 0.07 * np.cos(2 * (ANGLES - rng.uniform(-np.pi, np.pi))) + 0.02 * np.cos(3 * ANGLES + rng.uniform(0, 6))
    ring *= 1 - 0.5 * heart.flattening * np.exp(-((ANGLES / 0.75) ** 2))
    return ring / ring.mean()


def _wall(heart: Heart, height: np.ndarray) -> np.ndarray:
    """End-diastolic wall thickness in mm at heights (S, 1) and every angle; thinner towards the apex."""
    wall = heart.wall * (1.03 - 0.22 * height) * np.ones_like(ANGLES)
    if heart.thick is not None:
        wall = wall + heart.bulge * heart.thick.weight(ANGLES, height)
    if heart.scar is not None:
        wall = wall * (1 - 0.42 * heart.scar.weight(ANGLES, height))
    return wall


def _rv_room(height: np.ndarray, skew: float, spread: float) -> np.ndarray:
    """RV area per radian, up to a factor: a crescent that narrows towards the apex and tilts upwards at the base."""
    height = height[:, None]
    inside = (height >= 0) & (height < 0.88)
    size = np.clip(1 - (np.clip(height - 0.1, 0, None) / 0.78) ** 1.7, 0, None)
    half_width = spread * (1.46 - 0.5 * np.clip(height, 0, 1))
    lean = np.abs((ANGLES - skew * (1.5 - 2 * height)) / half_width)
    crescent = np.clip(1 - lean**2.8, 0, None) * (1 - 0.25 * np.exp(-((lean / 0.45) ** 2)))
    return np.where(inside, size * crescent, 0)
