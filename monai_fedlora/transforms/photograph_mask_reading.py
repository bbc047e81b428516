"""Read the mask of a photograph on its grid, or say why it cannot be used.

A mask is a PNG or TIFF file of one value per pixel, such as the ISIC archive's of 0 and 255. What else occurs:

- A coloured file with equal red, green and blue is read as grey. With a palette of greys the grey levels count, with
  one of colours the numbers of its entries. White is 255 in a file of one bit.
- A JPEG file is refused, because its compression changes values along every outline.
- A mask has the size of its photograph; one of another size is refused, also where only the scale differs.
- A camera may store a photograph lying on its side and say so in its EXIF orientation. A mask with an orientation of
  its own is turned by that. One that has none lies on the upright photograph if it has its size, and is turned with
  the photograph if it has the size of the stored pixels. Where both sizes are the same nobody knows, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.errors import DataError
from monai_fedlora.formats.photograph_file import SIXTEEN_BIT, opened
from monai_fedlora.formats.png_data import is_incomplete
from monai_fedlora.transforms.mask_reading import mask_labels

_ORIENTATION = 0x0112
_UPRIGHT = 1
_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
_COPY = "copy it again from the source"
_EXPORT = "export the mask as a grey PNG file with one value per structure"


def read_photograph_mask(path: str | Path, *, image: str | Path, values: Sequence[int]) -> np.ndarray:
    """Read the mask of a photograph.

    Args:
        path: the mask.
        image: the photograph, whose pixels are not read.
        values: the value in the file of each structure, 0 for one that is not outlined.

    Returns:
        (H, W) uint8 on the upright photograph's grid: 0 background, 1 to K the structures.

    Raises:
        DataError: the file is missing, damaged, a JPEG, coloured, transparent or of another size than the photograph,
            holds an unknown value or no structure, or nobody knows how it is turned; the message names it.
    """
    path, photograph = Path(path), Path(image)
    with opened(photograph, damage="cannot be read", advice="export the photograph again") as shown:
        stored, turn = shown.size, _orientation(shown)
    upright = stored[::-1] if turn in _SIDEWAYS else stored
    with opened(path, damage="cannot be read to its end", advice=_EXPORT) as mask:
        if mask.format not in ("PNG", "TIFF"):
            raise DataError(f"{path} is a JPEG file, whose compression changes values along every outline; {_EXPORT}")
        mask.load()
        if mask.format == "PNG" and is_incomplete(path.read_bytes(), mask):
            raise DataError(f"{path} is incomplete: its last rows are missing; {_COPY}")
        upright_mask = _turned(mask, turn, stored, upright, path, photograph)
        if upright_mask.size != upright:
            raise DataError(
                f"{path} has {_times(upright_mask.size)} pixels, and its photograph {photograph} has "
                f"{_times(upright)}; give the photograph that it was drawn on, or scale the mask to its size with "
                "nearest-neighbour interpolation"
            )
        found = _values(upright_mask, path)
    return mask_labels(found, values, path)


def _orientation(image: Any) -> int:
    """The EXIF orientation; upright where there is none, or one that is not defined."""
    said = image.getexif().get(_ORIENTATION, _UPRIGHT)
    return said if said in range(1, 9) else _UPRIGHT


def _turned(
    mask: Any, turn: int, stored: tuple[int, int], upright: tuple[int, int], path: Path, photograph: Path
) -> Any:
    """The mask as it lies on the upright photograph, whose EXIF orientation is ``turn``."""
    from PIL import ImageOps

    if _ORIENTATION in mask.getexif():
        return ImageOps.exif_transpose(mask)
    if turn == _UPRIGHT or mask.size not in (stored, upright):
        return mask
    if stored == upright:
        raise DataError(
            f"{photograph} is stored turned or mirrored (EXIF orientation {turn}), and nothing says whether its mask "
            f"{path} is too; save both upright, without an orientation"
        )
    if mask.size == upright:
        return mask
    mask.getexif()[_ORIENTATION] = turn
    return ImageOps.exif_transpose(mask)


def _values(mask: Any, path: Path) -> np.ndarray:
    """(H, W) whole numbers, see the rules above."""
    if mask.has_transparency_data:
        alpha = np.asarray(mask.convert("RGBA"))[..., 3]
        if (alpha != 255).any():
            raise DataError(f"{path} is transparent in places, and what it means there is not known; {_EXPORT}")
    if mask.mode == "P":
        colours = np.asarray(mask.convert("RGB"))
        return colours[..., 0] if _is_grey(colours) else np.asarray(mask)
    if mask.mode == "1":
        return np.asarray(mask.convert("L"))
    if mask.mode == "L" or mask.mode in SIXTEEN_BIT:
        return np.asarray(mask)
    colours = np.asarray(mask.convert("RGB"))
    if mask.mode in ("CMYK", "YCbCr") or not _is_grey(colours):
        raise DataError(f"{path} is coloured, and a mask has one value per pixel; {_EXPORT}")
    return colours[..., 0]


def _is_grey(colours: np.ndarray) -> bool:
    return bool((colours == colours[..., :1]).all())


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
