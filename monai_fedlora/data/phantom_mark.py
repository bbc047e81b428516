"""The mark that this package's phantoms carry in their files, so that copies of them are never taken for patients."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

from monai_fedlora.data.origin import MIXED, PHANTOMS, REAL, SYNTHETIC, Origin

MARK = b"phantom of monai-fedlora"
"""In a NIfTI header's ``descrip``, a JPEG's comment, a PNG's text."""

_HEAD = 4096
_GZIP = b"\x1f\x8b"


def is_marked(path: Path) -> bool:
    """Whether an image file says of itself that it is a phantom; a file that cannot be read says nothing."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head.startswith(_GZIP):
            head = zlib.decompressobj(31).decompress(head, _HEAD)
    except (OSError, zlib.error):
        return False
    return MARK in head


def origin_of(files: Iterable[Path], *, dataset: str, said: Origin) -> Origin:
    """The origin of images: as somebody says, unless some of them are marked as phantoms.

    Args:
        files: one of each case.
        dataset: name of the data set or of the layout that its files are in.
        said: what is said of them.
    """
    if said.kind == SYNTHETIC:
        return said
    marked = [is_marked(file) for file in files]
    if not any(marked):
        return said
    if all(marked):
        return Origin(kind=SYNTHETIC, name=f"phantoms as {dataset}", source=PHANTOMS)
    return Origin(kind=MIXED, name=f"{dataset} and phantoms", source=PHANTOMS)


def published(dataset: str, source: str | None, *, synthetic: bool = False) -> Origin:
    """What a data set on disk is said to be: real, unless somebody knows better."""
    return Origin(kind=SYNTHETIC if synthetic else REAL, name=dataset, source=source)
