"""A retina drawn into tissue layers: fundus, disc, fovea, vessels and findings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.canvas import Array, smooth
from monai_fedlora.data.photo_phantom import strokes
from monai_fedlora.data.photo_phantom.retinopathy import Findings
from monai_fedlora.data.photo_phantom.tissue import Layers
from monai_fedlora.data.photo_phantom.vessels import DISC, Vessels, draw_tree, frond


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """What distinguishes one healthy eye from another.

    Attributes:
        pigment: melanin of the fundus.
        tessellation: visibility of the vessels of the choroid, 0..1.
        disc: radii of the disc along x and y, retina units.
        cup: radius of the cup over that of the disc.
        reflex: strength of the foveal reflex, 0..1; young eyes have one.
    """

    pigment: float
    tessellation: float
    disc: tuple[float, float]
    cup: float
    reflex: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Which part of the retina a picture shows.

    Attributes:
        shape: (Y, X) pixels.
        scale: pixels per retina unit.
        centre: (2) retina point in the middle of the picture.
        turn: radians.
        left: whether this is a left eye, whose disc is on the left.
    """

    shape: tuple[int, int]
    scale: float
    centre: Array
    turn: float
    left: bool

    def pixels(self, points: Array) -> Array:
        """Return the pixel coordinates (x, y) of retina points (..., 2)."""
        away = (points - self.centre) * (self.scale, self.scale)
        if self.left:
            away = away * (-1, 1)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return away @ np.array([[cos, sin], [-sin, cos]]) + (np.array(self.shape[::-1]) - 1) / 2

    def grid(self) -> tuple[Array, Array]:
        """Return the retina coordinates x and y of every pixel, (Y, X) float32 each."""
        height, width = self.shape
        x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) / np.float32(self.scale)
        y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2))[:, None] / np.float32(self.scale)
        cos, sin = np.float32(math.cos(self.turn)), np.float32(math.sin(self.turn))
        across, down = cos * x + sin * y, cos * y - sin * x
        if self.left:
            across = -across
        return across + np.float32(self.centre[0]), down + np.float32(self.centre[1])


def draw_eye(pigment: float, rng: np.random.Generator) -> Eye:
    """Draw a healthy eye; ``pigment`` is the melanin of its fundus."""
    width = rng.uniform(0.135, 0.165)
    return Eye(
        pigment=pigment,
        tessellation=float(rng.uniform(0, 1) * np.clip(1.3 - 1.3 * pigment, 0.1, 1)),
        disc=(width, width * rng.uniform(1.0, 1.14)),
        cup=float(rng.uniform(0.3, 0.6)),
        reflex=float(max(0.0, rng.uniform(-0.4, 0.5))),
    )


def draw_retina(layers: Layers, eye: Eye, findings: Findings, window: Window, rng: np.random.Generator) -> None:
    """Draw a retina and its findings into empty layers."""
    x, y = window.grid()
    _ground(layers, eye, x, y, rng)
    _disc(layers, eye, x, y, rng)
    blood = np.zeros(window.shape, np.float32)
    for vessels in draw_tree(rng, beading=findings.beading):
        np.maximum(blood, _lines(vessels, window), out=blood)
    _in_front(layers, blood)
    _findings(layers, findings, window, x, y, rng)


def _ground(layers: Layers, eye: Eye, x: Array, y: Array, rng: np.random.Generator) -> None:
    """Pigment, choroid and macula."""
    shape = layers.melanin.shape
    rows, columns = (max(2, round(side / min(shape) * 4)) for side in shape)
    slow, patchy = smooth(rng, shape, (rows, columns)), smooth(rng, shape, (5 * rows, 5 * columns))
    square = x * x + y * y
    macula = np.exp(square * np.float32(-1 / 0.055))
    layers.add(
        melanin=eye.pigment * (1 + 0.08 * slow + 0.04 * patchy) + 0.32 * macula,
        blood=0.10 + 0.03 * slow + 0.10 * macula + 0.20 * np.exp(square * np.float32(-1 / 0.0016)),
    )
    layers.add(melanin=np.float32(0.25 * eye.tessellation) * np.clip(patchy + 0.4 * slow, -1, 1) * (1 - macula))
    rim = np.exp(-(((np.sqrt(square) - 0.10) / 0.022) ** 2)) * np.clip(0.6 + slow, 0, 1)
    layers.at_least(white=np.float32(0.22 * eye.reflex) * rim)


def _disc(layers: Layers, eye: Eye, x: Array, y: Array, rng: np.random.Generator) -> None:
    """The optic disc, its cup and the pigment at its rim."""
    away = np.hypot((x - np.float32(DISC[0])) / np.float32(eye.disc[0]), (y - np.float32(DISC[1])) / eye.disc[1])
    inside = np.clip((1 - away) * 7 + 0.5, 0, 1)
    layers.at_least(horn=0.92 * inside, white=0.65 * np.clip((eye.cup - away) * 4 + 0.5, 0, 1))
    crescent = np.exp(-(((away - 1.08) / 0.07) ** 2)) * np.clip(np.cos(np.arctan2(y - DISC[1], DISC[0] - x)), 0, 1)
    layers.add(melanin=np.float32(rng.uniform(0, 0.5)) * crescent)


def _in_front(layers: Layers, blood: Array) -> None:
    """Draw blood that lies in front of the disc, lipid and cotton wool spots."""
    layers.add(blood=blood)
    clear = np.exp(-0.9 * blood)
    for cover in (layers.horn, layers.white):
        cover *= clear


def _lines(vessels: Vessels, window: Window, weight: float = 1.0) -> Array:
    nodes = window.pixels(vessels.nodes)
    drawn = strokes.lines(window.shape, nodes, vessels.width * (window.scale / 2.4), weight * vessels.blood)
    return np.minimum(drawn, 1.0)


def _spots(points: Array, radius: Array, window: Window, weight: float = 1.0) -> Array:
    place = window.pixels(points)
    sigma = np.asarray(radius) * (window.scale / 1.5)
    return np.minimum(strokes.dots(window.shape, place[:, 0], place[:, 1], sigma, 1.7 * weight), 1)


def _findings(layers: Layers, findings: Findings, window: Window, x: Array, y: Array, rng: np.random.Generator) -> None:
    """Draw the findings, those of deep layers first."""
    ragged = smooth(rng, window.shape, tuple(max(2, side // 4) for side in window.shape))

    def spots(points: Array, smallest: float, largest: float) -> Array:
        return _spots(points, rng.uniform(smallest, largest, len(points)), window)

    layers.at_least(horn=0.5 * spots(findings.scars, 0.025, 0.045), blue=0.8 * spots(findings.scars, 0.008, 0.022))
    layers.at_least(horn=0.45 * spots(findings.drusen, 0.01, 0.024))
    fat = spots(findings.exudates, 0.006, 0.019)
    layers.at_least(horn=0.95 * fat, white=0.35 * fat)
    tufts = (findings.wool[:, None] + rng.normal(0, 0.028, (len(findings.wool), 3, 2))).reshape(-1, 2)
    wool = _spots(tufts, rng.uniform(0.03, 0.05, len(tufts)), window, 0.8)
    layers.at_least(white=0.6 * wool * np.clip(0.85 + 0.15 * ragged, 0, 1))
    for place in findings.abnormal:
        layers.add(blood=0.7 * _lines(frond(rng, place, 0.10, count=5), window))
    layers.add(blood=_haemorrhages(findings.haemorrhages, window, ragged, rng))
    layers.add(blood=1.1 * spots(findings.microaneurysms, 0.014, 0.020))
    for place in findings.fronds:
        on_disc = bool(np.allclose(place, DISC))
        growth = frond(rng, place, rng.uniform(0.26, 0.42), count=30 if on_disc else 24)
        layers.at_least(white=0.22 * _spots(place[None], rng.uniform(0.06, 0.12, 1), window))
        _in_front(layers, 1.2 * _lines(growth, window))
    for place in findings.preretinal:
        _in_front(layers, _boat(place, rng.uniform(0.13, 0.26), x, y, ragged))


def _haemorrhages(points: Array, window: Window, ragged: Array, rng: np.random.Generator) -> Array:
    """Blots, and flames drawn out along the nerve fibres, which run from the disc."""
    count = len(points)
    radius = rng.uniform(0.016, 0.046, count)
    flame = rng.random(count) < 0.35
    away = points - DISC
    along = away / np.maximum(np.hypot(*away.T), 1e-6)[:, None]
    shift = np.where(flame[:, None], along * rng.uniform(1.0, 1.6, (count, 1)), rng.normal(0, 0.45, (count, 2)))
    parts = points[:, None] + np.linspace(-1, 1, 5)[:, None] * (shift * radius[:, None])[:, None]
    size = np.repeat(radius * np.where(flame, 0.5, 0.75), 5)
    blots = _spots(parts.reshape(-1, 2), size, window, 0.7)
    return 0.95 * blots * np.clip(0.95 + 0.2 * ragged, 0.5, 1.2)


def _boat(place: Array, size: float, x: Array, y: Array, ragged: Array) -> Array:
    """A preretinal haemorrhage: blood that has settled under a level surface."""
    across, down = (x - np.float32(place[0])) / size, (y - np.float32(place[1])) / size
    hull = 1 - np.hypot(across, down / 0.75) + 0.08 * ragged
    return 1.3 * np.clip(hull * 6, 0, 1) * np.clip((down + 0.15) * 14, 0, 1)
