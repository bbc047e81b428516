"""Simulate a camera: from tissue colour to a stored picture by light, white balance, tone, blur, noise and file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monai_fedlora.data.phantom_mark import MARK
from monai_fedlora.measures.structures import ISIC_VALUE

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Optics:
    """Parameters of a camera.

    Attributes:
        gain: white balance, a factor for red, green and blue.
        saturation: 1 keeps the colours, 0 is grey.
        gamma: exponent of the tone curve; above 1 it darkens the middle tones.
        contrast: strength of an S-shaped tone curve, 0..1.
        exposure: standard deviation of the logarithm of a picture's brightness.
        drift: standard deviation of the logarithm of a picture's white balance.
        blur: standard deviation of the blur, in hundredths of the shorter side.
        noise: standard deviation of the sensor's noise at full brightness, 0..1.
        quality: JPEG quality.
        chroma: JPEG chroma subsampling, 0 for none and 2 for 4:2:0.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    saturation: float = 1.0
    gamma: float = 1.0
    contrast: float = 0.0
    exposure: float = 0.06
    drift: float = 0.02
    blur: float = 0.4
    noise: float = 0.012
    quality: int = 90
    chroma: int = 0


def develop(picture: Array, light: Array, optics: Optics, rng: np.random.Generator) -> Array:
    """Return the stored pixels of a picture.

    Args:
        picture: (3, Y, X) float32 colours under white light, 0..1; overwritten.
        light: (Y, X) brightness of the light, 1 being full.
        optics: the camera.
        rng: source of exposure, drift and noise.

    Returns:
        (Y, X, 3) uint8.
    """
    exposure = np.exp(rng.normal(0, optics.exposure))
    gains = exposure * np.exp(rng.normal(0, optics.drift, 3)) * np.array(optics.gain)
    picture *= light
    if optics.saturation != 1:
        grey = picture.mean(0)
        picture -= grey
        picture *= np.float32(optics.saturation)
        picture += grey
    picture *= gains.astype(np.float32)[:, None, None]
    np.clip(picture, 0, 1, out=picture)
    if optics.gamma != 1:
        np.power(picture, np.float32(optics.gamma), out=picture)
    if optics.contrast:
        picture += np.float32(optics.contrast) * (picture * picture * (3 - 2 * picture) - picture)
    height, width = picture.shape[1:]
    sigma = optics.blur * min(height, width) / 100
    picture = blur_matrix(height, sigma) @ picture @ blur_matrix(width, sigma).T
    grain = rng.standard_normal(picture.shape, dtype=np.float32)
    grain *= np.float32(optics.noise) * (np.float32(0.5) + np.float32(0.5) * picture)
    picture += grain
    picture *= 255
    return np.ascontiguousarray(np.rint(np.clip(picture, 0, 255)).astype(np.uint8).transpose(1, 2, 0))


@lru_cache(maxsize=64)
def blur_matrix(size: int, sigma: float) -> Array:
    """Return the (size, size) float32 matrix of a Gaussian blur of ``sigma`` pixels that repeats the edge."""
    reach = int(4 * sigma) + 1
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-3)) ** 2)
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(range(-reach, reach + 1), kernel / kernel.sum(), strict=True):
        np.add.at(matrix, (rows, np.clip(rows + offset, 0, size - 1)), weight)
    return matrix.astype(np.float32)


def encode(pixels: Array, optics: Optics, suffix: str) -> bytes:
    """Return the file of a picture, marked as a phantom: ``.jpg`` with the camera's quality, or ``.png``.

    Args:
        pixels: (Y, X, 3) uint8.
        optics: the camera.
        suffix: ``.jpg`` or ``.png``.
    """
    from PIL import Image

    if suffix != ".jpg":
        return _png(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=optics.quality, subsampling=optics.chroma, comment=MARK)
    return file.getvalue()


def encode_mask(mask: Array) -> bytes:
    """Return the PNG file of a mask (Y, X) bool as the ISIC archive writes one, marked as a phantom."""
    return _png(np.where(mask, ISIC_VALUE, 0).astype(np.uint8))


def _png(pixels: Array) -> bytes:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    file, text = io.BytesIO(), PngInfo()
    text.add_text("Comment", MARK.decode())
    Image.fromarray(pixels).save(file, "PNG", compress_level=1, pnginfo=text)
    return file.getvalue()
