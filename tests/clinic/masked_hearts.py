"""Masks of the made-up hearts of `tests.clinic.cine_studies`."""

from __future__ import annotations

import numpy as np

from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.sr_parts import Algorithm

ALGORITHM = Algorithm(name="hearts", version="0.3.1", sha256="5a" * 32, origin="trained on synthetic images (phantoms)")


def by_grey_level(levels: np.ndarray) -> np.ndarray:
    """1 where it is bright (blood), 2 where it is dark (muscle), 3 at the mark in the corner, of any order of axes."""
    return np.select([levels > 365, levels < 105, (levels > 290) & (levels <= 365)], [1, 2, 3], 0).astype(np.uint8)


def grey_masks(loaded: LoadedStudy) -> np.ndarray:
    """(T, X, Y, Z) of :func:`by_grey_level`, so that every pixel of a stored image says what its mask must be."""
    assert loaded.cine is not None
    return np.moveaxis(by_grey_level(loaded.cine), 3, 0)


def small_heart(loaded: LoadedStudy) -> np.ndarray:
    """(T, X, Y, Z) of a heart that the stack covers: rings that contract as the made-up heart does."""
    assert loaded.cine is not None
    width, height, slices, frames = loaded.cine.shape
    x, y = np.meshgrid(np.arange(width) - 20.0, np.arange(height) - 20.0, indexing="ij")
    beat = 0.5 - 0.5 * np.cos(2 * np.pi * np.clip(np.arange(frames) / 8, 0, 1))
    masks = np.zeros((frames, width, height, slices), np.uint8)
    for frame in range(frames):
        for place in range(slices - 1):
            size = (5.0 - 0.4 * place) * (1 - 0.4 * beat[frame])
            plane = masks[frame, ..., place]
            plane[np.hypot(x + 9, y) < 4 - beat[frame]] = 3
            plane[np.hypot(x, y) < size + 2] = 2
            plane[np.hypot(x, y) < size] = 1
    return masks
