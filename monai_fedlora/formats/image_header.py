"""What a photograph says about itself, checked without decoding its pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from monai_fedlora.errors import DataError
from monai_fedlora.formats.photograph_file import FORMATS, check_header

_LAST_BYTES = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_TIFF_PARTS = ((273, 279), (324, 325))
"""TIFF tags of where strips and tiles begin and how many bytes they have."""


def check_image_header(path: Path) -> tuple[int, int]:
    """Check the header of a JPEG, PNG or TIFF file and return its width and height in pixels.

    Checked: the format, the size, the type of pixels, the number of pages, and that the file has its end. JPEG and PNG
    end with a marker; only where it is not the last thing in the file is the file decoded to find out. Damage in the
    middle of a file shows when the file is decoded.

    Args:
        path: the file; its content decides on the format, not its name.

    Raises:
        DataError: the file is missing, truncated, or what
            :func:`~monai_fedlora.formats.photograph_file.check_header` refuses; the message names it.
    """
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                check_header(image, path)
                if not _has_end(path, image):
                    image.load()
                return image.size
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{path} is not a JPEG, PNG or TIFF file that can be read; copy it again from the source"
        ) from error
    except Exception as error:  # Pillow reports damage in a dozen ways
        raise DataError(f"{path} is truncated or damaged ({error}); copy it again from the source") from error


def _has_end(path: Path, image: Any) -> bool:
    """Whether the last bytes are those of a complete file."""
    if image.format == "TIFF":
        parts = [
            (start, length)
            for starts, lengths in _TIFF_PARTS
            for start, length in zip(image.tag_v2.get(starts, ()), image.tag_v2.get(lengths, ()), strict=True)
        ]
        return bool(parts) and max(start + length for start, length in parts) <= path.stat().st_size
    last = _LAST_BYTES[image.format]
    with path.open("rb") as stream:
        stream.seek(-len(last), 2)
        return stream.read() == last
