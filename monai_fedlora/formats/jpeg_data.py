"""Check whether a JPEG file has all its pixels.

A file that was cut off and closed with an end marker decodes without an error: libjpeg fills the rest with grey, or
leaves out the finer scans, and Pillow does not pass on libjpeg's warnings. Two checks find such files. First the
structure: there must be scans of every component, all bits of every coefficient in a progressive file, and all restart
markers. Second, the file is decoded again with noise before its end marker: the decoder ignores what follows the last
pixel, so that the picture changes only if pixels are missing. Surplus bytes, which some cameras write, are accepted.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_BLOCK = 8
_COEFFICIENTS = 64
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_ALONE = frozenset((0x01, 0xD8, *range(0xD0, 0xD8)))
_SCAN, _END, _RESTART = 0xDA, 0xD9, 0xDD
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_RESTARTS = re.compile(rb"\xff([\xd0-\xd7])")
_NOISE = bytes((109 + 37 * n + n // 7 * 101) % 255 for n in range(4096))
MAXIMUM_SCANS = 256
"""Largest number of scans of a JPEG file (ours); encoders write some dozens at most, and decoding each takes time."""
_EVEN = 3
"""Largest range of levels (of 255) of a block that counts as flat, as blocks are that were never decoded."""


class TooManyScans(Exception):
    """The file would take minutes or hours to decode."""


@dataclass(frozen=True, slots=True)
class _Scan:
    """A scan: components, first and last coefficient, lowest bit, restart interval, start and end of its data."""

    components: tuple[int, ...]
    first: int
    last: int
    low_bit: int
    interval: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Structure:
    """Size in pixels, sampling factors (across, down) by component, and scans."""

    width: int
    height: int
    sampling: dict[int, tuple[int, int]]
    is_progressive: bool
    scans: tuple[_Scan, ...]


def check_scans(content: bytes) -> None:
    """Count the scans of a JPEG file, which may be damaged, before it is decoded.

    Raises:
        TooManyScans: it has more than :data:`MAXIMUM_SCANS`.
    """
    with contextlib.suppress(IndexError, ValueError):  # damage is looked for when it is decoded
        _read_structure(content)


def missing_data(content: bytes, image: Any) -> str | None:
    """Say what a JPEG file lacks.

    Args:
        content: the bytes of the file.
        image: Pillow's image of it, loaded and not yet turned.

    Returns:
        What is missing, or None.
    """
    try:
        structure = _read_structure(content)
    except (IndexError, ValueError):
        return "its segments do not lead to its end"
    return (
        _missing_scan(structure) or _missing_restart(structure, content) or _missing_pixels(structure, content, image)
    )


def _read_structure(content: bytes) -> _Structure:
    """Read the segments of a file one after the other.

    Raises:
        IndexError, ValueError: a segment ends outside of the file.
        TooManyScans: there are more than :data:`MAXIMUM_SCANS`.
    """
    place, interval = 2, 0
    width = height = 0
    sampling: dict[int, tuple[int, int]] = {}
    is_progressive = False
    scans: list[_Scan] = []
    while True:
        place = content.index(b"\xff", place)
        while content[place] == 0xFF:
            place += 1
        marker = content[place]
        place += 1
        if marker == _END:
            return _Structure(width, height, sampling, is_progressive, tuple(scans))
        if marker in _ALONE or marker == 0:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        body = content[place + 2 : place + length]
        place += max(length, 2)
        if marker == _RESTART:
            interval = int.from_bytes(body[:2], "big")
        elif marker in _FRAMES:
            height, width = (int.from_bytes(body[n : n + 2], "big") for n in (1, 3))
            is_progressive = marker in _PROGRESSIVE
            parts = [body[6 + 3 * n : 9 + 3 * n] for n in range(body[5])]
            sampling = {part[0]: (part[1] >> 4, part[1] & 15) for part in parts}
        elif marker == _SCAN:
            if len(scans) == MAXIMUM_SCANS:
                raise TooManyScans
            end = _AFTER_SCAN.search(content, place)
            if end is None:
                raise ValueError("no marker behind a scan")
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            components = tuple(body[1 + 2 * n] for n in range(count))
            scans.append(_Scan(components, first, last, bits & 15, interval, place, end.start()))
            place = end.start()


def _missing_scan(structure: _Structure) -> str | None:
    lowest = {name: [_COEFFICIENTS] * _COEFFICIENTS for name in structure.sampling}
    for scan in structure.scans:
        for name in scan.components:
            bits = lowest.get(name, [_COEFFICIENTS] * _COEFFICIENTS)
            for place in range(scan.first, min(scan.last, _COEFFICIENTS - 1) + 1):
                bits[place] = min(bits[place], scan.low_bit)
    complete = all(max(bits) == 0 if structure.is_progressive else bits[0] == 0 for bits in lowest.values())
    return None if complete and structure.scans else "some of its scans are missing"


def _missing_restart(structure: _Structure, content: bytes) -> str | None:
    for scan in structure.scans:
        if not scan.interval or not structure.height:
            continue
        found = [mark[0] & 7 for mark in _RESTARTS.findall(content, scan.start, scan.end)]
        expected = -(-_units(structure, scan.components) // scan.interval) - 1
        if len(found) < expected or found[:expected] != [number % 8 for number in range(expected)]:
            return "parts between its restart markers are missing"
    return None


def _units(structure: _Structure, components: Sequence[int]) -> int:
    """Number of units (MCU) of a scan (ITU-T T.81, A.2)."""
    across = max(sides[0] for sides in structure.sampling.values())
    down = max(sides[1] for sides in structure.sampling.values())
    if len(components) > 1:
        return -(-structure.width // (_BLOCK * across)) * -(-structure.height // (_BLOCK * down))
    own_across, own_down = structure.sampling[components[0]]
    columns, rows = -(-structure.width * own_across // across), -(-structure.height * own_down // down)
    return -(-columns // _BLOCK) * -(-rows // _BLOCK)


def _missing_pixels(structure: _Structure, content: bytes, image: Any) -> str | None:
    from PIL import Image

    if len(structure.scans) == 1 and not _is_flat_at_its_end(image):
        return None
    end = structure.scans[-1].end
    with Image.open(io.BytesIO(content[:end] + _NOISE + b"\xff\xd9"), formats=("JPEG",)) as again:
        is_same = np.array_equal(np.asarray(again), np.asarray(image))
    return None if is_same else "it ends before its last pixels"


def _is_flat_at_its_end(image: Any) -> bool:
    """Whether the last block is flat in any band, as it is in the bands that an incomplete file of one scan lacks."""
    width, height = image.size
    last = image.crop((width - 1 - (width - 1) % _BLOCK, height - 1 - (height - 1) % _BLOCK, width, height))
    bands = (last.convert("YCbCr") if image.mode == "RGB" else last).split()
    ranges = [band.getextrema() for band in bands]
    return any(high - low <= _EVEN for low, high in ranges)
