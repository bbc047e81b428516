"""A hash of the code that computes what is kept, so that nothing outlives a change of it."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

COMPUTING = (
    "networks",
    "transforms",
    "formats",
    "engines/dataset.py",
    "engines/features.py",
    "engines/frozen.py",
    "engines/preprocessed.py",
    "engines/seeds.py",
)
"""Of this package: what makes tokens of images, cases of files, and features of texts."""

LIBRARIES = ("numpy", "pillow", "nibabel", "scipy")
"""Whose versions decide what files are read as, beside those of torch and MONAI."""


TRAINING = (*COMPUTING, "adapters", "methods", "engines", "data", "federated", "scope.py", "encoding.py")
"""These, and what else decides how a federation ends."""


@cache
def source_digest(places: tuple[str, ...] = COMPUTING, package: Path = Path(__file__).parent) -> str:
    """Hash of the names and bytes of some files of this package and of the versions of :data:`LIBRARIES`.

    Computed once per process, in which code does not change.

    Args:
        places: folders and files, such as :data:`COMPUTING`.
        package: the folder of this package.
    """
    digest = hashlib.sha256()
    for place in places:
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
