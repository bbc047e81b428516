"""A PNG file whose compressed pixels end early is told from a whole one."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.errors import DataError
from monai_fedlora.formats.photograph_file import read_photograph
from monai_fedlora.formats.png_data import is_incomplete

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")
_ROW = {"RGB": 226, "RGBA": 301, "L": 76, "LA": 151, "P": 76, "1": 11, "I;16": 151}
"""Bytes of a row of 75 pixels."""
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def picture(mode: str, border: int = 0) -> Image.Image:
    levels = np.random.default_rng(0).integers(1, 256, (61, 75, 4), dtype=np.uint8)
    if border:
        levels[-border:] = 0
    if mode == "I;16":
        return Image.fromarray(levels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(levels).convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(levels)


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def without(rows_lost: int, content: bytes, *, row: int) -> bytes:
    """The same file without the last of its rows of so many bytes, sound in every checksum.

    Where a row is broken off, Pillow says so itself.
    """
    parts, place = [], 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        parts.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    rows = zlib.decompress(b"".join(body for kind, body in parts if kind == b"IDAT"))
    packed = zlib.compress(rows[: -rows_lost * row])
    before = [part for part in parts if part[0] not in (b"IDAT", b"IEND")]
    return _joined([*before, (b"IDAT", packed[:9]), (b"IDAT", packed[9:]), (b"IEND", b"")])


def interlaced(levels: np.ndarray) -> bytes:
    """Grey levels (H, W) of 8 bits in seven passes (PNG specification, 8.2)."""
    rows = b"".join(
        b"\0" + row.tobytes() for x, y, across, down in _PASSES for row in levels[y::down, x::across] if row.size
    )
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 8, 0, 0, 0, 1)
    return _joined([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def _joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in parts
    )


def incomplete(content: bytes) -> bool:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return is_incomplete(content, image)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("border", [0, 20])
def test_a_whole_file_lacks_nothing(mode: str, border: int) -> None:
    content = encoded(picture(mode, border))
    assert not incomplete(content)
    assert not incomplete(content + b"behind the end")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("border", [0, 20])
@pytest.mark.parametrize("rows_lost", [1, 40])
def test_rows_that_are_missing_are_told(mode: str, border: int, rows_lost: int) -> None:
    assert incomplete(without(rows_lost, encoded(picture(mode, border)), row=_ROW[mode]))


@pytest.mark.parametrize("size", [(61, 75), (32, 33)])
def test_passes_of_an_interlaced_file_are_counted(size: tuple[int, int]) -> None:
    levels = np.zeros(size, np.uint8)
    content = interlaced(levels)
    assert not incomplete(content)
    assert incomplete(without(1, content, row=1 + size[1]))


def test_an_incomplete_photograph_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "lesion.png"
    path.write_bytes(without(40, encoded(picture("RGB")), row=_ROW["RGB"]))
    with pytest.raises(DataError, match=r"lesion\.png is incomplete.*copy it again"):
        read_photograph(path)
