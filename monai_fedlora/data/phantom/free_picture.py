"""What scanners and exports do to a picture beyond :mod:`monai_fedlora.data.phantom.acquisition`."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft
from scipy.ndimage import uniform_filter1d

from monai_fedlora.data.phantom.canvas import Array, blend, edge, smooth
from monai_fedlora.data.phantom.free_scanner import Export
from monai_fedlora.data.phantom.vendors import Vendor

_FIELDS = 4


def add_tissue(signal: Array, blood: float, pixel: float, rng: np.random.Generator) -> None:
    """Lay tissues of any signal around the heart, in place, so that it need not lie in dark lung.

    Args:
        signal: (Z, Y, X) float32 without the heart.
        blood: signal of blood, from a little to more than which theirs is drawn.
        pixel: mm.
        rng: source of their number, places and signals.
    """
    slices, height, width = signal.shape
    for _ in range(int(rng.integers(0, 4))):
        patch = rng.uniform(25, 70) / pixel
        cells = (1 + slices // 4, int(height / patch) + 2, int(width / patch) + 2)
        field = smooth(rng, signal.shape, cells) - np.float32(rng.uniform(0.3, 1.3))
        blend(signal, np.float32(blood * rng.uniform(0.05, 1.3)), edge(field, rng.uniform(0.1, 0.6)))


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


def scan(signal: Array, vendor: Vendor, export: Export, rng: np.random.Generator) -> Array:
    """Magnitude of a picture of which a part of k-space was measured, with noise.

    As ``acquisition.acquire``, with fewer measured columns than rows and in less time: noise is drawn once for a few
    pictures, which hold it shifted by a random number of rows and columns; it repeats at the border as k-space does.

    Args:
        signal: (..., Y, X) float32.
        vendor: ``acquired``, ``apodisation`` and ``noise`` are used.
        export: ``phases`` is used.
        rng: source of the noise.

    Returns:
        (..., Y, X) float32, not negative.
    """
    height, width = signal.shape[-2:]
    frequencies = np.abs(fft.fftfreq(height)) * 2, fft.rfftfreq(width) * 2
    lasts = vendor.acquired, vendor.acquired * export.phases
    windows = []
    for frequency, last in zip(frequencies, lasts, strict=True):
        fall = 0.5 - 0.5 * np.cos(np.pi * np.clip(frequency / last, 0, 1))
        windows.append(((1 - vendor.apodisation * fall) * (frequency <= last)).astype(np.float32))
    rows, columns = windows
    kept = int(np.count_nonzero(columns))
    window = rows[:, None] * columns[:kept]

    def filtered(pictures: Array) -> Array:
        space = fft.rfft(pictures, axis=-1)[..., :kept]
        space = fft.ifft(fft.fft(space, axis=-2, overwrite_x=True) * window, axis=-2, overwrite_x=True)
        return np.asarray(fft.irfft(space, n=width, axis=-1))

    fields = filtered(rng.standard_normal((_FIELDS, height, width), dtype=np.float32))
    fields *= np.float32(vendor.noise) / fields.std()
    fields = np.tile(fields, (1, 2, 2))
    magnitude = np.empty_like(signal)
    for index in np.ndindex(signal.shape[:-2]):
        real = filtered(signal[index])
        noise = []
        for _ in range(2):
            field, y, x = (int(rng.integers(size)) for size in (_FIELDS, height, width))
            noise.append(fields[field, y : y + height, x : x + width])
        real += noise[0]
        np.hypot(real, noise[1], out=magnitude[index])
    return magnitude


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
