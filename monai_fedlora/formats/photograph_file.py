"""Read a photograph (JPEG, PNG or TIFF) as RGB, or say why it cannot be used.

An exported bundle reads the same files with Pillow alone and gets the same values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.errors import DataError
from monai_fedlora.formats.jpeg_data import MAXIMUM_SCANS, TooManyScans, check_scans, missing_data
from monai_fedlora.formats.png_data import is_incomplete
from monai_fedlora.out_of_memory import tell_out_of_memory

FORMATS = ("JPEG", "PNG", "TIFF")
SUFFIXES = (".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
"""Pillow's modes of grey files with more than 8 bits; it reads colour files of 16 bits at 8."""
EIGHT_BIT = ("1", "CMYK", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "YCbCr")
MINIMUM_SIDE = 32
MAXIMUM_PIXELS = 1 << 26
_JPEG = ("JPEG", "MPO")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def read_photograph(path: str | Path) -> np.ndarray:
    """Read a JPEG, PNG or TIFF file.

    The EXIF orientation is applied. Grey, palette, YCbCr and CMYK files become RGB; embedded colour profiles are not
    applied. Transparent pixels become black, like the surround of a dermatoscope's or fundus camera's field of view and
    like padding; black has no weight in `shades_of_grey`. Levels are divided by the largest one that the file's bits
    per sample allow, never by the brightest pixel.

    Args:
        path: the file; its format is recognised by its content, not its name.

    Returns:
        (3, H, W) float32 red, green and blue in [0, 1].

    Raises:
        DataError: the file is missing, damaged, incomplete, blank, of another format or number type, of several pages,
            smaller than 32 pixels (ours) on a side or larger than 2**26 pixels (ours); the message names it.
    """
    from PIL import ImageOps

    path = Path(path)
    with opened(path, damage="cannot be read to its end", advice="export the photograph again") as image:
        white = 2.0 ** _bits(image) - 1.0
        if image.format in _JPEG:
            check_scans(path.read_bytes())
        image.load()
        if image.format in _JPEG and (missing := missing_data(path.read_bytes(), image)):
            raise DataError(f"{path} is incomplete: {missing}; copy it again from the source")
        if image.format == "PNG" and is_incomplete(path.read_bytes(), image):
            raise DataError(f"{path} is incomplete: its last rows are missing; copy it again from the source")
        ImageOps.exif_transpose(image, in_place=True)
        levels = _levels(image, white)
    if (levels == levels[0, 0]).all():
        raise DataError(f"{path} is blank: all its pixels are equal; export the photograph again")
    return np.ascontiguousarray(np.moveaxis(levels, -1, 0))


@contextmanager
def opened(path: Path, *, damage: str, advice: str) -> Iterator[Any]:
    """Open a photograph with Pillow and check its header; its pixels are not decoded.

    Args:
        path: the file.
        damage: what is wrong if anything fails inside the block, for the message.
        advice: what to do with a file of another format, for the message.

    Yields:
        Pillow's image.

    Raises:
        DataError: the file is missing or of another format, :func:`check_header` refuses it, or something fails inside
            the block; the message names the file.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    try:
        with Image.open(path, formats=FORMATS) as image:
            check_header(image, path)
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large: {error}") from error
    except TooManyScans as error:
        raise DataError(
            f"{path} has more than {MAXIMUM_SCANS} scans, which no camera writes and which take very long to decode; "
            "export the photograph again"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not a JPEG, PNG or TIFF file that can be read; {advice}") from error
    except Exception as error:  # Pillow reports damage by many kinds of errors
        tell_out_of_memory(error, f"reading {path}")
        raise DataError(f"{path} {damage} ({error}); copy it again from the source") from error


def check_header(image: Any, path: Path) -> None:
    """Refuse a photograph that its header shows to be unusable.

    Raises:
        DataError: its size, type of pixels or number of pages; the message names it.
    """
    width, height = image.size
    if width * height > MAXIMUM_PIXELS:
        raise DataError(
            f"{path} has {width} x {height} pixels, more than the {MAXIMUM_PIXELS} a photograph may have; scale it down"
        )
    if min(width, height) < MINIMUM_SIDE:
        raise DataError(
            f"{path} has {width} x {height} pixels, and a photograph at least {MINIMUM_SIDE} on each side; is it a "
            "thumbnail?"
        )
    if image.mode not in EIGHT_BIT + SIXTEEN_BIT:
        raise DataError(
            f"{path} holds pixels of type {image.mode}, which have no defined white; save it as RGB or grey with 8 "
            "bits, or grey with 16 bits"
        )
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a JPEG with a preview behind it
        raise DataError(f"{path} has {image.n_frames} pages; save the photograph alone")
    if image.mode in SIXTEEN_BIT and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise DataError(f"{path} is a negative (its zero means white); invert it")


def _bits(image: Any) -> int:
    """Bits per sample of a grey file with more than 8: known for TIFF; PNG has 16."""
    return int(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0])


def _levels(image: Any, white: float) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1]."""
    if image.mode in SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.float32) / np.float32(white)
        return np.repeat(grey[..., None], 3, axis=-1)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)
    levels = np.asarray(image.convert("RGBA"), dtype=np.float32) / np.float32(255)
    return levels[..., :3] * levels[..., 3:]
