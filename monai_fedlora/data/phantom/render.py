"""Draw the heart and its mask into the slices, frame by frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.anatomy import ANGLES, N_ANGLES, Surfaces
from monai_fedlora.data.phantom.canvas import Array, blend, edge, line, smooth
from monai_fedlora.data.phantom.vendors import Vendor

LV, MYO, RV = 1, 2, 3
"""Labels inside this package; the layouts have their own."""

_RV_WALL = 2.6  # mm
_VALVES = (
    (-0.15, -0.12, 0.42, 0.40),
    (0.42, 0.42, 0.62, 0.45),
    (-0.95, 0.52, 0.62, 0.50),
    (-0.72, -0.68, 0.55, 0.38),
)
"""Aorta, left atrium, right atrium and outflow tract above the valves: x, y and half axes over the ring's radius."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """A heart's small features.

    Attributes:
        trabecula: (S, N_ANGLES) depth of the trabeculated layer at end diastole, mm.
        finger: (S, N_ANGLES) how dark each angle of that layer is, 0..1.
        papillary: angle, share of the radius and half axes (mm) of each papillary muscle.
        fat: (S, N_ANGLES) thickness of the fat around the heart, mm.
    """

    trabecula: Array
    finger: Array
    papillary: tuple[tuple[float, float, float, float], ...]
    fat: Array


def draw_details(slices: int, body_mass_index: float, rng: np.random.Generator) -> Details:
    """Draw a heart's small features on ``slices`` slices."""
    depth = np.linspace(0, 1, slices)[:, None]
    free = 1 - 0.75 * np.exp(-((ANGLES / 0.9) ** 2))
    waves = _ripple(slices, (5, 13), rng)
    trabecula = free * (1.4 + 2.0 * depth) * np.clip(1 + 0.45 * waves, 0.2, 2.2)
    finger = np.clip(0.2 + 0.45 * _ripple(slices, (9, 26), rng), 0, 1)
    papillary = tuple(
        (side * rng.uniform(1.85, 2.35), rng.uniform(0.62, 0.74), rng.uniform(3.0, 4.6), rng.uniform(2.6, 4.0))
        for side in (-1, 1)
    )
    thick = float(np.clip(0.28 * (body_mass_index - 16), 0.8, 5))
    fat = thick * np.clip(0.1 + 0.7 * _ripple(slices, (1, 5), rng) + 1.5 * _corner(), 0, 3)
    return Details(trabecula=trabecula, finger=finger, papillary=papillary, fat=fat)


def _ripple(slices: int, waves: tuple[int, int], rng: np.random.Generator) -> Array:
    """Random waves around the ring, unit deviation, changing slowly from slice to slice: (S, N_ANGLES)."""
    number = np.arange(*waves)
    phase = rng.uniform(0, 2 * np.pi, len(number)) + np.cumsum(rng.normal(0, 0.7, (slices, len(number))), 0)
    weight = rng.uniform(0.3, 1, len(number))
    ripple = np.einsum("n,snk->sk", weight, np.cos(number[:, None] * ANGLES + phase[..., None]))
    return ripple / np.sqrt((weight**2).sum() / 2)


def _corner() -> Array:
    """Weight of the fat in the two grooves between the ventricles."""
    return np.exp(-(((ANGLES - 1.35) / 0.35) ** 2)) + np.exp(-(((ANGLES + 1.45) / 0.35) ** 2))


def outline(surfaces: Surfaces, rv_wall: float = _RV_WALL) -> Array:
    """Outside of the muscle of both ventricles, mm: (T, S, N_ANGLES)."""
    outer = np.where(surfaces.rv > surfaces.rv_inner + 0.5, surfaces.rv + rv_wall, surfaces.epi)
    spectrum = np.fft.rfft(outer, axis=-1)
    spectrum *= np.exp(-((np.arange(spectrum.shape[-1]) / 14) ** 2))
    return np.maximum(np.fft.irfft(spectrum, N_ANGLES, axis=-1), surfaces.epi)


def draw_heart_slices(
    background: Array,
    across: Array,
    down: Array,
    surfaces: Surfaces,
    details: Details,
    turn: float,
    vendor: Vendor,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Draw every frame of the heart over its surroundings.

    Args:
        background: (S, Y, X) signal around the heart.
        across, down: (S, Y, X) mm from each slice's heart centre, before ``turn``.
        surfaces: (T, S) borders.
        details: small features.
        turn: rotation of the heart in the picture, radians.
        vendor: tissue signals.
        rng: source of the texture.

    Returns:
        (T, S, Y, X) float32 signal and uint8 mask of ``LV``, ``MYO`` and ``RV``.
    """
    bins, x, y, radius = polar(across, down, turn)
    soft = max(1.2, float(np.hypot(across[0, 0, 1] - across[0, 0, 0], down[0, 0, 1] - down[0, 0, 0])))
    shape = radius.shape
    grain = smooth(rng, shape, (shape[0], shape[1] // 4, shape[2] // 4))
    flow = smooth(rng, shape, (shape[0], shape[1] // 9, shape[2] // 9))
    frames = len(surfaces.endo)
    images = np.repeat(background[None], frames, 0)
    masks = np.zeros((frames, *shape), np.uint8)
    tables = [part.astype(np.float32) for part in (outline(surfaces), surfaces.epi, surfaces.endo, surfaces.rv)]
    layers = [part.astype(np.float32) for part in (details.fat, details.trabecula, details.finger)]
    widths = np.maximum(surfaces.endo.mean(-1), 1)
    for index in range(shape[0]):
        view = View(
            bins=bins[index],
            x=x[index],
            y=y[index],
            radius=radius[index],
            grain=grain[index],
            flow=flow[index],
            soft=soft,
        )
        fat, layer, finger = (part[index][view.bins] for part in layers)
        for frame in range(frames):
            height = float(surfaces.height[frame, index])
            if height >= 1:
                continue
            image = images[frame, index]
            if height < 0:
                _above_valves(image, view, height, float(surfaces.epi[0].mean(-1).max()), vendor)
                continue
            out, epi, endo, rv = (part[frame, index][view.bins] for part in tables)
            squeeze = float(np.sqrt(widths[0, index] / widths[frame, index]))
            wrap(image, view, out, fat, vendor)
            _right_ventricle(image, view, rv, epi, height, vendor)
            dark = lattice(view, endo, layer * squeeze, finger, vendor)
            _papillary(dark, view, tables[2][frame, index], height, details)
            _left_ventricle(image, view, epi, endo, dark, vendor)
            mask = masks[frame, index]
            mask[view.radius < rv] = RV
            mask[view.radius < epi] = MYO
            mask[view.radius < endo] = LV
    return images, masks


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Pixels of one slice: angle bins, coordinates and radius around the heart (mm), textures, width of edges (mm)."""

    bins: Array
    x: Array
    y: Array
    radius: Array
    grain: Array
    flow: Array
    soft: float


def polar(across: Array, down: Array, turn: float) -> tuple[Array, Array, Array, Array]:
    """Return angle bins, coordinates turned with the heart, and the radius."""
    radius = np.hypot(across, down)
    angle = np.arctan2(down, -across) - turn
    bins = np.floor((angle + np.pi) * (N_ANGLES / (2 * np.pi))).astype(np.int32) % N_ANGLES
    return bins, -radius * np.cos(angle), radius * np.sin(angle), radius


def wrap(image: Array, view: View, out: Array, fat: Array, vendor: Vendor) -> None:
    """Draw the pericardium, the fat inside it and the outside of the muscle, each with a dark line at its border."""
    rim = out + fat
    image *= 1 - 0.8 * vendor.ink * line(view.radius - rim - 0.8, 1.6)
    blend(image, vendor.fat * (0.85 + 0.12 * view.grain), edge(rim - view.radius, view.soft))
    image *= 1 - vendor.ink * line(view.radius - out - 0.6, 1.3)
    blend(image, 0.95 * vendor.myocardium * (1 + 0.05 * view.grain), edge(out - view.radius, view.soft))


def _right_ventricle(image: Array, view: View, rv: Array, epi: Array, height: float, vendor: Vendor) -> None:
    """Draw the crescent of blood, with rough texture along the free wall and towards the apex."""
    rough = np.clip((view.grain - 0.55 + 0.9 * (height - 0.5)) * 1.5, 0, 1)
    rough *= np.clip(1 - (rv - view.radius) / 14, 0.15, 1)
    pool = vendor.blood * (0.90 + 0.05 * view.flow)
    pool += 0.8 * rough * (vendor.myocardium - pool)
    blend(image, pool, edge(rv - view.radius, view.soft) * np.clip((rv - epi) / 3, 0, 1))


def lattice(view: View, endo: Array, layer: Array, finger: Array, vendor: Vendor) -> Array:
    """Darkness 0..1 of the trabeculated layer inside the LV's wall."""
    dark = np.clip(finger + 0.35 * view.grain + (0.7 * vendor.trabeculation - 0.15), 0, 1)
    dark *= edge(layer - endo + view.radius + 0.5 * view.grain, 2)
    return dark


def _left_ventricle(image: Array, view: View, epi: Array, endo: Array, dark: Array, vendor: Vendor) -> None:
    """Draw the ring of muscle and the blood pool in it."""
    muscle = vendor.myocardium * (1 + 0.05 * view.grain)
    blend(image, muscle, edge(epi - view.radius, view.soft))
    pool = vendor.blood * (1.0 + 0.03 * view.flow + 0.025 * view.grain)
    pool += dark * (vendor.myocardium - pool)
    blend(image, pool, edge(endo - view.radius, view.soft) * (endo > 0))


def _papillary(dark: Array, view: View, endo: Array, height: float, details: Details) -> None:
    """Darken the papillary muscles, in the middle of the cavity's height."""
    if not 0.22 < height < 0.78:
        return
    for angle, share, long, short in details.papillary:
        ring = float(endo[np.argmin(np.abs(ANGLES - angle))])
        if ring <= 4:
            continue
        cos, sin = math.cos(angle), math.sin(angle)
        grown = math.sin(math.pi * (height - 0.12) / 0.76) ** 0.5
        dx, dy = view.x + share * ring * cos, view.y - share * ring * sin
        outward, sideways = dy * sin - dx * cos, dx * sin + dy * cos
        reach = np.hypot(outward * (short / long), sideways)
        np.maximum(dark, edge(short * grown - reach, view.soft), out=dark)


def _above_valves(image: Array, view: View, height: float, size: float, vendor: Vendor) -> None:
    """Draw one slice above the valve plane: aorta, atria and outflow tract with thin walls, in fat."""
    x, y = view.x, view.y
    close = np.hypot((x + 0.25 * size) / 1.35, y) - size * (1.05 + 0.05 * view.flow)
    blend(image, 0.45 * vendor.fat * (1 + 0.2 * view.flow), edge(-close, 3))
    shift = min(-height, 0.3)
    insides = []
    for x0, y0, a, b in _VALVES:
        away = np.hypot((x - x0 * size) / a, (y - y0 * size) / b) - size * (1 - 0.6 * shift)
        insides.append(away * (-(a + b) / 2))
        blend(image, vendor.myocardium, 0.8 * edge(insides[-1] + 1.5, view.soft))
    for inside in insides:
        blend(image, vendor.blood * (0.9 + 0.07 * view.flow), edge(inside, view.soft))
