"""Find what to predict: a folder of ED/ES pairs or photographs, a csv of photographs, or a split of a datalist."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from monai_fedlora.data.system_files import is_of_system
from monai_fedlora.engines.config import open_datalist
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.formats.photograph_file import SUFFIXES
from monai_fedlora.formats.rows import read_rows

_PAIR = re.compile(r"(?P<study>.+)_(?P<frame>ed|es)\.nii(\.gz)?", re.IGNORECASE)
_DATALIST = "datalist.json"


def find_studies(path: str | Path, *, split: str = "test", modality: str = "cine") -> list[dict[str, Any]]:
    """List the studies under ``path`` as MONAI dictionaries.

    Args:
        path: a ``datalist.json``, or a folder that holds one. For cines else a folder with ``<study>_ed.nii.gz`` and
            ``<study>_es.nii.gz`` (or ``.nii``) for every study. For photographs else a folder with JPEG, PNG or TIFF
            files, or a csv with a column ``image``, whose paths are relative to it.
        split: which split of a datalist.
        modality: what the network takes, "cine" or "image".

    Returns:
        For a datalist its items. Otherwise dictionaries with ``subject`` and the files, in order of the subject:
        ``ed`` and ``es`` of a cine; ``image`` of a photograph, whose subject is the file's name without its ending.

    Raises:
        ConfigError: there is no such modality.
        DataError: there is no study, a frame of one is missing or there twice, or two photographs have one name.
    """
    if modality not in ("cine", "image"):
        raise ConfigError(f"there is no modality {modality!r}; choose cine or image")
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; give a folder of studies or a {_DATALIST}")
    if modality == "image" and path.is_file() and path.suffix.lower() == ".csv":
        return _named_once(_listed(path), path)
    if path.is_file() or (path / _DATALIST).is_file():
        items: list[dict[str, Any]] = open_datalist(path).items(split)
        if not items:
            raise DataError(f"the {split} split of {path} is empty")
        return items
    return _pairs(path) if modality == "cine" else _named_once(_photographs(path), path)


def _pairs(folder: Path) -> list[dict[str, Any]]:
    studies: dict[str, dict[str, str]] = {}
    for file in sorted(folder.iterdir()):
        match = _PAIR.fullmatch(file.name)
        if not match or is_of_system(Path(file.name)):
            continue
        frames = studies.setdefault(match["study"], {})
        frame = match["frame"].lower()
        if frame in frames:
            raise DataError(f"{folder}: study {match['study']} has its {frame} frame twice; keep one of the files")
        frames[frame] = str(file.absolute())
    if not studies:
        raise DataError(f"{folder} holds no study; name the files <study>_ed.nii.gz and <study>_es.nii.gz")
    for study, frames in studies.items():
        if missing := {"ed", "es"} - frames.keys():
            raise DataError(f"{folder}: study {study} lacks its {missing.pop()} frame")
    return [{"subject": study, **frames} for study, frames in sorted(studies.items())]


def _photographs(folder: Path) -> list[Path]:
    found = [
        file.absolute()
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not is_of_system(Path(file.name)) and file.is_file()
    ]
    if not found:
        raise DataError(f"{folder} holds no photograph; their names end in {', '.join(SUFFIXES)}")
    return found


def _listed(table: Path) -> list[Path]:
    found = []
    for row in read_rows(table, required=["image"]):
        file = Path(os.path.abspath(table.parent / row.text("image")))
        if not file.is_file():
            raise DataError(f"{row.origin}: image {file} does not exist; paths are relative to the csv")
        found.append(file)
    return found


def _named_once(files: Iterable[Path], origin: Path) -> list[dict[str, Any]]:
    by_subject: dict[str, Path] = {}
    for file in sorted(files):
        if other := by_subject.get(file.stem):
            raise DataError(
                f"{origin}: {other.name} and {file.name} would both be called {file.stem!r} in the predictions; rename "
                "or remove one"
            )
        by_subject[file.stem] = file
    return [{"subject": subject, "image": str(file)} for subject, file in sorted(by_subject.items())]
