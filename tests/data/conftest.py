"""Small NIfTI files for the readers' tests."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest


@functools.cache
def _encoded(shape: tuple[int, ...], spacing: tuple[float, ...]) -> bytes:
    voxels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    return nibabel.Nifti1Image(voxels, np.diag([*spacing, 1.0])).to_bytes()


def _write(path: Path, shape: tuple[int, ...] = (4, 4, 3), spacing: tuple[float, ...] = (1.5, 1.5, 10)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _encoded(tuple(shape), tuple(spacing))
    if path.name.endswith(".gz"):
        content = gzip.compress(content, 1)
    path.write_bytes(content)


@pytest.fixture
def nifti() -> Callable[..., None]:
    """Return ``write(path, shape=(4, 4, 3), spacing=(1.5, 1.5, 10))``, which makes the folder too."""
    return _write
