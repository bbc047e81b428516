"""Moles and melanomas: their signs as dermoscopy names them (Kittler et al., JAAD 2016); every number is ours."""

from __future__ import annotations

import numpy as np

from monai_fedlora.data.photo_phantom import texture
from monai_fedlora.data.photo_phantom.outline import ANGLES, N_ANGLES
from monai_fedlora.data.photo_phantom.view import View, scatter

_HOLES = 15.0  # holes of a pigment network along half of the picture's shorter side


def nevus(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A mole: one regular pattern, one or two colours, fading evenly all around."""
    layers, body = view.layers, view.fade()
    kind = rng.choice(("brown", "pink", "blue"), p=(0.77, 0.18, 0.05))
    level = {"brown": rng.uniform(0.4, 1.45), "pink": rng.uniform(0.12, 0.4), "blue": rng.uniform(0.5, 0.9)}[kind]
    centre, lean = rng.uniform(-0.25, 0.7), rng.normal(0, 0.13, 2)
    pigment = level * body * (1 + centre * np.clip(0.55 - view.rho**2, -0.6, 0.5) + lean[0] * view.u + lean[1] * view.v)
    pigment *= 1 + rng.uniform(0.06, 0.14) * (view.noise(rng, 2.4) + 0.7 * view.noise(rng, 7))
    pattern = rng.choice(("reticular", "globular", "homogeneous"), p=(0.45, 0.25, 0.3))
    if pattern == "reticular":
        net = view.mesh(rng, view.per_radius(_HOLES), 0.28)
        pigment *= 1 + rng.uniform(0.5, 1.1) * (net - 0.5) * np.clip(0.7 + 0.4 * view.noise(rng, 1.5), 0, 1)
    elif pattern == "globular":
        near, _, tone = texture.cells(rng, view.u, view.v, view.per_radius(11))
        pigment *= 0.72 + (0.25 + 0.35 * tone) * np.clip(1.9 - 3.6 * near, 0, 1)
    layers.add(melanin=pigment, blood=body * (rng.uniform(0.2, 0.5) if kind == "pink" else rng.uniform(0, 0.12)))
    if kind == "blue":
        layers.at_least(blue=view.fade(0.5) * np.clip(0.68 + 0.12 * view.noise(rng, 2), 0, 0.85))
    return {"network": float(pattern == "reticular"), "globules": float(pattern == "globular")}


def melanoma(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A melanoma: several colours in an asymmetric arrangement, and at least one of its specific signs."""
    layers, body = view.layers, view.fade()
    signs = {"veil": 0.5, "streaks": 0.4, "network": 0.5, "regression": 0.4, "dots": 0.5}
    present = {name: bool(rng.random() < chance) for name, chance in signs.items()}
    for name in rng.permutation(("veil", "streaks", "network"))[: max(0, 1 - sum(present.values()))]:
        present[str(name)] = True
    pale = rng.random() < 0.15
    lean = rng.uniform(0, 2 * np.pi)
    askew = np.cos(lean) * view.u + np.sin(lean) * view.v + 0.55 * view.noise(rng, 1.3)
    light, dark = (
        (rng.uniform(0.1, 0.3), rng.uniform(0.4, 0.8)) if pale else (rng.uniform(0.3, 0.85), rng.uniform(1.1, 2.3))
    )
    deep = np.clip((askew - rng.uniform(-0.1, 0.35)) * rng.uniform(0.9, 2.2) + 0.5, 0, 1)
    pigment = light + (dark - light) * deep
    pigment += rng.uniform(0.4, 1.1) * (not pale) * view.patch(rng, 1.9, rng.uniform(0.4, 1.0), 1.3)
    pigment *= 1 + 0.12 * view.noise(rng, 3.5) + 0.1 * view.noise(rng, 8)
    if present["network"]:
        net = view.mesh(rng, view.per_radius(_HOLES * rng.uniform(0.65, 0.95)), 0.5)
        where = view.patch(rng, 1.2, -0.4, 1.5)
        pigment *= 1 + where * rng.uniform(0.5, 1.0) * (net - 0.5)
    pigment *= body
    if present["streaks"]:
        pigment = np.maximum(pigment, rng.uniform(0.8, 1.5) * _streaks(view, rng))
    if present["dots"]:
        count = int(rng.integers(8, 26))
        side = scatter(rng, view.outline, count) * 0.8 + rng.uniform(-0.35, 0.35, 2)
        pigment = np.maximum(pigment, 1.9 * view.spots(side, rng.uniform(0.02, 0.06, count)))
    red = rng.uniform(0.2, 0.75) * (pale or rng.random() < 0.5) * view.patch(rng, 1.2, 0.1, 0.8)
    layers.add(melanin=pigment, blood=body * np.maximum(rng.uniform(0.0, 0.15), red))
    if present["veil"]:
        place = scatter(rng, view.outline, 1, 0.15, 0.6)[0]
        veil = view.bump(place, rng.uniform(0.4, 0.75)) * np.clip(0.75 + 0.35 * view.noise(rng, 1.8), 0, 1)
        layers.at_least(blue=rng.uniform(0.55, 0.85) * veil * body)
    if present["regression"]:
        place = scatter(rng, view.outline, 1, 0.2, 0.7)[0]
        scar = view.bump(place, rng.uniform(0.3, 0.55)) * body
        layers.melanin[...] *= 1 - 0.85 * scar
        layers.at_least(white=rng.uniform(0.22, 0.42) * scar)
        pepper = scatter(rng, view.outline, 14, 0, 0.4) * 0.7 + place
        layers.at_least(blue=0.5 * view.spots(pepper, 0.035) * scar)
    return {name: float(there) for name, there in present.items()}


def _streaks(view: View, rng: np.random.Generator) -> np.ndarray:
    """Radial streaks and pseudopods along a part of the border, 0..1."""
    count = int(rng.integers(14, 34))
    angles = rng.uniform(0, 2 * np.pi) + rng.uniform(0.6, 1.3) * np.clip(rng.normal(0, 0.6, count), -1, 1)
    rim = view.outline.radius[np.rint(angles / ANGLES[1]).astype(int) % N_ANGLES]
    way = np.stack([rim * 0.8, rim * rng.uniform(0.98, 1.25, count)], 1)
    bend = np.stack([angles, angles + rng.normal(0, 0.06, count)], 1)
    nodes = np.stack([way * np.cos(bend), way * np.sin(bend)], -1)
    streaks = view.lines(nodes, rng.uniform(0.035, 0.08, (count, 1)), [[0.9, 0.5]])
    ends = view.spots(nodes[:, 1], rng.uniform(0.02, 0.055, count) * (rng.random(count) < 0.35), 0.8)
    return np.maximum(streaks, ends)
