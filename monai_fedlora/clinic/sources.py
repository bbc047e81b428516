"""The DICOM objects of a prediction, and which of their images are end-diastole and end-systole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.clinic.dicom_headers import ImageHeader
from monai_fedlora.clinic.dicom_pixels import read_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One DICOM object.

    Attributes:
        dataset: pydicom dataset, its pixels not compressed.
        ed: frame numbers, from 1, of end-diastole; a classic object has one frame, number 1.
        es: frame numbers of end-systole.
        multiframe: whether it is an enhanced object, whose frames are referenced by number.
    """

    dataset: Any
    ed: tuple[int, ...]
    es: tuple[int, ...]
    multiframe: bool

    @property
    def frames(self) -> tuple[int, ...]:
        """Frame numbers of a reference to ED and ES, in order; none for a classic object."""
        return self.referred(sorted({*self.ed, *self.es}))

    def referred(self, images: Iterable[int]) -> tuple[int, ...]:
        """Frame numbers of a reference to some of its images; none for a classic object."""
        return tuple(images) if self.multiframe else ()


def read_sources(
    ed: Iterable[ImageHeader], es: Iterable[ImageHeader], *, known: Mapping[Path, Any] | None = None
) -> tuple[Source, ...]:
    """Read every object once, in the order of the first of its images.

    Args:
        ed: images of end-diastole, base first.
        es: images of end-systole, base first.
        known: objects that were read before, by file; they are not read again.

    Raises:
        DataError: an object cannot be read or decoded; the message names the file.
    """
    ed, es = tuple(ed), tuple(es)
    objects = {header.path: header for header in reversed((*ed, *es))}
    return tuple(
        Source(
            dataset=known[path] if known and path in known else read_dataset(objects[path]),
            ed=_numbers(header for header in ed if header.path == path),
            es=_numbers(header for header in es if header.path == path),
            multiframe=objects[path].frame is not None,
        )
        for path in dict.fromkeys(header.path for header in (*ed, *es))
    )


def _numbers(headers: Iterable[ImageHeader]) -> tuple[int, ...]:
    return tuple(sorted(header.frame or 1 for header in headers))
