"""Generate one phantom patient: heart, body and scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monai_fedlora.data.phantom import acquisition, anatomy, body, render
from monai_fedlora.data.phantom.canvas import Grid
from monai_fedlora.data.phantom.geometry import draw_directions
from monai_fedlora.data.phantom.pathology import Heart, draw_heart
from monai_fedlora.data.phantom.vendors import Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomPatient:
    """A cine stack with its ground truth.

    Attributes:
        image: (T, Z, Y, X) int16.
        mask: (T, Z, Y, X) uint8 of ``render.LV``, ``render.MYO``, ``render.RV``.
        spacing: (x, y, z) mm.
        ed_frame, es_frame: 0-based.
        heart: sizes and function of the heart.
        directions: (3, 3) directions of the picture's axes in the patient, see
            :mod:`monai_fedlora.data.phantom.geometry`.
        vendor: letter of the vendor.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, float, float]
    ed_frame: int
    es_frame: int
    heart: Heart
    directions: np.ndarray
    vendor: str


def make_patient(group: str, vendor: Vendor, seed: int | tuple[int, ...], *, frames: int = 2) -> PhantomPatient:
    """Generate a patient of a group on a vendor's scanner.

    Args:
        group: one of ACDC's groups.
        vendor: the scanner and its patients.
        seed: the same seed gives the same patient, bit for bit.
        frames: 2 for end diastole and end systole, more for a whole beat that starts at end diastole.

    Raises:
        ConfigError: unknown group.
    """
    streams = Streams.of(seed)
    heart = draw_heart(group, vendor, streams.numbers)
    z = _slices(heart, vendor, streams.numbers)
    form = anatomy.draw_form(heart, streams.shape)
    cut = anatomy.surfaces(heart, z, anatomy.contraction(frames), vendor.slice_distance, form)
    signal, mask = _draw(heart, cut, z, vendor, streams)
    image = acquisition.store(acquisition.acquire(signal, vendor, streams.noise), vendor)
    return PhantomPatient(
        image=acquisition.orient(image, vendor),
        mask=acquisition.orient(mask, vendor),
        spacing=(vendor.pixel, vendor.pixel, vendor.slice_distance),
        ed_frame=0,
        es_frame=anatomy.systolic_frame(frames),
        heart=heart,
        directions=draw_directions(streams.lying),
        vendor=vendor.code,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """Sources of random numbers, one for each part of a patient, so that a change of one part leaves the others."""

    numbers: np.random.Generator
    shape: np.random.Generator
    body: np.random.Generator
    texture: np.random.Generator
    noise: np.random.Generator
    lying: np.random.Generator

    @classmethod
    def of(cls, seed: int | Sequence[int]) -> Streams:
        """Independent sources that follow from a seed."""
        numbers, shape, body_, texture, noise, lying = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(6)
        )
        return cls(numbers=numbers, shape=shape, body=body_, texture=texture, noise=noise, lying=lying)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a heart is drawn.

    Attributes:
        signal: (Z, Y, X) float32 signal of all but the heart.
        gain: (Z, Y, X) float32, how strongly the coil receives each voxel.
        x, y: picture coordinates in mm of columns and rows.
        box: rows and columns that hold the heart.
        centres: (Z, 2) picture coordinates (x, y) of the heart in each slice, mm.
        turn: rotation of the heart in the picture, radians.
        details: its small features.
    """

    signal: np.ndarray
    gain: np.ndarray
    x: np.ndarray
    y: np.ndarray
    box: tuple[slice, slice]
    centres: np.ndarray
    turn: float
    details: render.Details


def set_stage(
    heart: Heart,
    cut: anatomy.Surfaces,
    z: np.ndarray,
    vendor: Vendor,
    shape_rng: np.random.Generator,
    body_rng: np.random.Generator,
    *,
    roll: float = 0.0,
    unsteady: float = 1.2,
    coarse: float = 2.5,
) -> Stage:
    """Lay a heart into a body and the body into the picture.

    Args:
        heart: sizes and function.
        cut: its surfaces on T frames and Z slices.
        z: (Z,) slice centres in mm below the valve plane.
        vendor: the scanner.
        shape_rng, body_rng: sources of random numbers, for the heart and for its surroundings.
        roll: rotation of body and heart in the picture, radians.
        unsteady: standard deviation of the heart's place between breath-holds, mm.
        coarse: distance of the points at which the surroundings are drawn, mm.
    """
    body_mass_index = heart.weight / (heart.height / 100) ** 2
    details = render.draw_details(len(z), body_mass_index, shape_rng)

    length = anatomy.heart_length(heart)
    depth = z / length
    view = math.radians(vendor.view + shape_rng.normal(0, 9))
    turn = 0.35 * view + shape_rng.normal(-0.05, 0.15)
    lean = np.array([-0.24, 0.11]) + shape_rng.normal(0, 0.03, 2)
    if roll:
        view, turn = view + roll, turn - roll
        lean = np.array([[math.cos(roll), math.sin(roll)], [-math.sin(roll), math.cos(roll)]]) @ lean
    centres = (z[:, None] - length / 2) * lean + shape_rng.normal(0, unsteady, (len(z), 2))  # breath-holds differ

    front_axis = np.array([-math.cos(view), -math.sin(view)])
    up_axis = np.array([math.sin(view), -math.cos(view)])
    ring = (render.outline(cut)[0] + details.fat)[..., None] * np.stack(
        [-np.cos(anatomy.ANGLES + turn), np.sin(anatomy.ANGLES + turn)], -1
    ) + centres[:, None]
    alive = cut.epi[0].max(1) > 0
    front_reach, down_reach = (ring[alive] @ front_axis).max(), (ring[alive] @ -up_axis).max()
    chest = body.draw_body(down_reach, front_reach, body_mass_index, body_rng)

    width, height = vendor.matrix
    middle = shape_rng.normal(0, 8, 2) - 22 * front_axis - 5 * up_axis
    x = (np.arange(width) - (width - 1) / 2) * vendor.pixel + middle[0]
    y = (np.arange(height) - (height - 1) / 2) * vendor.pixel + middle[1]
    coarse_x, up_x = _coarse(x, coarse)
    coarse_y, up_y = _coarse(y, coarse)
    grid = Grid.of(coarse_x, coarse_y, np.stack([front_axis, up_axis]))
    signal, surface = body.draw_surroundings(grid, depth, chest, vendor, body_rng)
    coil = acquisition.coil_sensitivity(surface, chest.chest + chest.muscle + chest.fat, vendor)
    window = acquisition.field_of_view(height, width)
    signal, coil = (up_y @ part.astype(np.float32) @ up_x.T for part in (signal, coil))
    half = float(np.abs(ring[alive]).max()) + 6
    box = (slice(*np.searchsorted(y, (-half, half))), slice(*np.searchsorted(x, (-half, half))))
    return Stage(signal=signal, gain=coil * window, x=x, y=y, box=box, centres=centres, turn=turn, details=details)


def _draw(
    heart: Heart, cut: anatomy.Surfaces, z: np.ndarray, vendor: Vendor, streams: Streams
) -> tuple[np.ndarray, np.ndarray]:
    """(T, Z, Y, X) float32 signal as the coil receives it, and uint8 labels."""
    stage = set_stage(heart, cut, z, vendor, streams.shape, streams.body)
    rows, columns = stage.box
    across = stage.x[None, None, columns] - stage.centres[:, 0, None, None] + 0 * stage.y[None, rows, None]
    down = stage.y[None, rows, None] - stage.centres[:, 1, None, None] + 0 * stage.x[None, None, columns]
    drawn, labels = render.draw_heart_slices(
        stage.signal[:, rows, columns],
        across.astype(np.float32),
        down.astype(np.float32),
        cut,
        stage.details,
        stage.turn,
        vendor,
        streams.texture,
    )
    signal = np.repeat(stage.signal[None], len(drawn), 0)
    signal[:, :, rows, columns] = drawn
    mask = np.zeros(signal.shape, np.uint8)
    mask[:, :, rows, columns] = labels
    return signal * stage.gain, mask


def _slices(heart: Heart, vendor: Vendor, rng: np.random.Generator) -> np.ndarray:
    """Slice centres in mm below the valve plane; the stack starts at most one slice above it."""
    count = int(rng.integers(vendor.slices[0], vendor.slices[1] + 1))
    needed = anatomy.heart_length(heart) / vendor.slice_distance
    spare = count - needed
    above = 1 if spare > 1.5 and rng.random() < 0.5 else 0
    return (np.arange(count) - above + 0.5 + rng.uniform(-0.2, 0.2)) * vendor.slice_distance


def _coarse(axis: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A coarser grid that covers ``axis``, and the matrix that interpolates linearly from it."""
    count = int(np.ceil((axis[-1] - axis[0]) / step)) + 1
    coarse = axis[0] + np.arange(count + 1) * step
    place = (axis - coarse[0]) / step
    low = np.minimum(place.astype(int), count - 1)
    matrix = np.zeros((len(axis), count + 1), np.float32)
    rows = np.arange(len(axis))
    matrix[rows, low] = 1 - (place - low)
    matrix[rows, low + 1] = place - low
    return coarse, matrix
