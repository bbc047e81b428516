"""What scanners and exports do to a picture beyond :mod:`monai_fedlora.data.phantom.acquisition`."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import uniform_filter1d

from monai_fedlora.data.phantom.canvas import Array, smooth
from monai_fedlora.data.phantom.free_scanner import Export


def shading(shape: tuple[int, int, int], export: Export, rng: np.random.Generator) -> Array:
    """Gain (Z, Y, X) float32 of a smooth field and of dark bands."""
    slices, height, width = shape
    cells = (1 + slices // 6, 3, 3)
    gain = np.exp(np.float32(export.bias) * smooth(rng, shape, cells))
    if export.band:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        angle, slope, bend, phase = (rng.uniform(low, 1) for low in (-1, 0.2, -1, -1))
        along = x * math.cos(math.pi * angle) + y * math.sin(math.pi * angle)
        turns = np.float32(math.pi) * (2.5 * slope * along + 1.5 * bend * along * along + phase)
        gain *= 1 - np.float32(export.band) * np.exp(-((np.cos(turns) / np.float32(0.18)) ** 2))
    return np.asarray(gain)


def exported(levels: Array, export: Export) -> Array:
    """Sharpen, window and store grey levels.

    Args:
        levels: (..., Y, X) float32, not negative.
        export: what is done.

    Returns:
        float32 of the same shape, whole numbers.
    """
    if export.sharpen:
        blurred = uniform_filter1d(uniform_filter1d(levels, 3, -1), 3, -2)
        levels = np.maximum(levels + np.float32(export.sharpen) * (levels - blurred), 0)
    low, high = export.window
    sample = levels[..., ::3, ::3]
    floor = float(np.percentile(sample, low)) if low else 0.0
    top = float(np.percentile(sample, high)) if high < 100 else float(levels.max())
    if export.contrast and top > floor:
        part = np.clip((levels - np.float32(floor)) / np.float32(top - floor), 0, 1)
        curve = np.float32(export.contrast)
        edge = 1 / (1 + math.exp(export.contrast / 2))
        part = (1 / (1 + np.exp(curve * (np.float32(0.5) - part))) - np.float32(edge)) / np.float32(1 - 2 * edge)
        levels = part * np.float32(top - floor) + np.float32(floor)
    elif low or high < 100:
        levels = np.clip(levels, np.float32(floor), np.float32(top))
    if export.eight_bit and top > floor:
        levels = (levels - np.float32(floor)) * np.float32(255 / (top - floor))
    return np.rint(levels).astype(np.float32)
