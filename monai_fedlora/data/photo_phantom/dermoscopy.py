"""Generate one dermoscopic picture: lesion, person and dermatoscope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.photo_phantom import skin
from monai_fedlora.data.photo_phantom.dermatoscopes import Dermatoscope
from monai_fedlora.data.photo_phantom.lesions import DIAGNOSES
from monai_fedlora.data.photo_phantom.optics import develop
from monai_fedlora.data.photo_phantom.outline import Habit, Outline, draw_outline
from monai_fedlora.data.photo_phantom.tissue import Layers, Palette, colour
from monai_fedlora.data.photo_phantom.view import Pose, View
from monai_fedlora.errors import ConfigError

SKIN = Palette(base=(0.92, 0.83, 0.81))
"""Colours of skin without melanin and blood, and of what covers it."""

_DARK = np.array([0.035, 0.03, 0.04], np.float32)  # beyond a round field


@dataclass(frozen=True, slots=True, kw_only=True)
class Dermoscopy:
    """A picture with its ground truth.

    Attributes:
        pixels: (Y, X, 3) uint8.
        mask: (Y, X) bool, inside of the outline, as far as the dermatoscope shows it.
        layers: amounts of pigment, blood and covering material in lesion and skin.
        outline: the lesion's outline.
        signs: the drawn signs by name; the meaning of the number depends on the sign.
        age: years.
    """

    pixels: np.ndarray
    mask: np.ndarray
    layers: Layers
    outline: Outline
    signs: dict[str, float]
    age: int


def make_dermoscopy(
    diagnosis: str,
    camera: Dermatoscope,
    seed: int | tuple[int, ...],
    *,
    shot: int = 0,
    size: int = 120,
    habit: Habit | None = None,
) -> Dermoscopy:
    """Generate a picture of a lesion.

    Args:
        diagnosis: one of ISIC 2019's eight classes.
        camera: the dermatoscope and its patients.
        seed: seed of lesion and person; the same seed gives the same ones, bit for bit.
        shot: another number gives another picture of the same lesion: rotated, moved, with other hairs and noise.
        size: shorter side of the picture, pixels.
        habit: ranges of the outline; None for those of the diagnosis.

    Raises:
        ConfigError: unknown diagnosis, or a picture under 32 pixels.
    """
    if diagnosis not in DIAGNOSES:
        raise ConfigError(f"unknown diagnosis {diagnosis!r}; choose from {', '.join(DIAGNOSES)}")
    if size < 32:
        raise ConfigError(f"a picture of {size} pixels shows no lesion; take 32 or more")
    sequence = np.random.SeedSequence(seed)
    numbers, signs_rng = (np.random.default_rng(child) for child in sequence.spawn(2))
    place_rng, skin_rng, top_rng, sensor = (
        np.random.default_rng(child)
        for child in np.random.SeedSequence(sequence.entropy, spawn_key=(2 + shot,)).spawn(4)
    )
    kind = DIAGNOSES[diagnosis]
    habit = habit or kind.habit
    person = skin.draw_person(camera, numbers)
    age = int(np.clip(numbers.normal(kind.age, 13), 5, 90))
    outline = draw_outline(habit, numbers)
    low, high = habit.size
    radius = low + (high - low) * numbers.beta(1.3, 1.7)

    shape = (size, round(size * camera.aspect))
    layers = Layers.empty(shape)
    skin.draw_skin(layers, person, skin_rng)
    pose = _pose(radius * camera.magnification, shape, place_rng)
    view = View.of(layers, outline, pose, signs_rng)
    signs = kind.draw(view, signs_rng)
    picture = colour(layers, SKIN)
    skin.draw_on_top(picture, camera, person, top_rng)
    light, field = skin.field_of_view(shape, camera, top_rng)
    picture *= field
    picture += (1 - field) * _DARK[:, None, None]
    pixels = develop(picture, light, camera.optics, sensor)
    mask = np.zeros(shape, bool)
    rows, columns = view.inside.shape
    left, top = view.corner
    mask[top : top + rows, left : left + columns] = view.inside > 0
    return Dermoscopy(pixels=pixels, mask=mask & (field > 0.5), layers=layers, outline=outline, signs=signs, age=age)


def _pose(size: float, shape: tuple[int, int], rng: np.random.Generator) -> Pose:
    """Place a lesion near the middle of a picture."""
    height, width = shape
    half = min(shape) / 2
    offset = np.clip(rng.normal(0, 0.11, 2), -0.3, 0.3) * half
    return Pose(
        centre=((width - 1) / 2 + float(offset[0]), (height - 1) / 2 + float(offset[1])),
        radius=size * half * float(np.exp(rng.normal(0, 0.07))),
        turn=float(rng.uniform(0, 2 * np.pi)),
        size=size,
    )
