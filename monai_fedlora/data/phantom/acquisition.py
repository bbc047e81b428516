"""Simulate a scanner: from tissue signal to stored pixels by coil, k-space, noise, magnitude and gamma curve."""

from __future__ import annotations

import math

import numpy as np
from scipy import fft

from monai_fedlora.data.phantom.vendors import Vendor

Array = np.ndarray


def field_of_view(height: int, width: int) -> Array:
    """Window (Y, X) that fades out the outermost pixels, so that the periodic picture has no jump at its border."""
    fades = [np.minimum(1, (np.minimum(np.arange(n), np.arange(n)[::-1]) + 0.5) / 4) for n in (height, width)]
    return np.outer(*fades).astype(np.float32)


def coil_sensitivity(surface: Array, heart: float, vendor: Vendor) -> Array:
    """Sensitivity of a coil on the chest, 1 at the heart.

    Args:
        surface: distance to the skin, mm, positive inside the body.
        heart: the heart's distance to the skin, mm.
        vendor: ``coil_gain`` and ``coil_length`` are used.
    """
    falloff = 1 + vendor.coil_gain * np.exp(-np.clip(surface, -20, None) / vendor.coil_length)
    return falloff / (1 + vendor.coil_gain * math.exp(-heart / vendor.coil_length))


def acquire(signal: Array, vendor: Vendor, rng: np.random.Generator) -> Array:
    """Sample k-space in part, add complex noise and return the magnitude image.

    The magnitude of complex Gaussian noise is Rician (Gudbjartsson and Patz, MRM 1995). Cutting k-space gives
    Gibbs ringing; the taper trades it for blur. The noise passes through the same window.

    Args:
        signal: (..., Y, X) float32.
        vendor: ``acquired``, ``apodisation`` and ``noise`` are used.
        rng: source of the noise.

    Returns:
        (..., Y, X) float32, not negative.
    """
    height, width = signal.shape[-2:]
    rows = np.abs(fft.fftfreq(height)) * 2
    columns = fft.rfftfreq(width) * 2
    kept = np.flatnonzero(rows <= vendor.acquired)
    width_kept = int(np.count_nonzero(columns <= vendor.acquired))
    window = _taper(rows[kept], vendor)[:, None] * _taper(columns[:width_kept], vendor)
    passed = 2 * np.sum(window**2) - np.sum(window[:, 0] ** 2)  # from the half plane to the whole one
    deviation = np.float32(vendor.noise / np.sqrt(2 * passed / (height * width)))
    full = np.zeros((height, len(columns)), np.complex64)
    magnitude = np.empty_like(signal)

    def image(low_frequencies: Array) -> Array:
        draw = rng.standard_normal((*window.shape, 2), dtype=np.float32)
        draw *= deviation
        low_frequencies = low_frequencies + draw.view(np.complex64)[..., 0]
        full[kept, :width_kept] = low_frequencies * window
        return fft.irfft2(full, s=(height, width), norm="ortho")

    for index in np.ndindex(signal.shape[:-2]):
        real = image(fft.rfft2(signal[index], norm="ortho")[kept, :width_kept])
        np.hypot(real, image(np.complex64(0)), out=magnitude[index])
    return magnitude


def _taper(frequency: Array, vendor: Vendor) -> Array:
    """Raised-cosine weight that falls to ``1 - apodisation`` at the edge of the acquired part."""
    fall = 0.5 - 0.5 * np.cos(np.pi * np.clip(frequency / vendor.acquired, 0, 1))
    return (1 - vendor.apodisation * fall).astype(np.float32)


def store(magnitude: Array, vendor: Vendor) -> Array:
    """Apply the gamma curve, the intensity scale and the field of view.

    Args:
        magnitude: (..., Y, X), not negative.
        vendor: ``gamma``, ``scale`` and ``circular`` are used.

    Returns:
        int16 of the same shape.
    """
    pixels = magnitude if vendor.gamma == 1 else np.power(magnitude, np.float32(vendor.gamma))
    pixels = np.rint(pixels * np.float32(vendor.scale))
    if vendor.circular:
        height, width = pixels.shape[-2:]
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        pixels *= x * x + y * y <= 1
    return np.clip(pixels, 0, 32767).astype(np.int16)


def orient(pixels: Array, vendor: Vendor) -> Array:
    """Rotate and flip (..., Y, X) arrays as the vendor stores them."""
    pixels = np.rot90(pixels, vendor.quarter_turns, axes=(-2, -1))
    return np.ascontiguousarray(pixels[..., ::-1] if vendor.mirrored else pixels)
