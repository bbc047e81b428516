"""Read the files of a study into the input of an exported model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.clinic.dicom_headers import read_image_headers
from monai_fedlora.clinic.dicom_pixels import check_size, read_dataset, read_voxels
from monai_fedlora.clinic.dicom_stack import Stack, find_stack
from monai_fedlora.clinic.frames_choice import FrameChoice, choose_frames
from monai_fedlora.clinic.omissions import Omission
from monai_fedlora.clinic.plausible import affine_doubts, cine_doubts, photograph_doubts, view_doubts
from monai_fedlora.clinic.sources import Source, read_sources
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import DataError
from monai_fedlora.formats.nifti import read_header
from monai_fedlora.formats.photograph_file import read_photograph
from monai_fedlora.measures.given_numbers import shared_slices_reason
from monai_fedlora.studies.study import CINE, CineFile, DicomFiles, Packed, Study, Unusable
from monai_fedlora.studies.zipped import is_archive, study_files, unpacked
from monai_fedlora.transforms.frames import Frame, join_frames, make_frame, oriented_or_refused, read_cine, read_frames
from monai_fedlora.transforms.orientation import is_known, orient_like
from monai_fedlora.transforms.resampling import resample


class TakesStudies(Protocol):
    """A model, as far as reading a study for it asks; attributes as of `monai_fedlora.clinic.bundle.Classifier`."""

    @property
    def name(self) -> str: ...
    @property
    def modality(self) -> str: ...
    @property
    def style(self) -> str | None: ...
    @property
    def spacing(self) -> tuple[float, float, float] | None: ...
    @property
    def resampling(self) -> Mapping[str, Any] | None: ...
    @property
    def takes_affine(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class LoadedStudy:
    """The content of a study.

    Attributes:
        image: input of the model: (2, X, Y, Z) resampled cine with its axes in canonical order
            (:mod:`monai_fedlora.transforms.orientation`), or (3, H, W) photograph in [0, 1].
        frames: how ED and ES were chosen; None for two files, and for a photograph.
        notes: remarks for the reader of the answer.
        doubts: reasons why the image may not be of the kind that the model was trained on.
        omissions: images and files of a DICOM study that were not used, which notes and doubts name.
        quotes: sentences with names of series and files, which may name a person.
        sources: the DICOM objects with the images of ED, then of ES, base first; empty if it was not read from DICOM.
        cine: grey levels of all frames (X, Y, Z, T) with the axes in canonical order, ED and ES alone for two files;
            None for a photograph.
        cine_affine: (4, 4) voxel of ``cine`` to world in mm (right, anterior, superior).
        image_affine: (4, 4) voxel of ``image`` to the same world.
        with_frames: function from two other frame numbers of the cine (ED and ES, from 0) to their ``image``; None for
            two files.
        orientation: "known", or "placeholder" where the file does not give the orientation of the patient: the model
            then averages over all 16 orders of the axes. None for a photograph.
        stack: the images of a cine that was read from DICOM.
        resampled: function from two frames (2, X, Y, Z) on the grid of ``cine`` to their ``image``; None for two files.
        datasets: the DICOM objects of all frames by file, if they were asked for.
        incomplete: why ``cine`` has fewer slices than the files, so that no volume can be given; None if it has all.
    """

    image: Tensor
    frames: FrameChoice | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    omissions: tuple[Omission, ...] = ()
    quotes: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    cine: np.ndarray | None = None
    cine_affine: np.ndarray | None = None
    image_affine: np.ndarray | None = None
    with_frames: Callable[[int, int], Tensor] | None = None
    orientation: str | None = None
    stack: Stack | None = None
    resampled: Callable[[np.ndarray], Tensor] | None = None
    datasets: Mapping[Path, Any] = field(default_factory=dict)
    incomplete: str | None = None

    def sources_of(self, ed: int | None, es: int | None) -> tuple[Source, ...]:
        """The DICOM objects of two frames, from 0; those of ``sources`` unless ``datasets`` holds all frames."""
        if not self.datasets or self.stack is None or ed is None or es is None:
            return self.sources
        return read_sources(self.stack.of_frame(ed), self.stack.of_frame(es), known=self.datasets)


def load_study(study: Study, classifier: TakesStudies, *, every_source: bool = False) -> LoadedStudy:
    """Read a study as the bundle's own inference configuration does.

    Args:
        study: to read.
        classifier: the model that it is read for.
        every_source: keep the DICOM objects of all frames, and not those of end-diastole and end-systole alone.

    Raises:
        ConfigError: a package for this kind of file is not installed.
        DataError: the study cannot be used, or is not what the model takes; the message names the file.
    """
    loaded = _load(study, classifier, every_source)
    return replace(loaded, quotes=() if study.is_pseudonym else (*loaded.quotes, *study.quotes))


def _load(study: Study, classifier: TakesStudies, every_source: bool) -> LoadedStudy:
    files = study.files
    if isinstance(files, Unusable):
        raise DataError(files.reason)
    if isinstance(files, Packed):
        with unpacked(files.archive, [PurePosixPath(path) for path in files.paths]) as places:
            return _load(replace(study, files=files.placed(places)), classifier, every_source)
    if isinstance(files, Photograph) != (classifier.modality != CINE):
        takes = "short-axis cines" if classifier.modality == CINE else "photographs (JPEG, PNG or TIFF files)"
        raise DataError(f"{study.name} is not what the model takes; {classifier.name} classifies {takes}")
    if isinstance(files, Photograph):
        levels = read_photograph(files.file)
        doubts = photograph_doubts(levels, style=classifier.style)
        return LoadedStudy(image=torch.from_numpy(levels), doubts=tuple(doubts))
    if isinstance(files, FramePair):
        return _load_pair(files, classifier)
    if isinstance(files, CineFile):
        return _load_cine(files, classifier)
    return _load_dicom(files, classifier, every_source)


def _load_pair(files: FramePair, classifier: TakesStudies) -> LoadedStudy:
    for path in (files.ed, files.es):
        check_size(read_header(path, axes=3).shape, str(path))
    ed, es = read_frames({"ed": files.ed, "es": files.es})
    loaded = _joined(ed, es, classifier, stored=ed.stored)
    assert loaded.cine is not None
    shared = loaded.cine.shape[2]
    counts = ed.voxels.shape[2], es.voxels.shape[2]
    whole = counts == (shared, shared)
    return replace(
        loaded,
        notes=(*dict.fromkeys((*ed.notes, *es.notes)), *(() if whole else (f"the frames share {shared} slices",))),
        resampled=None,
        incomplete=shared_slices_reason(*counts, shared),
    )


def _load_cine(files: CineFile, classifier: TakesStudies) -> LoadedStudy:
    check_size(read_header(files.file, axes=4).shape, str(files.file))
    read, stored, notes = read_cine(files.file)
    voxels, affine = oriented_or_refused(read, stored, files.file)
    x, y = np.linalg.norm(affine[:3, :2], axis=0).tolist()
    choice = choose_frames(voxels, spacing_mm=float(np.sqrt(x * y)), given=files.frames)
    return replace(_whole(voxels, affine, choice, classifier, stored=stored, origin=files.file), notes=notes)


@contextmanager
def _named(files: DicomFiles) -> Iterator[dict[Path, str]]:
    """The files of a DICOM study, with their original names."""
    if is_archive(files.path) and files.path.is_file():
        with unpacked(files.path, [PurePosixPath(member) for member in files.members]) as places:
            yield {place: str(member) for member, place in places.items()}
        return
    names = dict(files.names)
    with study_files(files.path, files.members) as paths:
        inside = {path: str(path.relative_to(files.path)) if path != files.path else path.name for path in paths}
        yield {path: names.get(name, name) for path, name in inside.items()}


def _load_dicom(files: DicomFiles, classifier: TakesStudies, every_source: bool) -> LoadedStudy:
    with _named(files) as paths:
        stack = find_stack(read_image_headers(list(paths), files.path), files.path, names=paths)
        voxels, affine = oriented_or_refused(read_voxels(stack), stack.affine, files.path)
        spacing = float(np.sqrt(np.prod(stack.images[0][0].spacing)))
        choice = replace(choose_frames(voxels, spacing_mm=spacing, given=files.frames), times_ms=stack.times)
        loaded = _whole(voxels, affine, choice, classifier, stored=stack.affine, origin=files.path)
        headers = {image.path: image for images in stack.images for image in images} if every_source else {}
        return replace(
            loaded,
            notes=stack.notes,
            omissions=stack.omissions,
            quotes=stack.quotes,
            doubts=(*stack.doubts, *loaded.doubts),
            sources=read_sources(stack.of_frame(choice.ed), stack.of_frame(choice.es)),
            stack=stack,
            datasets={path: read_dataset(header) for path, header in headers.items()},
        )


def frame_chooser(cine: np.ndarray, resampled: Callable[[np.ndarray], Tensor]) -> Callable[[int, int], Tensor]:
    """The function ``with_frames`` of a :class:`LoadedStudy`, for a cine (X, Y, Z, T)."""
    return lambda ed, es: resampled(np.stack([cine[..., ed], cine[..., es]]))


def _whole(
    voxels: np.ndarray,
    affine: np.ndarray,
    choice: FrameChoice,
    classifier: TakesStudies,
    *,
    stored: np.ndarray,
    origin: Path,
) -> LoadedStudy:
    """The study of a whole cine (X, Y, Z, T), of which two frames are chosen."""
    ed, es = (make_frame(np.ascontiguousarray(voxels[..., frame]), affine, origin) for frame in (choice.ed, choice.es))
    loaded = _joined(ed, es, classifier, stored=stored)
    assert loaded.resampled is not None
    return replace(
        loaded,
        frames=choice,
        doubts=(*choice.doubts, *loaded.doubts),
        cine=voxels,
        with_frames=frame_chooser(voxels, loaded.resampled),
    )


def _joined(ed: Frame, es: Frame, classifier: TakesStudies, *, stored: np.ndarray) -> LoadedStudy:
    """The study of two frames; ``stored`` is the affine of the file's own order of axes."""
    frames, affine = join_frames(ed, es)
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0).tolist()
    doubts = [*cine_doubts(frames, spacing=(x, y, z)), *affine_doubts(affine)]
    if classifier.takes_affine:
        doubts += view_doubts(affine, frames.shape[1:])
    image, image_affine = _resampled(frames, affine, classifier, stored=stored)
    return LoadedStudy(
        image=image,
        cine=np.moveaxis(frames, 0, -1),
        cine_affine=affine,
        image_affine=image_affine,
        orientation="known" if is_known(torch.from_numpy(affine), list(frames.shape[1:])) else "placeholder",
        resampled=lambda others: _resampled(others, affine, classifier, stored=stored)[0],
        doubts=tuple(doubts),
    )


def _resampled(
    frames: np.ndarray, affine: np.ndarray, classifier: TakesStudies, *, stored: np.ndarray
) -> tuple[Tensor, np.ndarray]:
    """Both frames (2, X, Y, Z) resampled as the model takes them, and their affine.

    A bundle that takes no affine gets them in the file's own order of axes, resampled by MONAI.
    """
    if classifier.resampling is None:
        image, moved = resample(torch.from_numpy(frames), torch.from_numpy(affine), list(classifier.spacing or ()))
        return image, moved.numpy()
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    voxels, matrix = orient_like(frames, affine, stored)
    found: Any = Spacing(**classifier.resampling)(MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(matrix)))
    return found.as_tensor(), found.affine.numpy()
