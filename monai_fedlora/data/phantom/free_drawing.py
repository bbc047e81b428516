"""Draw a heart of any form into its slices, with the share of every voxel that each structure fills."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.anatomy import ANGLES, Surfaces
from monai_fedlora.data.phantom.canvas import Array, blend, edge, line, smooth
from monai_fedlora.data.phantom.free_scanner import Export
from monai_fedlora.data.phantom.patient import Stage
from monai_fedlora.data.phantom.render import View, lattice, outline, polar, wrap
from monai_fedlora.data.phantom.vendors import Vendor

PARTS = 3
"""Thin parts of a slice, whose mean the slice is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blood:
    """Small features of the cavities and of what lies above the valves.

    Attributes:
        papillary: angle, share of the radius, half axes (mm) and range of heights of each papillary muscle.
        fat: thickness of the fat around the heart over that of ``render.Details``.
        layer: depth of the trabeculated layer over that of ``render.Details``.
        fine: how far its trabeculae are too fine to be told apart, 0..1.
        closing: how far the clefts between them close where the cavity shrinks to nothing, 0..1.
        bands: direction (radians), distance (mm), share that is dark, and least height of the muscular bands in the RV.
        rv_wall: thickness of the RV's free wall, mm.
        vessels: (5, 4) x, y and half axes of aorta, left atrium, right atrium, outflow tract and appendage, over the
            radius of the ring at the base.
        rim: how dark their walls are, 0..1.
    """

    papillary: tuple[tuple[float, float, float, float, float, float], ...]
    fat: float
    layer: float
    fine: float
    closing: float
    bands: tuple[float, float, float, float]
    rv_wall: float
    vessels: Array
    rim: float


def draw_blood(rng: np.random.Generator) -> Blood:
    """Draw the small features of a heart."""
    u = rng.uniform
    papillary = tuple(
        (side * u(1.6, 2.5), u(0.55, 0.92), u(2.5, 6.5), u(2.0, 4.8), u(0.1, 0.3), u(0.6, 0.95))
        for side in (-1, 1)
        for _ in range(int(rng.integers(1, 3)))
    )
    middle = np.array(
        [[-0.15, -0.12, 0.42, 0.40], [0.40, 0.40, 0.66, 0.52], [-0.95, 0.50, 0.66, 0.52], [-0.75, -0.68, 0.58, 0.42],
         [0.45, -0.55, 0.25, 0.2]]
    )  # fmt: skip
    vessels = middle + rng.normal(0, 0.14, middle.shape)
    vessels[:, 2:] = np.maximum(vessels[:, 2:], 0.12)
    return Blood(
        papillary=papillary,
        fat=u(0.3, 2.5),
        layer=u(0.35, 2.6),
        fine=u(0.0, 1.0),
        closing=u(0.0, 1.0),
        bands=(u(-math.pi / 2, math.pi / 2), u(7.0, 22.0), u(0.0, 0.5), u(-0.1, 0.8)),
        rv_wall=u(1.5, 6.0),
        vessels=vessels,
        rim=u(0.2, 1.0),
    )


def draw_free_slices(
    stage: Stage, cut: Surfaces, blood: Blood, vendor: Vendor, export: Export, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw every frame of a heart over its surroundings.

    Args:
        stage: Z slices around the heart.
        cut: (T, Z * PARTS) borders, the parts of a slice beside each other.
        blood: small features.
        vendor, export: tissue signals.
        rng: source of the texture, and of where the heart lies in each frame.

    Returns:
        (T, Z, Y, X) signal, and shares of LV, muscle and RV in ``stage.box``, (T, 3, Z, Y', X'); float32.
    """
    rows, columns = stage.box
    x, y = stage.x[columns].astype(np.float32), stage.y[rows].astype(np.float32)
    frames, slices, pixel = len(cut.endo), len(stage.signal), float(stage.x[1] - stage.x[0])
    shape = (slices, len(y), len(x))
    grain = smooth(rng, shape, (slices, len(y) // 4 + 1, len(x) // 4 + 1))
    patch = int(rng.integers(5, 25))  # pixels
    flows = [smooth(rng, shape, (slices, len(y) // patch + 1, len(x) // patch + 1)) for _ in range(frames)]
    restless = rng.normal(0, export.restless, (frames, slices, 2))
    profile = (export.profile, 1 - 2 * export.profile, export.profile)
    outer = outline(cut, blood.rv_wall)
    tables = [part.astype(np.float32) for part in (outer, cut.epi, cut.endo, cut.rv, cut.rv_inner)]
    fat, layer, finger = (
        part.astype(np.float32)
        for part in (stage.details.fat * blood.fat, stage.details.trabecula * blood.layer, stage.details.finger)
    )
    finger += np.float32(blood.fine) * (finger.mean() - finger)
    left = _shrinking((cut.endo**2).mean(-1))
    right = _shrinking((cut.rv**2 - cut.rv_inner**2).mean(-1))
    size = float(cut.epi[0].mean(-1).max())
    signal = np.repeat(stage.signal[None], frames, 0)
    shares = np.zeros((frames, 3, *shape), np.float32)
    for frame, index in np.ndindex(frames, slices):
        parts: Sequence[int] = range(index * PARTS, index * PARTS + PARTS)
        heights = cut.height[frame, parts]
        weights: tuple[float, ...] = profile
        if heights.min() > 0.12 and heights.max() < 0.7:  # walls stand upright: the middle is the mean
            parts, weights = parts[PARTS // 2 : PARTS // 2 + 1], (1.0,)
            heights = cut.height[frame, parts]
        if heights.min() >= 1 or heights.max() < -0.6:
            continue
        centre = stage.centres[index] + restless[frame, index]
        bins, across, down, radius = polar(
            np.broadcast_to(x - np.float32(centre[0]), shape[1:]),
            np.broadcast_to((y - np.float32(centre[1]))[:, None], shape[1:]),
            stage.turn,
        )
        view = View(
            bins=bins, x=across, y=down, radius=radius, grain=grain[index], flow=flows[frame][index],
            soft=max(1.0, pixel),
        )  # fmt: skip
        details = [part[index][bins] for part in (fat, layer, finger)]
        ground = signal[frame, index][rows, columns]
        picture = np.zeros_like(ground)
        filled = np.zeros((3, *ground.shape), np.float32)
        for part, height, weight in zip(parts, heights.tolist(), weights, strict=True):
            image = ground.copy()
            if height < 1:
                borders = [table[frame, part][bins] for table in tables]
                if height < 0:
                    _above(image, view, height, size, blood, vendor, export)
                    if cut.rv[frame, part].max() > cut.rv_inner[frame, part].max() + 1:
                        filled[2] += weight * _right(image, view, borders, height, 1.0, blood, vendor, export, pixel)
                else:
                    inner = cut.endo[frame, part]
                    squeeze = float(left[frame, part]), float(right[frame, part])
                    filled += weight * _ring(
                        image, view, borders, details, inner, height, squeeze, blood, vendor, export, pixel
                    )
            picture += np.float32(weight) * image
        signal[frame, index][rows, columns] = picture
        shares[frame, :, index] = filled
    return signal, shares


def _ring(
    image: Array,
    view: View,
    borders: list[Array],
    details: list[Array],
    inner: Array,
    height: float,
    squeeze: tuple[float, float],
    blood: Blood,
    vendor: Vendor,
    export: Export,
    pixel: float,
) -> Array:
    """Draw both ventricles of a thin slice, whose radii have shrunk by ``squeeze``; returns the shares (3, Y, X)."""
    out, epi, endo, _, _ = borders
    fat, layer, finger = details
    wrap(image, view, out, fat, vendor)
    right = _right(image, view, borders, height, squeeze[1], blood, vendor, export, pixel)
    muscle = edge(epi - view.radius, pixel)
    blend(image, vendor.myocardium * (1 + 0.05 * view.grain), edge(epi - view.radius, view.soft))
    cavity = edge(endo - view.radius, pixel)
    if inner.max() <= 0:
        cavity = np.zeros_like(muscle)
    else:
        closed = finger + np.float32(blood.closing * (1 - 1 / squeeze[0])) * (1 - finger)
        dark = lattice(view, endo, layer * np.float32(squeeze[0]), closed, vendor)  # it keeps its volume
        _papillary(dark, view, inner, height, squeeze[0], blood)
        pool = _moving(vendor.blood, view, export)
        pool += np.minimum(dark, 1) * (vendor.myocardium - pool)
        blend(image, pool, edge(endo - view.radius, view.soft))
    return np.stack([cavity, muscle - cavity, right])


def _right(
    image: Array,
    view: View,
    borders: list[Array],
    height: float,
    squeeze: float,
    blood: Blood,
    vendor: Vendor,
    export: Export,
    pixel: float,
) -> Array:
    """Draw the RV's blood, rough along the free wall and towards the apex and crossed by bands; returns its share."""
    _, _, _, rv, inner = borders
    rough = np.clip((view.grain - 0.55 + 0.9 * (height - 0.5)) * 1.5, 0, 1)
    rough *= np.clip(1 - (rv - view.radius) / 14, 0.15, 1)
    pool = _moving(vendor.blood * export.rv_blood, view, export)
    pool += np.maximum(0.8 * rough, _bands(view, height, squeeze, blood)) * (vendor.myocardium - pool)
    share = edge(rv - view.radius, pixel)
    share -= edge(inner - view.radius, pixel)
    np.maximum(share, 0, out=share)
    if height < 0:
        blend(image, vendor.myocardium, edge(rv + 2 - view.radius, view.soft) * edge(view.radius - inner, view.soft))
        blend(image, pool, share)
    else:
        blend(image, pool, edge(rv - view.radius, view.soft) * np.clip((rv - inner) / 2, 0, 1))
    return share


def _moving(blood: float, view: View, export: Export) -> Array:
    """Signal of blood: patches of it are darker where it flows."""
    lost = np.clip(0.3 * view.flow + 0.25 * view.grain + 0.15, 0, 1)
    lost *= np.float32(-blood * export.flow)
    lost += np.float32(blood) * (1 + 0.03 * view.flow + 0.02 * view.grain)
    return np.asarray(lost)


def _bands(view: View, height: float, squeeze: float, blood: Blood) -> Array:
    """Darkness 0..1 of the muscular bands that cross the RV towards its apex, denser where it has shrunk."""
    angle, apart, share, first = blood.bands
    across = view.x * np.float32(math.sin(angle) / apart) + view.y * np.float32(math.cos(angle) / apart)
    waves = np.cos(np.float32(2 * math.pi) * across + view.grain + np.float32(5 * height))
    waves -= np.float32(math.cos(math.pi * min(share * squeeze, 0.8)))
    waves *= np.float32(2 * min(max(3 * (height - first), 0.0), 1.0))
    return np.asarray(np.clip(waves, 0, 1))


def _shrinking(area: Array) -> Array:
    """How many times a radius is smaller than at first, 1..3, by the areas (T, S) of a cavity, mm2."""
    return np.clip(np.sqrt(np.maximum(area[:1], 1) / np.maximum(area, 1)), 1, 3)


def _papillary(dark: Array, view: View, endo: Array, height: float, squeeze: float, blood: Blood) -> None:
    """Darken the papillary muscles, in the middle of the cavity's height; their outline is uneven."""
    for angle, share, long, short, first, last in blood.papillary:
        ring = float(endo[np.argmin(np.abs(ANGLES - angle))])
        if ring <= 4 or not first < height < last:
            continue
        cos, sin = math.cos(angle), math.sin(angle)
        grown = math.sqrt(squeeze**0.5 * math.sin(math.pi * (height - first) / (last - first)))  # shorter is thicker
        dx, dy = view.x + share * ring * cos, view.y - share * ring * sin
        outward, sideways = dy * sin - dx * cos, dx * sin + dy * cos
        reach = np.hypot(outward * (short / long), sideways) + view.grain
        np.maximum(dark, edge(short * grown - reach, view.soft), out=dark)


def _above(image: Array, view: View, height: float, size: float, blood: Blood, vendor: Vendor, export: Export) -> None:
    """Draw a thin slice above the valve plane: aorta, atria and outflow tract with thin walls, in fat."""
    x, y = view.x, view.y
    close = np.hypot((x + 0.25 * size) / 1.35, y) - size * (1.1 + 0.08 * view.flow)
    blend(image, 0.55 * vendor.fat * (1 + 0.25 * view.flow), edge(-close, 4))
    shift = min(-height, 0.4)
    insides = []
    for x0, y0, a, b in blood.vessels.tolist():
        away = np.hypot((x - x0 * size) / a, (y - y0 * size) / b) - size * (1 - 0.5 * shift)
        insides.append(away * (-(a + b) / 2) + 1.2 * view.flow)
        blend(image, vendor.myocardium, np.float32(blood.rim) * edge(insides[-1] + 1.5, view.soft))
    for place, inside in enumerate(insides):
        pool = _moving(vendor.blood * (export.rv_blood if place in (2, 3) else 1.0), view, export)
        blend(image, pool, edge(inside, view.soft))
        image *= 1 - np.float32(0.5 * vendor.ink) * line(inside, 1.2)
