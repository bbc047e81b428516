"""Draw the skin around a lesion, and hairs, gel bubbles, glare and ruler marks on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom.canvas import Array, blend, smooth
from monai_fedlora.data.photo_phantom import strokes
from monai_fedlora.data.photo_phantom.dermatoscopes import Dermatoscope
from monai_fedlora.data.photo_phantom.texture import coarse, noise, stretch
from monai_fedlora.data.photo_phantom.tissue import Layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Skin and hair of a person.

    Attributes:
        tone: amount of melanin.
        redness: amount of blood.
        damage: strength of freckles and fine red veins, 0..1.
        hair, stubble: mean number of long and of shaved hairs in a picture.
        hair_colour: red, green and blue, 0..1.
    """

    tone: float
    redness: float
    damage: float
    hair: float
    stubble: float
    hair_colour: tuple[float, float, float]


def draw_person(camera: Dermatoscope, rng: np.random.Generator) -> Person:
    """Draw one of the people seen with a camera."""
    tone = float(np.clip(camera.tone * np.exp(rng.normal(0, camera.tones)), 0.02, 1.3))
    shade = float(rng.uniform(0.06, 0.3)) if tone < 0.5 else 0.05
    return Person(
        tone=tone,
        redness=float(np.clip(camera.redness * rng.gamma(6, 1 / 6), 0.03, 0.5)),
        damage=float(np.clip(camera.damage * rng.gamma(2, 1 / 2), 0, 1.3)) / (1 + 2 * tone),
        hair=camera.hair * float(rng.gamma(0.35, 1 / 0.35)),
        stubble=camera.stubble * float(rng.gamma(0.4, 1 / 0.4)),
        hair_colour=(shade * 1.15, shade * 0.9, shade * 0.75),
    )


def draw_skin(layers: Layers, person: Person, rng: np.random.Generator) -> None:
    """Draw skin: its tone, mottling, furrows, freckles and fine veins."""
    shape = layers.melanin.shape
    half = min(shape) / 2
    rows, columns = (max(2, round(side / half * 1.5)) for side in shape)
    coarse, ruddy = (smooth(rng, shape, (rows, columns)) for _ in range(2))
    middle = smooth(rng, shape, (rows * 4, columns * 4))
    lines = _furrows(shape, rng)
    damage = person.damage
    freckles = np.clip(middle + 0.4 * coarse - 1.4, 0, 1) + 0.25 * np.clip(coarse - 0.2, 0, 1)
    layers.add(
        melanin=person.tone * (1 + 0.10 * coarse + 0.03 * middle) + 0.35 * damage * freckles,
        blood=person.redness * (1 + 0.18 * ruddy + 0.08 * middle),
    )
    layers.add(
        melanin=lines * (0.008 + 0.03 * person.tone),
        blood=0.07 * damage * np.clip(ruddy + 0.5 * middle - 0.2, 0, 2),
    )
    veins = int(rng.poisson(3.5 * damage))
    nodes = strokes.wander(
        rng,
        start=rng.uniform(0, 1, (veins, 2)) * shape[::-1],
        heading=rng.uniform(0, 2 * np.pi, veins),
        length=rng.uniform(0.4, 1.2, veins) * half,
        nodes=12,
        curl=1.4,
    )
    thread = strokes.lines(shape, nodes, half * rng.uniform(0.005, 0.010, (veins, 1)), 0.3)
    layers.add(blood=np.minimum(thread, 0.6))


def _furrows(shape: tuple[int, int], rng: np.random.Generator) -> Array:
    """Return the fine criss-cross relief of skin, of unit standard deviation: noise stretched along two directions."""
    half = np.float32(min(shape) / 2)
    y, x = (coarse(side, 2) / half for side in shape)
    turn = rng.uniform(0, np.pi)
    relief = np.zeros((len(y), len(x)), np.float32)
    for angle in (turn, turn + rng.uniform(0.9, 1.6)):
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        along, across = cos * x + sin * y[:, None], cos * y[:, None] - sin * x
        relief += noise(rng, along * np.float32(5), across * np.float32(17), 1)
    return stretch(shape[0], 2) @ relief @ stretch(shape[1], 2).T * np.float32(math.sqrt(0.5))


def draw_on_top(picture: Array, camera: Dermatoscope, person: Person, rng: np.random.Generator) -> None:
    """Draw glare, hairs, bubbles and ruler marks into the colours (3, Y, X), in place."""
    shape = picture.shape[1:]
    half = min(shape) / 2
    if camera.glare:
        _glare(picture, camera.glare * rng.uniform(0.3, 1.4), half, rng)
    _hairs(picture, person, half, rng)
    for _ in range(int(rng.poisson(camera.bubbles))):
        _bubble(picture, half, rng)
    if rng.random() < camera.ruler:
        _ruler(picture, half, rng)


def field_of_view(shape: tuple[int, int], camera: Dermatoscope, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return the light (Y, X), 1 being full, and the share 0..1 of every pixel that sees skin."""
    height, width = shape
    half = min(shape) / 2
    shift = rng.normal(0, 0.03, 2) * half
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2 + shift[0])) / np.float32(half)
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2 + shift[1]))[:, None] / np.float32(half)
    square = x * x + y * y
    lean = rng.normal(0, 0.035, 2).astype(np.float32)
    corner = np.float32(1 + (width / height) ** 2) if camera.rim == 0 else np.float32(camera.rim**2)
    light = 1 + lean[0] * x + lean[1] * y - np.float32(camera.shade * rng.uniform(0.6, 1.3)) * (square / corner) ** 2
    if camera.rim == 0:
        return light, np.ones(shape, np.float32)
    edge = np.float32(camera.rim * rng.uniform(0.95, 1.08))
    return light, np.clip((edge - np.sqrt(square)) * np.float32(0.16 * half) + np.float32(0.5), 0, 1)


def _hairs(picture: Array, person: Person, half: float, rng: np.random.Generator) -> None:
    """Draw long hairs of similar direction, and shaved ones."""
    shape = picture.shape[1:]
    size = np.array(shape[::-1])
    long, short = int(rng.poisson(min(person.hair, 18))), int(rng.poisson(min(person.stubble, 40)))
    comb = rng.uniform(0, 2 * np.pi)
    if long:
        spread = rng.uniform(0.25, 1.2)
        nodes = strokes.wander(
            rng,
            start=rng.uniform(-0.1, 1.1, (long, 2)) * size,
            heading=comb + rng.normal(0, spread, long),
            length=rng.uniform(0.7, 2.6, long) * half,
            nodes=16,
            curl=rng.uniform(0.4, 1.3),
        )
        thick = half * rng.uniform(0.004, 0.010, (long, 1)) * np.linspace(1, 0.5, 16)
        _cover(picture, strokes.lines(shape, nodes, thick, 1.25), person.hair_colour)
    nodes = strokes.wander(
        rng,
        start=rng.uniform(0, 1, (short, 2)) * size,
        heading=comb + rng.normal(0, 0.35, short),
        length=rng.uniform(0.06, 0.18, short) * half,
        nodes=3,
        curl=0.2,
    )
    _cover(picture, strokes.lines(shape, nodes, half * rng.uniform(0.006, 0.011, (short, 1)), 1.1), (0.1, 0.09, 0.1))


def _cover(picture: Array, share: Array, tint: tuple[float, float, float]) -> None:
    share = np.minimum(share, 0.92)
    for plane, value in zip(picture, tint, strict=True):
        blend(plane, value, share)


def _glare(picture: Array, strength: float, half: float, rng: np.random.Generator) -> None:
    """Draw specks and short streaks of reflected light."""
    shape = picture.shape[1:]
    count = int(rng.poisson(45 * strength))
    if not count:
        return
    centre = rng.uniform(0.25, 0.75, 2) * shape[::-1]
    nodes = strokes.wander(
        rng,
        start=centre + rng.normal(0, 0.5 * half, (count, 2)),
        heading=rng.uniform(0, 2 * np.pi, count),
        length=rng.uniform(0.02, 0.10, count) * half,
        nodes=3,
        curl=1.5,
    )
    specks = strokes.lines(shape, nodes, half * 0.007, rng.uniform(0.2, 1.0, (count, 1)))
    _cover(picture, 0.8 * specks, (1.0, 0.98, 0.98))


def _bubble(picture: Array, half: float, rng: np.random.Generator) -> None:
    """A gel bubble: a bright crooked rim with a dark line inside it."""
    radius = half * rng.uniform(0.05, 0.26)
    centre = rng.uniform(0, 1, 2) * picture.shape[:0:-1]
    around = np.linspace(0, 2 * np.pi, 25)
    crook = np.ones(25)
    for waves in (2, 3, 4):
        crook += rng.normal(0, 0.10) * np.cos(waves * around + rng.uniform(0, 2 * np.pi))
    ring = np.stack([np.cos(around), np.sin(around)], -1) * (radius * crook)[:, None]
    gleam = np.clip(0.65 + 0.45 * np.cos(around - rng.uniform(0, 2 * np.pi)), 0.1, 1)
    shape = picture.shape[1:]
    nodes = np.stack([centre + ring, centre + 0.88 * ring])
    _cover(picture, 0.3 * strokes.lines(shape, nodes[1:], half * 0.012, gleam), (0.25, 0.2, 0.22))
    _cover(picture, 0.75 * strokes.lines(shape, nodes[:1], half * 0.006, gleam), (1.0, 0.98, 1.0))


def _ruler(picture: Array, half: float, rng: np.random.Generator) -> None:
    """The black marks of a round scale that shows in a corner."""
    shape = picture.shape[1:]
    corner = math.atan2(shape[0] * rng.choice((-1, 1)), shape[1] * rng.choice((-1, 1)))
    angles = corner + np.arange(-12, 13) * 0.09 + rng.uniform(-0.04, 0.04)
    inner = math.hypot(*shape) / 2 / half * rng.uniform(0.86, 0.96)
    reach = np.stack([np.full(25, inner), inner + 0.10 + 0.05 * (np.arange(25) % 2)], 1)
    nodes = np.stack([reach * np.cos(angles[:, None]), reach * np.sin(angles[:, None])], -1) * half
    nodes += np.array(shape[::-1]) / 2
    _cover(picture, strokes.lines(shape, nodes, half * 0.009, 1.3), (0.06, 0.06, 0.08))
