"""Small NIfTI files and photographs for the readers' tests."""

from __future__ import annotations

import functools
import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import nibabel
import numpy as np
import pytest
from PIL import Image

FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}


@functools.cache
def _encoded(shape: tuple[int, ...], spacing: tuple[float, ...]) -> bytes:
    voxels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0])).to_bytes()


def _mark(path: Path) -> bytes:
    return b"%08x" % crc32(str(path).encode())


def _write(path: Path, shape: tuple[int, ...] = (4, 4, 3), spacing: tuple[float, ...] = (1.5, 1.5, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _encoded(tuple(shape), tuple(spacing))
    content = content[:148] + _mark(path) + content[156:]  # in the header's description, so that no two files are equal
    if path.name.endswith(".gz"):
        content = gzip.compress(content, 1)
    path.write_bytes(content)


@pytest.fixture
def nifti() -> Callable[..., None]:
    """Return ``write(path, shape=(4, 4, 3), spacing=(1.5, 1.5, 10))``, which makes the folder too."""
    return _write


@functools.cache
def _photograph(kind: str, size: tuple[int, int], mode: str) -> bytes:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (*(side // 4 for side in size[::-1]), 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(coarse).resize(size).convert(mode).save(stream, kind)
    return stream.getvalue()


def _write_photograph(path: Path, size: tuple[int, int] = (40, 36), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = FORMATS[path.suffix.lower()]
    content, mark = _photograph(kind, size, mode), _mark(path)
    if kind == "JPEG":  # a comment that differs from file to file
        content = content[:2] + b"\xff\xfe" + struct.pack(">H", 2 + len(mark)) + mark + content[2:]
    elif kind == "PNG":
        chunk = b"tEXt" + b"mark\0" + mark
        content = (
            content[:33] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", crc32(chunk)) + content[33:]
        )
    else:
        content += mark
    path.write_bytes(content)


@pytest.fixture
def photograph() -> Callable[..., None]:
    """Return ``write(path, size=(width, height), mode="RGB")``, which makes the folder too."""
    return _write_photograph
