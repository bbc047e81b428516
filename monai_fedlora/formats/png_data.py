"""Check whether a PNG file has all its pixels.

A file whose compressed data stop after a whole row, with correct checksums and an end chunk, decodes without an error:
Pillow leaves the missing rows at zero. Therefore the length of the decompressed data is compared with the one that
follows from the header.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_SIGNATURE = 8
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by its colour type (PNG specification, table 11.1)."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced file: first column and row, and steps to the next ones (8.2)."""


def is_incomplete(content: bytes, image: Any) -> bool:
    """Say whether a PNG file lacks pixels.

    Args:
        content: the bytes of the file.
        image: Pillow's image of it, loaded and not yet turned.
    """
    if np.asarray(image)[-2:].any(axis=-1 if len(image.getbands()) > 1 else ()).all():
        return False  # the rows that are decoded last are not zero
    chunks = list(_chunks(content))
    header = next(body for kind, body in chunks if kind == b"IHDR")
    expected = _length(header)
    unpacking = zlib.decompressobj()
    data = b"".join(body for kind, body in chunks if kind == b"IDAT")
    return len(unpacking.decompress(data, expected)) < expected


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = _SIGNATURE
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        yield kind, content[place + 8 : place + 8 + length]
        if kind == b"IEND":
            return
        place += length + 12


def _length(header: bytes) -> int:
    """Bytes of all rows, each with its filter byte, computed from the content of the header chunk (11.2.2)."""
    width, height = (int.from_bytes(header[place : place + 4], "big") for place in (0, 4))
    bits = header[8] * _CHANNELS[header[9]]
    passes = _PASSES if header[12] else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes]
    return sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0)
