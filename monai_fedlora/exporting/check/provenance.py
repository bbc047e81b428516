"""Recognise bundles of this package."""

from __future__ import annotations

from monai_fedlora.exporting.check.contents import Contents
from monai_fedlora.exporting.checksums import CHECKSUMS_NAME

NOT_MADE_HERE = "was not made by this toolkit: cannot be judged"
_MARKS = (b"monai-fedlora", b"monai_fedlora")
_LARGEST = 16 << 20


def made_here(contents: Contents) -> bool:
    """Whether the bundle has a list of checksums, or a configuration that names this package.

    A bundle from which these marks were removed does not pass the check: it counts as foreign, and is not loaded.
    """
    configs = (name for name, size in contents.files.items() if name.startswith("configs/") and size <= _LARGEST)
    return CHECKSUMS_NAME in contents.files or any(
        mark in content for content in map(contents.read, configs) for mark in _MARKS
    )
