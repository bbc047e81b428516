"""Find the photographs that a list names, and check their headers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from monai_fedlora.data.records import Photograph
from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.errors import DataError
from monai_fedlora.formats.image_header import check_image_header
from monai_fedlora.formats.photograph_file import SUFFIXES


@dataclass(frozen=True, slots=True)
class Listed:
    """A photograph that a list names.

    Attributes:
        origin: file and line of the list, for messages.
        folder: folder of the photograph.
        name: file name; its suffix may be missing or differ from that of the file.
    """

    origin: str
    folder: Path
    name: str


def find_photographs(listed: Sequence[Listed]) -> list[Photograph]:
    """Return the file of every listed photograph; each folder is listed once.

    A file has the listed name, or the same name with another suffix, such as ``.JPG`` for ``.jpeg``.

    Raises:
        DataError: photographs are missing (the message names the first and gives their number), two files match one
            name, or a file is damaged or not a photograph.
    """
    folders = {folder: _files(folder) for folder in {entry.folder for entry in listed}}
    found = [folders[entry.folder].get(stem(entry.name), []) for entry in listed]
    missing = [entry for entry, files in zip(listed, found, strict=True) if not files]
    if missing:
        raise DataError(
            f"{missing[0].origin}: {missing[0].folder / missing[0].name} does not exist (suffixes "
            f"{', '.join(SUFFIXES)}); {len(missing)} of {len(listed)} listed images are missing, so copy them or "
            "delete their lines"
        )
    return [_photograph(entry, files) for entry, files in zip(listed, found, strict=True)]


def stem(name: str) -> str:
    """Return a file name without its suffix, if that is one of a photograph; other dots belong to the name."""
    return Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name


def _photograph(entry: Listed, files: Sequence[Path]) -> Photograph:
    exact = [file for file in files if file.name == entry.name] or files
    if len(exact) > 1:
        raise DataError(f"{entry.origin}: {exact[0]} and {exact[1]} have the same name; keep one of the two")
    check_image_header(exact[0])
    return Photograph(exact[0])


def _files(folder: Path) -> dict[str, list[Path]]:
    """Return the photographs of a folder by their names without suffix; empty if there is no such folder."""
    files: dict[str, list[Path]] = defaultdict(list)
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in SUFFIXES and not is_of_system(PurePath(path.name)):
                files[path.stem].append(path)
    return files
