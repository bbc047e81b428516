"""Check the header of a photograph without decoding its pixels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from monai_fedlora.formats.photograph_file import opened

_LAST_BYTES = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}
_TIFF_PARTS = ((273, 279), (324, 325))
"""TIFF tags of where strips and tiles begin and how many bytes they have."""


def check_image_header(path: Path) -> tuple[int, int]:
    """Check the header of a JPEG, PNG or TIFF file and return its width and height in pixels.

    Checked: the format, the size, the type of pixels, the number of pages, and that the file is not cut off. JPEG and
    PNG files end with a marker; a file that does not is decoded to find out. Damage in the middle of a file is only
    found when the file is decoded.

    Args:
        path: the file; its format is recognised by its content, not its name.

    Raises:
        DataError: the file is missing, truncated, or what
            :func:`~monai_fedlora.formats.photograph_file.check_header` refuses; the message names it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened(path, damage="is truncated or damaged", advice="copy it again from the source") as image:
            if not _has_end(path, image):
                image.load()
            width, height = image.size
    return width, height


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
