"""Make one study of the files of one upload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.check.plain_zip import Limits, open_archive
from monai_fedlora.files import open_new
from monai_fedlora.formats.dicom_files import is_dicom
from monai_fedlora.serve.disk import Share
from monai_fedlora.serve.names import ZIP, is_hidden, loose_name, shown_name, stem, stored_suffix
from monai_fedlora.serve.refusal import BAD_REQUEST, WRONG_TYPE, Refused
from monai_fedlora.serve.uploads import Received, StoredFile
from monai_fedlora.studies.finding import count_and_name
from monai_fedlora.studies.nifti_studies import INFO, NIFTI, arrange_volumes
from monai_fedlora.studies.study import CINE, CineFile, DicomFiles, LeftOut, Study, Unusable
from monai_fedlora.studies.zipped import MAXIMUM_FILES, member_name

_CHUNK = 1 << 20
_INFO_BYTES = 1 << 16
_PASSED_OVER = "of no kind that the model takes"


def make_study(
    received: Received, *, modality: str, folder: Path, limit: int, share: Share
) -> tuple[Study, tuple[StoredFile, ...]]:
    """Make a study of uploaded files; an archive is unpacked.

    Args:
        received: the uploaded files.
        modality: what the model takes, "cine" or "image".
        folder: of the files; a DICOM study consists of all files in it.
        limit: bytes that an archive may have, unpacked.
        share: disk space of the study, to which unpacked files are added.

    Returns:
        The study, and its files with their original names.

    Raises:
        Refused: there is nothing that the model takes, or several studies; or an archive is damaged or dangerous.
    """
    study, files = _make_study(received, modality=modality, folder=folder, limit=limit, share=share)
    passed_over = [LeftOut(name, _PASSED_OVER) for name in received.passed_over if not is_hidden(name)]
    return replace(study, quotes=(*study.quotes, *_quotes(passed_over))), files


def _make_study(
    received: Received, *, modality: str, folder: Path, limit: int, share: Share
) -> tuple[Study, tuple[StoredFile, ...]]:
    files = list(received.files)
    if not files:
        raise Refused(WRONG_TYPE, f"{_nothing(received.passed_over)}; {_takes(modality)}")
    if modality != CINE:
        if len(files) > 1:
            raise Refused(BAD_REQUEST, f"{len(files)} photographs arrived as one study; send each by itself")
        return Study(stem(files[0].name), Photograph(files[0].path)), tuple(files)
    archives = [file for file in files if file.path.name.endswith(ZIP)]
    if not archives:
        return _cine(files, _name_of(files), folder), tuple(files)
    if len(files) > 1:
        raise Refused(BAD_REQUEST, "an archive arrived together with other files; send one study at a time")
    files = unpack(archives[0], folder, limit, share)
    if not files:
        raise Refused(BAD_REQUEST, f"{archives[0].name} holds no file that the model takes; {_takes(modality)}")
    return _cine(files, stem(archives[0].name), folder), (*archives, *files)


def unpack(archive: StoredFile, folder: Path, limit: int, share: Share) -> list[StoredFile]:
    """Unpack the members of an archive that may belong to a study, under numbers, and remove the archive.

    Raises:
        Refused: it is damaged, encrypted, too large for a study or for the remaining disk space, or holds a link, a zip
            bomb or a name that leads outside.
    """
    files: list[StoredFile] = []
    try:
        with (
            archive.path.open("rb") as stream,
            open_archive(stream, Limits(members=MAXIMUM_FILES, size=limit, named=False)) as source,
        ):
            for member in source.infolist():
                name = shown_name(member_name(member))
                suffix = None if member.is_dir() or is_hidden(name) else stored_suffix(name, CINE)
                if suffix is None or suffix == ZIP:
                    continue
                files.append(StoredFile(folder / f"m{len(files):06d}{suffix}", name))
                with source.open(member) as packed, open_new(files[-1].path) as plain:
                    while chunk := packed.read(_CHUNK):
                        share.take(len(chunk))
                        plain.write(chunk)
    except ExportError as error:
        raise Refused(BAD_REQUEST, f"{archive.name} cannot be used: {error}; make the archive again") from error
    size = archive.path.stat().st_size
    archive.path.unlink()
    share.give_back(size)
    return files


def _cine(files: Sequence[StoredFile], name: str, folder: Path) -> Study:
    volumes = [file for file in files if file.path.name.endswith(NIFTI)]
    if not volumes:
        if not any(is_dicom(file.path) for file in files):
            raise Refused(WRONG_TYPE, f"none of {_count(len(files))} is a DICOM image; {_takes(CINE)}")
        return Study(name, DicomFiles(folder, names=tuple((file.path.name, file.name) for file in files)))
    if any(is_dicom(file.path) for file in files if file not in volumes):
        raise Refused(BAD_REQUEST, "DICOM and NIfTI files arrived together; send one study at a time")
    return _volumes(volumes, [file for file in files if PurePosixPath(file.name).name == INFO])


def _volumes(volumes: Sequence[StoredFile], info: Sequence[StoredFile]) -> Study:
    places = {Path(file.name): file.path for file in volumes}
    read_info = (lambda: info[0].path.read_bytes()[:_INFO_BYTES].decode("utf-8-sig", "replace")) if info else None
    arranged = arrange_volumes(sorted(places), read_info=read_info)
    if len(arranged.studies) == 1 and len(places) == len(volumes):
        (names, files), left_out = arranged.studies[0], arranged.left_out
        quotes = _quotes([LeftOut(str(path), reason) for path, reason in left_out.items()])
        if isinstance(files, Unusable):
            raise Refused(BAD_REQUEST, files.reason)
        if isinstance(files, CineFile):
            return Study(names[0], CineFile(places[files.file], files.frames), quotes)
        if isinstance(files, FramePair) and {files.ed, files.es} <= places.keys():
            return Study(names[0], FramePair(places[files.ed], places[files.es]), quotes)
    if len(volumes) == 1:
        raise Refused(BAD_REQUEST, f"{volumes[0].name} is one of two frames; send NAME_ed and NAME_es together")
    raise Refused(
        BAD_REQUEST,
        f"{len(volumes)} NIfTI files arrived as one study; send one 4D cine, or NAME_ed and NAME_es with the same NAME",
    )


def _quotes(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    """A sentence on files that were sent and not used."""
    return (f"left out: {count_and_name(left_out)}",) if left_out else ()


def _name_of(files: Sequence[StoredFile]) -> str:
    """Name of the study: that of the folder that was sent, or made of the names of single files."""
    first, slash, _ = files[0].name.partition("/")
    return first if slash else loose_name([file.name for file in files])


def _nothing(passed_over: Sequence[str]) -> str:
    if not passed_over:
        return "no file arrived"
    return (
        f"{passed_over[0]} is not of a kind that the model takes"
        if len(passed_over) == 1
        else (f"none of {_count(len(passed_over))} is of a kind that the model takes")
    )


def _takes(modality: str) -> str:
    if modality == CINE:
        return "send a DICOM study (its files, or a zip of them), a 4D NIfTI cine, or NAME_ed and NAME_es NIfTI files"
    return "send a JPEG, PNG or TIFF photograph"


def _count(number: int) -> str:
    return "the one file" if number == 1 else f"the {number} files"
