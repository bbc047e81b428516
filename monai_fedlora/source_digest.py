"""A hash of the code that stored results depend on, so that they are not used after the code has changed."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from monai_fedlora.catalogues import installed_version

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
"""Parts of this package that compute cases from files, tokens from images and features from texts."""

LIBRARIES = ("numpy", "pillow", "nibabel", "scipy")
"""Libraries whose versions affect the content read from files, in addition to torch and MONAI."""


TRAINING = (
    *COMPUTING,
    *("adapters", "methods", "engines", "tasks", "measures", "data", "federated", "scope.py", "encoding.py"),
)
"""The same, and everything else that the result of a federation depends on."""


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
    digest.update(" ".join(f"{name} {installed_version(name) or 'none'}" for name in LIBRARIES).encode())
    return digest.hexdigest()
