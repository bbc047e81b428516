"""Draw the heart itself into the slices, frame by frame, with its mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.anatomy import ANGLES, N_ANGLES, Surfaces
from monai_fedlora.data.phantom.canvas import Array, blend, edge, line, smooth
from monai_fedlora.data.phantom.vendors import Vendor

LV, MYO, RV = 1, 2, 3
"""Labels inside this package; the layouts translate them."""

_RV_WALL = 2.6  # mm
_VALVES = (  # great vessels and atria seen above the valve plane: x, y, half axes (mm), as shares of the ring's radius
    ("aorta", -0.15, -0.12, 0.42, 0.40),
    ("left atrium", 0.42, 0.42, 0.62, 0.45),
    ("right atrium", -0.95, 0.52, 0.62, 0.50),
    ("outflow", -0.72, -0.68, 0.55, 0.38),
)


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
    """More fat in the two grooves where the right ventricle meets the left."""
    return np.exp(-(((ANGLES - 1.35) / 0.35) ** 2)) + np.exp(-(((ANGLES + 1.45) / 0.35) ** 2))


def outline(surfaces: Surfaces) -> Array:
    """Outside of the muscle of both ventricles, mm: (T, S, N_ANGLES)."""
    outer = np.where(surfaces.rv > surfaces.epi + 0.5, surfaces.rv + _RV_WALL, surfaces.epi)
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
    radius = np.hypot(across, down)
    angle = np.arctan2(down, -across) - turn
    step = 2 * np.pi / N_ANGLES
    bins = np.floor((angle + np.pi) / step).astype(np.int32) % N_ANGLES
    bins += (np.arange(len(bins), dtype=np.int32) * N_ANGLES)[:, None, None]
    x, y = -radius * np.cos(angle), radius * np.sin(angle)
    pixel = float(np.abs(down[0, 1, 0] - down[0, 0, 0]) + np.abs(across[0, 1, 0] - across[0, 0, 0]))
    soft = max(1.2, pixel)
    shape = radius.shape
    grain = smooth(rng, shape, (shape[0], shape[1] // 4, shape[2] // 4))
    flow = smooth(rng, shape, (shape[0], shape[1] // 9, shape[2] // 9))
    frames = len(surfaces.endo)
    images = np.empty((frames, *shape), np.float32)
    masks = np.empty((frames, *shape), np.uint8)
    outer = outline(surfaces)
    widths = surfaces.endo.mean(-1).astype(np.float32)

    def around(table: Array) -> Array:
        return table.astype(np.float32).ravel()[bins]

    fat_rim, layer, finger = around(details.fat), around(details.trabecula), around(details.finger)
    muscle = vendor.myocardium * (1 + 0.05 * grain)
    for frame in range(frames):
        image = background.copy()
        height = surfaces.height[frame].astype(np.float32)
        out, epi, endo, rv = (around(table[frame]) for table in (outer, surfaces.epi, surfaces.endo, surfaces.rv))
        present = (out > 0).astype(np.float32)
        rim = out + fat_rim * present
        image *= 1 - 0.8 * vendor.ink * line(radius - rim - 0.8, 1.6) * present
        blend(image, vendor.fat * (0.85 + 0.12 * grain), edge(rim - radius, soft) * present)
        image *= 1 - vendor.ink * line(radius - out - 0.6, 1.3) * present
        blend(image, muscle * 0.95, edge(out - radius, soft) * present)
        room = np.clip((rv - epi) / 3, 0, 1)
        rough = np.clip((grain - 0.55 + 0.9 * (height[:, None, None] - 0.5)) * 1.5, 0, 1)
        rough = rough * np.clip(1 - (rv - radius) / 14, 0.15, 1)
        pool = vendor.blood * (0.90 + 0.05 * flow)
        blend(image, pool + 0.8 * rough * (vendor.myocardium - pool), edge(rv - radius, soft) * room)
        blend(image, muscle, edge(epi - radius, soft) * (epi > 0))
        squeeze = np.sqrt(np.maximum(widths[0], 1) / np.maximum(widths[frame], 1))
        pool = vendor.blood * (1.0 + 0.03 * flow + 0.025 * grain)
        within = endo - radius
        lattice = np.clip(finger + 0.35 * grain + 0.7 * vendor.trabeculation - 0.15, 0, 1)
        dark = lattice * edge(layer * squeeze[:, None, None] - within + 0.5 * grain, 2)
        dark = np.maximum(dark, _papillary(x, y, surfaces.endo[frame], height, details, soft))
        blend(image, pool + dark * (vendor.myocardium - pool), edge(within, soft) * (endo > 0))
        for index in np.flatnonzero(height < 0).tolist():
            _above_valves(
                image[index],
                x[index],
                y[index],
                flow[index],
                grain[index],
                float(height[index]),
                surfaces,
                vendor,
                soft,
            )
        images[frame] = image
        mask = np.zeros(shape, np.uint8)
        mask[radius < rv] = RV
        mask[radius < epi] = MYO
        mask[radius < endo] = LV
        masks[frame] = mask
    return images, masks


def _papillary(x: Array, y: Array, endo: Array, height: Array, details: Details, soft: float) -> Array:
    """Darkness 0..1 of the papillary muscles, in the middle third of the cavity."""
    dark = np.zeros_like(x)
    for angle, share, long, short in details.papillary:
        ring = endo[:, np.argmin(np.abs(ANGLES - angle))]
        cos, sin = math.cos(angle), math.sin(angle)
        for index in np.flatnonzero((height > 0.22) & (height < 0.78) & (ring > 4)).tolist():
            grown = math.sin(math.pi * (float(height[index]) - 0.12) / 0.76) ** 0.5
            radius = share * float(ring[index])
            dx, dy = x[index] + radius * cos, y[index] - radius * sin
            outward, sideways = dy * sin - dx * cos, dx * sin + dy * cos
            reach = np.sqrt((outward / long) ** 2 + (sideways / short) ** 2) * short
            np.maximum(dark[index], edge(short * grown - reach, soft), out=dark[index])
    return dark


def _above_valves(
    image: Array,
    x: Array,
    y: Array,
    flow: Array,
    grain: Array,
    height: float,
    surfaces: Surfaces,
    vendor: Vendor,
    soft: float,
) -> None:
    """Draw one slice above the valve plane: aorta, atria and outflow tract, thin-walled, in fat."""
    size = float(surfaces.epi[0].max(0).mean())
    close = np.hypot((x + 0.25 * size) / 1.35, y) - size * (1.05 + 0.05 * flow)
    blend(image, 0.62 * vendor.fat * (1 + 0.15 * flow), edge(-close, 3))
    shift = min(max(-height, 0.0), 0.3)
    for name, x0, y0, a, b in _VALVES:
        grow = 1 - 0.6 * shift if name != "aorta" else 1 - 0.3 * shift
        away = np.hypot((x - x0 * size) / a, (y - y0 * size) / b) - size * grow
        mean_axis = (a + b) / 2
        blend(image, vendor.myocardium, 0.8 * edge(-away * mean_axis + 1.5, soft))
    for _, x0, y0, a, b in _VALVES:
        away = np.hypot((x - x0 * size) / a, (y - y0 * size) / b) - size * (1 - 0.6 * shift)
        blend(image, vendor.blood * (0.9 + 0.07 * flow), edge(-away * (a + b) / 2, soft))
