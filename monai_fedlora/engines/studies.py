"""Find the studies to predict: a folder of ED/ES pairs, or a split of a datalist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai_fedlora.engines.config import open_datalist
from monai_fedlora.errors import DataError

_PAIR = re.compile(r"(?P<study>.+)_(?P<frame>ed|es)\.nii(\.gz)?", re.IGNORECASE)


def find_studies(path: str | Path, *, split: str = "test") -> list[dict[str, Any]]:
    """List the studies under ``path`` as MONAI dictionaries.

    Args:
        path: a folder with ``<study>_ed.nii.gz`` and ``<study>_es.nii.gz`` (or ``.nii``) for every study; or a
            ``datalist.json``, or a folder that holds one.
        split: which split of a datalist.

    Returns:
        Dictionaries with ``subject``, ``ed`` and ``es`` for a folder, in order of the study's name; for a
        datalist its items.

    Raises:
        DataError: there is no study, or a frame of one is missing or there twice.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; give a folder of studies or a datalist.json")
    if path.is_file() or (path / "datalist.json").is_file():
        items: list[dict[str, Any]] = open_datalist(path).items(split)
        if not items:
            raise DataError(f"the {split} split of {path} is empty")
        return items
    studies: dict[str, dict[str, str]] = {}
    for file in sorted(path.iterdir()):
        match = _PAIR.fullmatch(file.name)
        if not match or file.name.startswith("."):
            continue
        frames = studies.setdefault(match["study"], {})
        frame = match["frame"].lower()
        if frame in frames:
            raise DataError(f"{path}: study {match['study']} has its {frame} frame twice; keep one of the files")
        frames[frame] = str(file.absolute())
    if not studies:
        raise DataError(f"{path} holds no study; name the files <study>_ed.nii.gz and <study>_es.nii.gz")
    for study, frames in studies.items():
        if missing := {"ed", "es"} - frames.keys():
            raise DataError(f"{path}: study {study} lacks its {missing.pop()} frame")
    return [{"subject": study, **frames} for study, frames in sorted(studies.items())]
