"""The mark in the files of this package's phantoms, by which copies of them are never taken for real patients."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path

from monai_fedlora.data.origin import MIXED, PHANTOMS, REAL, SYNTHETIC, Origin

MARK = b"phantom of monai-fedlora"
"""Written into ``descrip`` of a NIfTI header, the comment of a JPEG or the text of a PNG file."""

_HEAD = 4096
_GZIP = b"\x1f\x8b"


def is_marked(path: Path) -> bool:
    """Whether an image file holds the mark of a phantom; False for a file that cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
        if head.startswith(_GZIP):
            head = zlib.decompressobj(31).decompress(head, _HEAD)
    except (OSError, zlib.error):
        return False
    return MARK in head


def origin_of(files: Iterable[Path], *, dataset: str, said: Origin) -> Origin:
    """The origin of images: the one that was declared, unless some of the files are marked as phantoms.

    Args:
        files: one file of each case.
        dataset: name of the data set, or of the layout of its files.
        said: the declared origin.
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
    """The declared origin of a data set on disk: real, unless the user says that it is synthetic."""
    return Origin(kind=SYNTHETIC if synthetic else REAL, name=dataset, source=source)
