"""Keratoses and carcinomas: their signs as dermoscopy names them (Kittler et al., JAAD 2016); every number is ours."""

from __future__ import annotations

import numpy as np

from monai_fedlora.data.photo_phantom import strokes, texture
from monai_fedlora.data.photo_phantom.view import View, scatter


def keratosis(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A benign keratosis: waxy, with a sharp "moth-eaten" border, and with cysts, plugs or ridges."""
    layers, body = view.layers, view.fade()
    level = rng.uniform(0.3, 1.35)
    pigment = level * (1 + 0.18 * view.noise(rng, 2.6) + 0.12 * view.noise(rng, 9)) * body
    ridged = bool(rng.random() < 0.5)
    if ridged:
        bend = view.length(0.03) * view.noise(rng, view.per_radius(6))
        _, border, tone = texture.cells(rng, view.u + bend, view.v - bend, view.per_radius(rng.uniform(6, 9)))
        pigment *= 0.85 + 0.15 * tone + 0.35 * np.clip(1 - border * 6, 0, 1)
    else:
        ripple = view.noise(rng, view.per_radius(4)) * 1.6
        turn = rng.uniform(0, np.pi)
        prints = np.cos((np.cos(turn) * view.u + np.sin(turn) * view.v) * view.per_radius(66) + 2 * ripple)
        pigment *= 1 + rng.uniform(0.04, 0.16) * prints
    pigment += 0.25 * level * np.clip(1 - np.abs(view.inside - 0.06) / 0.06, 0, 1)
    layers.add(melanin=pigment, blood=rng.uniform(0.0, 0.15) * body)
    layers.at_least(horn=rng.uniform(0.08, 0.34) * body, blue=rng.uniform(0.0, 0.22) * body)
    cysts, plugs = int(rng.integers(2, 13)), int(rng.integers(0, 15))
    if plugs:
        places = scatter(rng, view.outline, plugs, 0, 0.85)
        dark = view.spots(places, view.length(1) * rng.uniform(0.014, 0.034, plugs))
        layers.at_least(melanin=2.0 * dark)
    places = scatter(rng, view.outline, cysts, 0, 0.85)
    milia = view.spots(places, view.length(1) * rng.uniform(0.014, 0.032, cysts))
    layers.at_least(white=0.8 * milia)
    return {"cysts": float(cysts), "plugs": float(plugs), "ridges": float(ridged)}


def actinic(view: View, rng: np.random.Generator) -> dict[str, float]:
    """An actinic keratosis: red between pale hair follicles ("strawberry pattern"), scaly, without a clear border."""
    layers, body = view.layers, view.fade()
    near, _, tone = texture.cells(rng, view.u, view.v, view.per_radius(rng.uniform(8.5, 11)))
    follicles = np.clip(1.6 - 4 * near, 0, 1) * (0.5 + 0.5 * tone)
    red = (0.3 + 0.12 * view.noise(rng, 2)) * rng.uniform(0.7, 1.3)
    layers.add(blood=body * red * (1 - 0.8 * follicles))
    layers.at_least(horn=0.16 * follicles * body, white=0.2 * follicles * body)
    pigmented = bool(rng.random() < 0.4)
    if pigmented:
        layers.add(melanin=rng.uniform(0.3, 0.7) * body * (1 - 0.7 * follicles))
    scale = view.patch(rng, 9, rng.uniform(0.2, 0.8), 2.5) * body * view.patch(rng, 1.3, 0.0, 2)
    layers.at_least(white=rng.uniform(0.5, 0.9) * scale)
    return {"follicles": 1.0, "pigmented": float(pigmented), "scale": float(scale.mean())}


def basal_cell(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A basal cell carcinoma: pink and shiny, with arborising vessels, blue-grey nests and sometimes an ulcer."""
    layers, body = view.layers, view.fade()
    layers.add(
        blood=body * (rng.uniform(0.08, 0.3) + 0.07 * view.noise(rng, 2)),
        melanin=body * rng.uniform(0, 0.25) * view.patch(rng, 1.5, -0.2, 1),
    )
    layers.at_least(white=body * rng.uniform(0.05, 0.22) * view.patch(rng, 1.8, -0.5, 1))
    nests = int(rng.integers(0, 9))
    if nests:
        places = scatter(rng, view.outline, nests, 0.4, 0.95)
        radii = rng.uniform(0.05, 0.17, nests)
        ovals = places[:, None] + np.linspace(-0.7, 0.7, 3)[:, None] * radii[:, None, None] * _directions(nests, rng)
        nest = view.spots(ovals.reshape(-1, 2), np.repeat(radii, 3), 0.9)
        nest *= np.clip(0.75 + 0.35 * view.noise(rng, 6), 0, 1)
        layers.at_least(blue=rng.uniform(0.4, 0.75) * nest)
        layers.add(melanin=rng.uniform(0.4, 1.3) * nest)
    trunks = int(rng.integers(2 if nests else 3, 6))
    vessels = arborising(view, rng, trunks)
    layers.at_least(blood=rng.uniform(0.9, 1.3) * vessels)
    ulcer = bool(rng.random() < 0.35)
    if ulcer:
        place = scatter(rng, view.outline, 1, 0, 0.5)[0]
        crust = view.bump(place, rng.uniform(0.15, 0.32)) * np.clip(0.9 + 0.5 * view.noise(rng, 5), 0, 1)
        layers.add(blood=1.1 * crust, melanin=0.7 * crust)
        layers.at_least(horn=0.3 * crust)
    return {"nests": float(nests), "vessels": float(trunks), "ulcer": float(ulcer)}


def squamous_cell(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A squamous cell carcinoma: red, with a mass of keratin, white circles, looped vessels and specks of blood."""
    layers, body = view.layers, view.fade()
    layers.add(
        blood=body * (rng.uniform(0.12, 0.38) + 0.1 * view.noise(rng, 1.8)),
        melanin=body * rng.uniform(0.1, 0.6) * view.patch(rng, 1.4, 0.0, 1.5),
    )
    place = scatter(rng, view.outline, 1, 0, 0.35)[0]
    mass = view.bump(place, rng.uniform(0.3, 0.6)) * np.clip(0.8 + 0.5 * view.noise(rng, 4), 0, 1)
    layers.at_least(horn=rng.uniform(0.4, 0.85) * mass)
    flakes = view.patch(rng, 8, 0.3, 2.5) * np.clip(mass * 1.5, 0, 1)
    layers.at_least(white=rng.uniform(0.6, 0.95) * flakes)
    circles = int(rng.integers(3, 11))
    places = scatter(rng, view.outline, circles, 0.25, 0.95)
    around = np.linspace(0, 2 * np.pi, 9)
    ring = np.stack([np.cos(around), np.sin(around)], -1) * view.length(0.045)
    rings = view.lines(places[:, None] + ring, view.length(0.022), 0.9)
    layers.at_least(white=0.45 * rings)
    loops = int(rng.integers(10, 26))
    start = scatter(rng, view.outline, loops, 0.6, 1.0)
    hairpins = strokes.wander(
        rng,
        start=start,
        heading=np.arctan2(-start[:, 1], -start[:, 0]),
        length=rng.uniform(0.1, 0.25, loops),
        nodes=5,
        curl=2.0,
    )
    layers.at_least(blood=1.1 * view.lines(hairpins, view.length(0.02)))
    specks = int(rng.integers(0, 9))
    spots = view.spots(scatter(rng, view.outline, specks, 0, 0.8), rng.uniform(0.04, 0.11, specks))
    layers.add(blood=1.3 * spots, melanin=0.9 * spots)
    return {"keratin": float(mass.max()), "circles": float(circles), "loops": float(loops), "specks": float(specks)}


def arborising(view: View, rng: np.random.Generator, trunks: int) -> np.ndarray:
    """Return sharp vessels, 0..1, that start at the border and branch like trees."""
    angles = rng.uniform(0, 2 * np.pi, trunks)
    start = np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(0.8, 1.15, trunks)[:, None]
    heading = angles + np.pi + rng.normal(0, 0.5, trunks)
    stems = strokes.wander(rng, start=start, heading=heading, length=rng.uniform(0.8, 1.5, trunks), nodes=12, curl=1.4)
    width = view.length(1) * rng.uniform(0.022, 0.04, (trunks, 1)) * np.linspace(1, 0.5, 12)
    picture = view.lines(stems, width)
    pick = rng.integers(2, 11, (trunks, 5))
    roots = np.take_along_axis(stems, pick[..., None], 1).reshape(-1, 2)
    along = np.take_along_axis(stems, pick[..., None] + 1, 1).reshape(-1, 2) - roots
    turn = rng.choice((-1, 1), len(roots)) * rng.uniform(0.5, 1.1, len(roots))
    twigs = strokes.wander(
        rng,
        start=roots,
        heading=np.arctan2(along[:, 1], along[:, 0]) + turn,
        length=rng.uniform(0.2, 0.65, len(roots)),
        nodes=8,
        curl=1.6,
    )
    return np.maximum(picture, view.lines(twigs, view.length(0.017) * np.linspace(1, 0.5, 8), 0.85))


def _directions(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random unit vectors (count, 1, 2)."""
    angles = rng.uniform(0, 2 * np.pi, count)
    return np.stack([np.cos(angles), np.sin(angles)], -1)[:, None]
