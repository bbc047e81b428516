"""Generate one fundus photograph: eye, findings and fundus camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.canvas import Array
from monai_fedlora.data.phantom.cohort import name_seed
from monai_fedlora.data.photo_phantom import strokes
from monai_fedlora.data.photo_phantom.fundus_cameras import FundusCamera
from monai_fedlora.data.photo_phantom.optics import develop
from monai_fedlora.data.photo_phantom.retina import Window, draw_eye, draw_retina
from monai_fedlora.data.photo_phantom.retinopathy import Findings, draw_findings
from monai_fedlora.data.photo_phantom.tissue import Layers, Palette, colour
from monai_fedlora.data.photo_phantom.vessels import DISC
from monai_fedlora.errors import ConfigError

RETINA = Palette(base=(0.99, 0.68, 0.46), blue=(0.30, 0.22, 0.20), horn=(0.98, 0.82, 0.52), white=(1.0, 0.95, 0.82))
"""Fundus without pigment (base); laser scars (blue), disc and lipid (horn), cup and cotton wool spots (white)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fundus:
    """A picture with its ground truth.

    Attributes:
        pixels: (Y, X, 3) uint8.
        field: (Y, X) bool, the part that shows retina.
        layers: amounts of pigment, blood and covering material.
        findings: the pathological findings.
        window: the part of the retina that the picture shows.
    """

    pixels: Array
    field: Array
    layers: Layers
    findings: Findings
    window: Window


def make_fundus(
    grade: str, camera: FundusCamera, seed: int | tuple[int, ...], *, shot: int = 0, size: int = 120
) -> Fundus:
    """Generate a picture of a retina.

    Args:
        grade: one of ``retinopathy.GRADES``.
        camera: the camera and its patients.
        seed: seed of the person; the same seed gives the same pigment, bit for bit.
        shot: even numbers picture the right eye, odd numbers the left one; each has findings of its own.
        size: shorter side of the picture, pixels.

    Raises:
        ConfigError: unknown grade, or a picture under 32 pixels.
    """
    if size < 32:
        raise ConfigError(f"a picture of {size} pixels shows no retina; take 32 or more")
    sequence = np.random.SeedSequence(seed)
    person = np.random.default_rng(sequence.spawn(1)[0])
    numbers, retina_rng, light_rng, sensor = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence(sequence.entropy, spawn_key=(1 + shot,)).spawn(4)
    )
    pigment = float(np.clip(camera.pigment * np.exp(person.normal(0, camera.pigments)), 0.15, 1.3))
    eye = draw_eye(pigment, numbers)
    shape = (size, round(size * camera.aspect))
    rim = camera.fill * size / 2
    window = Window(
        shape=shape,
        scale=rim / camera.reach,
        centre=camera.look * DISC + numbers.normal(0, 0.05, 2),
        turn=float(numbers.normal(0, 0.06)),
        left=bool(shot % 2),
    )
    reach = 0.93 * camera.reach * min(1.0, 1.06 / camera.fill)
    findings = draw_findings(grade, window.centre, reach, numbers)
    layers = Layers.empty(shape)
    draw_retina(layers, eye, findings, window, retina_rng)
    picture = colour(layers, RETINA)
    away, field = _field(shape, rim, camera)
    light = _light(away, camera, light_rng)
    haze = np.float32(camera.haze * light_rng.uniform(0.3, 1.2)) * np.clip((away - 0.72) * 3, 0, 1) ** 2
    for plane, tint in zip(picture, (0.85, 0.80, 0.78), strict=True):
        plane += 0.5 * haze * (np.float32(tint) - plane)
    picture *= field * _dust(shape, rim, camera)
    picture += (1 - field) * np.float32(0.012)
    pixels = develop(picture, light, camera.optics, sensor)
    return Fundus(pixels=pixels, field=field > 0.5, layers=layers, findings=findings, window=window)


def _field(shape: tuple[int, int], rim: float, camera: FundusCamera) -> tuple[Array, Array]:
    """Return the distance (Y, X) from the middle in radii of the field, and the share 0..1 of pixels inside it."""
    height, width = shape
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) / np.float32(rim)
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2))[:, None] / np.float32(rim)
    away = np.sqrt(x * x + y * y)
    field = np.clip((1 - away) * np.float32(0.8 * rim) + np.float32(0.5), 0, 1)
    if camera.notch:
        mark = np.hypot(x - np.float32(0.73), y + np.float32(0.73)) - np.float32(0.085)
        field = np.maximum(field, np.clip(-mark * np.float32(rim) + np.float32(0.5), 0, 1))
    return away, field


def _light(away: Array, camera: FundusCamera, rng: np.random.Generator) -> Array:
    """The light of the flash: brightest somewhere off the middle, darker towards the rim."""
    height, width = away.shape
    lean = rng.normal(0, 0.10, 2).astype(np.float32)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    shade = np.float32(camera.shade * rng.uniform(0.6, 1.3))
    return np.maximum(1.08 + lean[0] * x + lean[1] * y - shade * away * away, 0.15)


def _dust(shape: tuple[int, int], rim: float, camera: FundusCamera) -> Array:
    """Dust on the lens, out of focus; the same in all pictures of a camera."""
    if not camera.dust:
        return np.ones(shape, np.float32)
    rng = np.random.default_rng(name_seed(camera.name))
    angle, way = rng.uniform(0, 2 * np.pi, camera.dust), rim * np.sqrt(rng.uniform(0.05, 0.8, camera.dust))
    x, y = (side / 2 + part * way for side, part in zip(shape[::-1], (np.cos(angle), np.sin(angle)), strict=True))
    sigma, depth = rng.uniform(0.02, 0.04, camera.dust) * rim, rng.uniform(0.08, 0.2, camera.dust)
    return 1 - strokes.dots(shape, x, y, sigma, depth)
