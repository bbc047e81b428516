"""Synthetic beating hearts for the transform tests."""

from pathlib import Path

import nibabel
import numpy as np
import pytest


def beating_heart(
    shape=(96, 88, 9), spacing=(2.0, 2.0, 10.0), centre_mm=(90.0, 80.0), radius_mm=(28.0, 18.0), seed=0
) -> np.ndarray:
    """(2, X, Y, Z) float32: a bright disc that contracts inside a textured chest that does not move."""
    x = np.arange(shape[0])[:, None] * spacing[0]
    y = np.arange(shape[1])[None] * spacing[1]
    distance = np.hypot(x - centre_mm[0], y - centre_mm[1])
    chest = 60 + 25 * np.sin(x / 17) * np.cos(y / 23)
    taper = np.linspace(1.0, 0.5, shape[2])
    frames = [np.stack([np.where(distance < radius * t, 220.0, chest) for t in taper], axis=-1) for radius in radius_mm]
    noise = np.random.default_rng(seed).normal(0, 2, (2, *shape))
    return (np.stack(frames) + noise).astype(np.float32)


def write_nifti(path: Path, voxels: np.ndarray, spacing=(2.0, 2.0, 10.0), affine=None) -> Path:
    """Write voxels with the given affine, or a diagonal one of this spacing."""
    affine = np.diag([*spacing, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(voxels, affine), path)
    return path


@pytest.fixture(scope="session")
def heart():
    return beating_heart


@pytest.fixture(scope="session")
def nifti():
    return write_nifti


@pytest.fixture
def pair(tmp_path):
    """Item naming the two files of one synthetic patient."""
    ed, es = beating_heart()
    return {
        "ed": str(write_nifti(tmp_path / "ed.nii.gz", ed)),
        "es": str(write_nifti(tmp_path / "es.nii.gz", es)),
        "label": 1,
        "subject": "patient001",
    }
