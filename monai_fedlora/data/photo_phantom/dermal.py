"""Dermatofibromas and vascular lesions (Kittler et al., JAAD 2016); every number is ours."""

from __future__ import annotations

import numpy as np

from monai_fedlora.data.photo_phantom import texture
from monai_fedlora.data.photo_phantom.view import View


def dermatofibroma(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A dermatofibroma: a white scar-like patch in the middle of a delicate brown network."""
    layers, body = view.layers, view.fade()
    radius = rng.uniform(0.38, 0.62)
    scar = view.bump(rng.normal(0, 0.07, 2), radius) * np.clip(0.85 + 0.25 * view.noise(rng, 3), 0, 1)
    net = view.mesh(rng, view.per_radius(16), 0.3)
    ring = body * (1 - np.clip(1.1 * scar, 0, 1))
    layers.add(
        melanin=rng.uniform(0.25, 0.8) * ring * (0.75 + 0.5 * net) * (1 + 0.12 * view.noise(rng, 2.5)),
        blood=body * rng.uniform(0.04, 0.22) + rng.uniform(0, 0.2) * scar,
    )
    layers.at_least(white=rng.uniform(0.35, 0.7) * scar * body)
    turn = rng.uniform(0, np.pi) + np.array([0, np.pi / 2])
    shine = np.zeros(view.u.shape, np.float32)
    for angle in turn:
        along = np.cos(angle) * view.u + np.sin(angle) * view.v
        shine = np.maximum(shine, np.cos(along * view.per_radius(60) + 1.5 * view.noise(rng, 3)))
    layers.at_least(white=0.75 * np.clip(shine * 2 - 1.2, 0, 1) * scar * body)
    return {"scar": radius}


def vascular(view: View, rng: np.random.Generator) -> dict[str, float]:
    """A vascular lesion: round red, purple or blue-black lacunae between pale septa."""
    layers, body = view.layers, view.fade()
    across = rng.uniform(2.0, 3.6)
    bend = 0.07 * view.noise(rng, 3)
    near, border, tone = texture.cells(rng, view.u + bend, view.v - bend, across)
    sparse = rng.uniform(-0.06, 0.08)
    room = np.clip((border - sparse) * 8, 0, 1) * np.clip(3.0 - 3.2 * near, 0, 1)
    full = room * body
    layers.add(blood=rng.uniform(0.2, 0.6) * body + full * (0.35 + 0.5 * tone) * rng.uniform(0.7, 1.2))
    clotted = float(rng.choice((0.0, 0.25, 0.9), p=(0.5, 0.3, 0.2)))
    clot = full * np.clip((tone - 1 + clotted) * 12, 0, 1)
    layers.add(melanin=clot * rng.uniform(0.5, 1.4))
    layers.at_least(blue=clot * rng.uniform(0.15, 0.45))
    septa = body * (1 - room)
    layers.at_least(white=rng.uniform(0.0, 0.22) * septa)
    return {"lacunae": across, "clotted": clotted}
