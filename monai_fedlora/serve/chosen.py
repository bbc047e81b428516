"""Keep enough of a cine, after the upload was removed, to compute an answer with other frames.

The grey levels are kept in the volume that the page shows. Of a DICOM study, de-identified copies of all images are
kept as well, because a report refers to the images of the chosen frames. Both count towards the disk space of the study
and are removed with it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from monai_fedlora.clinic.chosen_frames import choose_again
from monai_fedlora.clinic.deidentify import Deidentifier
from monai_fedlora.clinic.dicom_pixels import read_dataset
from monai_fedlora.clinic.reading import LoadedStudy
from monai_fedlora.clinic.sources import Source
from monai_fedlora.errors import DataError, FedLoraError
from monai_fedlora.files import make_folder
from monai_fedlora.formats.dicom_files import naming_damage, read_object
from monai_fedlora.serve.disk import Share


@dataclass(frozen=True, kw_only=True)
class KeptCine:
    """A cine without its grey levels.

    Attributes:
        loaded: the study as it was first read, without pixels and DICOM objects; of its images the headers.
        images: for each frame, the files of its de-identified images, base first; empty if there are none.
        missing: why a DICOM study has no de-identified images.
    """

    loaded: LoadedStudy
    images: tuple[tuple[Path, ...], ...] = ()
    missing: str = ""


class Unchanged(Deidentifier):
    """Leaves images unchanged, because they were de-identified when they were stored."""

    def image(self, dataset: Any) -> Any:
        """Return the image itself."""
        return dataset


def keep_cine(loaded: LoadedStudy, folder: Path, *, deidentifier: Deidentifier, share: Share) -> KeptCine | None:
    """Keep what another choice of frames needs, while the upload is still there.

    Args:
        loaded: the study.
        folder: for the images; made if there are any.
        deidentifier: of the session.
        share: disk space of the study, to which the images are added.

    Returns:
        The kept cine; None if the study has no frames to choose from.
    """
    if loaded.frames is None or loaded.cine is None:
        return None
    kept = KeptCine(
        loaded=replace(loaded, image=loaded.image[:, :0], cine=None, sources=(), datasets={}, with_frames=None)
    )
    if loaded.stack is None:
        return kept
    taken = 0
    images: list[tuple[Path, ...]] = []
    make_folder(folder)
    try:
        for frame in range(len(loaded.frames.areas)):
            paths = []
            for place, header in enumerate(loaded.stack.of_frame(frame)):
                paths.append(folder / f"{frame:04d}-{place:04d}.dcm")
                with naming_damage("an image cannot be de-identified", "export the study again"):
                    deidentifier.image(read_dataset(header)).save_as(paths[-1], enforce_file_format=True)
                size = paths[-1].stat().st_size
                share.take(size)
                taken += size
            images.append(tuple(paths))
    except FedLoraError as error:  # burned-in text, enhanced images, or a full disk
        shutil.rmtree(folder, ignore_errors=True)
        share.give_back(taken)
        unreadable = "an image cannot be read again"  # the error would name a stored file
        return replace(kept, missing=unreadable if isinstance(error, DataError) else str(error))
    return replace(kept, images=tuple(images))


def read_again(kept: KeptCine, volume: Path, *, ed: int, es: int) -> LoadedStudy:
    """Read a kept cine with other frames.

    Args:
        kept: from :func:`keep_cine`.
        volume: from :func:`monai_fedlora.serve.viewer_volumes.write_cine`.
        ed: end-diastole, from 0.
        es: end-systole, from 0.

    Raises:
        DataError: the frames cannot be ED and ES of this cine.
    """
    image: Any = nibabel.load(volume)
    whole = replace(kept.loaded, cine=np.asanyarray(image.dataobj).astype(np.float32))
    chosen = choose_again(whole, ed=ed, es=es)
    if not kept.images:
        return chosen
    return replace(chosen, sources=(*_sources(kept.images[ed], ed=True), *_sources(kept.images[es], ed=False)))


def _sources(paths: Sequence[Path], *, ed: bool) -> Iterable[Source]:
    for path in paths:
        yield Source(dataset=read_object(path), ed=(1,) if ed else (), es=() if ed else (1,), multiframe=False)
