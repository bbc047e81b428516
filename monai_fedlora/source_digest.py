"""A hash of the code that computes what is kept, so that nothing outlives a change of it."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COMPUTING = (
    "networks",
    "transforms",
    "data/nifti.py",
    "engines/frozen.py",
    "engines/features.py",
    "engines/stored_cases.py",
)
"""Of this package: what makes tokens of images, cases of files, and features of texts."""

LIBRARIES = ("numpy", "pillow", "nibabel", "scipy")
"""Whose versions decide what files are read as, beside those of torch and MONAI."""


@cache
def source_digest(package: Path = Path(__file__).parent) -> str:
    """Hash of the names and bytes of the files in :data:`COMPUTING` and of the versions of :data:`LIBRARIES`.

    Computed once per process, in which code does not change.

    Args:
        package: the folder of this package.
    """
    digest = hashlib.sha256()
    for place in COMPUTING:
        path = package / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            content = file.read_bytes()
            digest.update(f"{file.relative_to(package).as_posix()} {len(content)} ".encode())
            digest.update(content)
    digest.update(" ".join(f"{name} {_version(name)}" for name in LIBRARIES).encode())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"
