"""Find the studies to classify in files, folders of any depth, zip archives and csv lists."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from monai_fedlora.data.isic_files import masked_image
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.formats.photograph_file import SUFFIXES
from monai_fedlora.studies.dicom_studies import NAMELESS, OTHERS, group_by_study
from monai_fedlora.studies.listing import OF_SYSTEM, Listing, Read, list_archive, list_folder
from monai_fedlora.studies.naming import names_of_file, names_of_folder, printable, told_apart
from monai_fedlora.studies.nifti_studies import INFO, Arranged, arrange_volumes, ending_of
from monai_fedlora.studies.study import (
    CINE,
    CineFile,
    DicomFiles,
    Files,
    LeftOut,
    Packed,
    Study,
    Unusable,
    moved,
    paths_of,
)
from monai_fedlora.studies.study_list import read_list
from monai_fedlora.studies.zipped import is_archive, unpacked

OTHER_PHOTOGRAPHS = frozenset(
    f".{ending}"
    for ending in (
        "3fr", "arw", "avif", "bmp", "cr2", "cr3", "dcm", "dib", "dng", "eps", "gif", "heic", "heif", "ico", "j2k",
        "jp2", "jpf", "jpx", "jxl", "nef", "orf", "pbm", "pcx", "pgm", "ppm", "psd", "raf", "raw", "rw2", "svg", "tga",
        "wdp", "webp",
    )
)  # fmt: skip
"""Endings of image formats that are not read; such a file beside photographs is reported as an unusable study."""
_INFO_BYTES = 1 << 16
_NAMELESS = "DICOM without a StudyInstanceUID, so that nothing says what belongs together; export it again"
_CHOSEN = 3
BESIDE = "left out beside it: "
"""Start of the note on files beside a study that were left out."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        studies: in the order given, those of a folder in alphabetical order; no two have the same name.
        left_out: the files in folders and archives that belong to no study.
    """

    studies: tuple[Study, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass
class _Search:
    """The state of a search: the possible names and the files of each study found so far, and what was left out."""

    modality: str
    on_file: Callable[[int], None]
    studies: list[tuple[tuple[str, ...], Files]] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    arranged: dict[Path, Arranged] = field(default_factory=dict)
    quotes: dict[Files, str] = field(default_factory=dict)


def find_studies(
    inputs: Sequence[str | Path], *, modality: str, on_file: Callable[[int], None] = lambda count: None
) -> Found:
    """List the studies that are given.

    A cine study is ``<study>_ed.nii.gz`` with ``<study>_es.nii.gz`` (or ``.nii``), of which one is enough as input; a
    patient's numbered frames or 4D file beside ACDC's ``Info.cfg``; any other NIfTI file, as a 4D cine; or the DICOM
    files with the same StudyInstanceUID. A photograph is a file with one of :data:`SUFFIXES`. An input can also be a
    folder or zip archive with such files, at any depth, of one or several patients, or a csv, see
    :func:`monai_fedlora.studies.study_list.read_list`.

    Images are opened later, so that a damaged one does not affect other studies. Inputs that are not usable as a study
    are returned as studies with :class:`~monai_fedlora.studies.study.Unusable`; all other files belong to a study or
    are left out.

    Args:
        inputs: paths.
        modality: the model's input, "cine" or "image".
        on_file: called with the number of DICOM files whose headers have been read so far.

    Raises:
        DataError: an input does not exist, or there is no usable study; the message says why.
    """
    if absent := [str(path) for path in inputs if not Path(path).exists()]:
        raise DataError(f"{printable(', '.join(absent[:_CHOSEN]))} does not exist; is the name mistyped?")
    search = _Search(modality, on_file)
    for path in map(Path, inputs):
        before, left = len(search.studies), len(search.left_out)
        try:
            _look_at(path, search)
        except DataError as error:
            search.studies.append((names_of_file(path, ""), Unusable(str(error))))
        if len(search.studies) == before and (path.is_dir() or is_archive(path)):
            search.studies.append((names_of_folder(path.resolve()), Unusable(_nothing(path, search))))
        if len(search.studies) == before + 1:
            beside = [entry for entry in search.left_out[left:] if entry.reason != OF_SYSTEM]
            if beside:
                search.quotes[search.studies[-1][1]] = f"{BESIDE}{count_and_name(beside)}"
    studies = _named(search.studies, search.quotes)
    reasons = [study.files.reason for study in studies if isinstance(study.files, Unusable)]
    if len(reasons) == len(studies):
        more = f"; and {len(reasons) - _CHOSEN} more" if len(reasons) > _CHOSEN else ""
        lost = [f"{entry.file}: {entry.reason}" for entry in search.left_out if not reasons]
        said = "; ".join([*reasons[:_CHOSEN], *lost[:_CHOSEN]]) or "no input was given"
        raise DataError(f"there is nothing to classify: {printable(said)}{more}")
    return Found(tuple(studies), tuple(search.left_out))


def count_and_name(left_out: Sequence[LeftOut]) -> str:
    """For each reason: how many files were left out, and the first of them."""
    reasons: dict[str, list[str]] = defaultdict(list)
    for entry in left_out:
        reasons[entry.reason].append(entry.file)
    return "; ".join(
        f"{len(files)} {'file' if len(files) == 1 else 'files'} ({', '.join(files[:_CHOSEN])}"
        f"{', ...' if len(files) > _CHOSEN else ''}): {reason}"
        for reason, files in reasons.items()
    )


def _named(found: Sequence[tuple[tuple[str, ...], Files]], quotes: Mapping[Files, str]) -> list[Study]:
    """Name the studies; a study that was given twice is kept once, the same images under two names are two studies."""
    different = {(names[0], files): names for names, files in reversed(found)}
    ordered = list(dict.fromkeys((names[0], files) for names, files in found))
    chosen = told_apart([different[entry] for entry in ordered])
    return [
        Study(name, files, (quotes[files],) if files in quotes else ())
        for name, (_, files) in zip(chosen, ordered, strict=True)
    ]


def _look_at(path: Path, search: _Search) -> None:
    if path.suffix.lower() == ".csv" and path.is_file():
        search.studies += read_list(path)
    elif path.is_dir():
        _arrange(list_folder(path), search)
    elif is_archive(path):
        _arrange(list_archive(path), search)
    elif search.modality != CINE:
        search.studies.append((names_of_file(path, path.suffix), Photograph(path)))
    elif ending_of(path):
        _arrange_volume(path, search)
    else:
        search.studies.append((names_of_file(path, path.suffix), DicomFiles(path)))


def _arrange_volume(path: Path, search: _Search) -> None:
    """A single NIfTI file belongs to the study that it would belong to if its folder had been given."""
    if path.parent not in search.arranged:
        beside = sorted(
            other for other in path.parent.iterdir() if ending_of(other) and not is_of_system(PurePosixPath(other.name))
        )
        info = path.parent / INFO
        search.arranged[path.parent] = arrange_volumes(
            [other for other in beside if other.is_file()],
            read_info=(lambda: _text(info.read_bytes())) if info.is_file() else None,
        )
    arranged = search.arranged[path.parent]
    if "segmentation" in (reason := arranged.left_out.get(path, "")):
        search.left_out.append(LeftOut(printable(str(path)), reason))
        return
    whose = [entry for entry in arranged.studies if path in _volumes(entry[1])]
    lone = (names_of_file(path, ending_of(path)), CineFile(path))
    if not whose and path in arranged.used:
        whose = [entry for entry in arranged.studies if isinstance(entry[1], Unusable) and path.name in entry[1].reason]
    search.studies.append(whose[0] if whose else lone)


def _arrange(listing: Listing, search: _Search) -> None:
    search.left_out += listing.left_out
    with listing.reader() as read:
        if search.modality == CINE:
            _arrange_cines(listing, read, search)
        else:
            _arrange_photographs(listing, search)
    for file in listing.files:
        if is_archive(file):
            if listing.is_archive:
                search.left_out.append(LeftOut(listing.shown(file), "an archive in an archive; unpack it"))
            else:
                _arrange_inner(listing.origin / file, search)


def _arrange_inner(archive: Path, search: _Search) -> None:
    before = len(search.studies)
    try:
        _arrange(list_archive(archive), search)
    except DataError as error:
        search.studies.append((names_of_file(archive, archive.suffix), Unusable(str(error))))
    if len(search.studies) == before:
        search.studies.append((names_of_file(archive, archive.suffix), Unusable(_nothing(archive, search))))


def _arrange_photographs(listing: Listing, search: _Search) -> None:
    pictures = {file.with_suffix("") for file in listing.files if file.suffix.lower() in SUFFIXES}
    for file in listing.files:
        ending = file.suffix.lower()
        if ending in SUFFIXES:
            if (image := masked_image(file)) is not None and file.with_name(image) in pictures:
                search.left_out.append(LeftOut(listing.shown(file), "a segmentation of another file"))
                continue
            found: Files = Photograph(Path(file))
        elif ending in OTHER_PHOTOGRAPHS:
            found = Unusable(
                f"{listing.origin / file} is a picture of a format that is not read ({ending}); save it as JPEG, PNG "
                "or TIFF"
            )
        else:
            if not is_archive(file):
                search.left_out.append(LeftOut(listing.shown(file), "no photograph, by the ending of its name"))
            continue
        _add(listing, names_of_file(file, file.suffix), found, search)


def _arrange_cines(listing: Listing, read: Read, search: _Search) -> None:
    folders: dict[PurePosixPath, list[Path]] = defaultdict(list)
    rest: list[PurePosixPath] = []
    for file in listing.files:
        if ending_of(file):
            folders[file.parent].append(Path(file))
        elif not is_archive(file):
            rest.append(file)
    for folder, volumes in folders.items():
        info = folder / INFO
        read_info = (lambda info=info: _text(read(info, _INFO_BYTES))) if info in rest else None
        arranged = arrange_volumes(volumes, read_info=read_info)
        if read_info is not None:
            rest.remove(info)
        for names, files in arranged.studies:
            _add(listing, names, files, search)
        search.left_out += [
            LeftOut(listing.shown(PurePosixPath(file)), reason) for file, reason in arranged.left_out.items()
        ]
    _arrange_dicom(listing, rest, search, alone=not folders and not any(map(is_archive, listing.files)))


def _arrange_dicom(listing: Listing, files: Sequence[PurePosixPath], search: _Search, *, alone: bool) -> None:
    """DICOM files, one study for each StudyInstanceUID.

    Args:
        listing: the folder or archive.
        files: those of its files that may be DICOM.
        search: gets the studies.
        alone: whether the listing has no other studies.
    """
    if not files:
        return
    try:
        groups = _grouped(listing, files, search.on_file)
    except ConfigError:  # that pydicom is missing is reported when the study is read
        groups = {"unknown": list(files)}
    others = dict.fromkeys(groups.pop(OTHERS, []), "neither NIfTI nor readable DICOM")
    others |= dict.fromkeys(groups.pop(NAMELESS, []), _NAMELESS)
    if alone and len(groups) == 1:
        search.studies.append((_names_of_all(listing), DicomFiles(listing.origin)))  # its reader reports other files
        return
    owners: dict[PurePosixPath, set[str]] = defaultdict(set)
    for uid, members in groups.items():
        for folder in {folder for member in members for folder in member.parents}:
            owners[folder].add(uid)
    for file, reason in others.items():
        if len(owners[file.parent]) == 1:  # a damaged file of this study, or a text beside it: its reader reports it
            groups[next(iter(owners[file.parent]))].append(file)
        else:
            search.left_out.append(LeftOut(listing.shown(file), reason))
    for members in groups.values():
        own = [folder for folder in reversed(members[0].parents) if len(owners[folder]) == 1]
        names = names_of_folder(own[0]) if own and own[0].parts else _names_of_all(listing)
        _add(listing, names, DicomFiles(listing.origin, members=tuple(map(str, sorted(members)))), search)


def _grouped(
    listing: Listing, files: Sequence[PurePosixPath], on_file: Callable[[int], None]
) -> dict[str, list[PurePosixPath]]:
    with contextlib.ExitStack() as stack:
        if listing.is_archive:
            places = stack.enter_context(unpacked(listing.origin, files))
        else:
            places = {file: listing.origin / file for file in files}
        back = {place: file for file, place in places.items()}

        def counted() -> Iterator[Path]:
            for count, place in enumerate(back, 1):
                on_file(count)
                yield place

        groups = group_by_study(counted())
        return {uid: [back[place] for place in group] for uid, group in groups.items()}


def _add(listing: Listing, names: tuple[str, ...], files: Files, search: _Search) -> None:
    whole = _names_of_all(listing)
    search.studies.append(((*names, *(f"{longer}/{names[-1]}" for longer in whole)), _placed(listing, files)))


def _names_of_all(listing: Listing) -> tuple[str, ...]:
    path = listing.origin.absolute()
    return names_of_folder(path.with_suffix("") if listing.is_archive else path.resolve())


def _placed(listing: Listing, files: Files) -> Files:
    """The same files by their full paths, or as files of the archive."""
    if isinstance(files, (DicomFiles, Unusable, Packed)):
        return files
    if listing.is_archive:
        return Packed(listing.origin, files)
    return moved(files, lambda path: listing.origin / path)


def _volumes(files: Files) -> tuple[Path, ...]:
    return paths_of(files) if isinstance(files, (FramePair, CineFile)) else ()


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig", "replace")


def _nothing(path: Path, search: _Search) -> str:
    takes = "short-axis cine (NIfTI or DICOM)" if search.modality == CINE else f"photograph ({', '.join(SUFFIXES)})"
    inside = [entry for entry in search.left_out if entry.file.startswith(printable(str(path)))]
    holds = f"{len(inside)} other files, such as {inside[0].file}" if inside else "no file"
    nameless = [entry for entry in inside if entry.reason == _NAMELESS]
    more = f". Of these, {count_and_name(nameless)}" if nameless else ""
    return f"{path} holds no {takes}; it holds {holds}{more}"
