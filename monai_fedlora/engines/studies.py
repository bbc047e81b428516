"""What a training bundle's inference predicts: a split of a datalist, or the studies that are found."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from monai_fedlora.data.datalist import FILE_NAME
from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.engines.config import open_datalist
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.studies import finding
from monai_fedlora.studies.study import CINE, IMAGE, CineFile, Study, Unusable

_log = logging.getLogger(__name__)


def find_studies(path: str | Path, *, split: str = "test", modality: str = CINE) -> list[dict[str, Any]]:
    """List the studies under ``path`` as MONAI dictionaries.

    Args:
        path: a ``datalist.json``, or a folder that holds one; else what
            :func:`monai_fedlora.studies.finding.find_studies` takes, with frames that are known.
        split: which split of a datalist.
        modality: what the network takes, "cine" or "image".

    Returns:
        For a datalist its items. Otherwise dictionaries with ``subject``, the study's name, and the files: ``ed`` and
        ``es``, or ``cine`` with ``ed_frame`` and ``es_frame``, of a cine; ``image`` of a photograph.

    Raises:
        ConfigError: there is no such modality.
        DataError: there is no study, or one that cannot be used; files that belong to none are logged.
    """
    if modality not in (CINE, IMAGE):
        raise ConfigError(f"there is no modality {modality!r}; choose {CINE} or {IMAGE}")
    path = Path(path)
    if path.suffix.lower() == ".json" or (path / FILE_NAME).is_file():
        items: list[dict[str, Any]] = open_datalist(path).items(split)
        if not items:
            raise DataError(f"the {split} split of {path} is empty")
        return items
    found = finding.find_studies([path], modality=modality)
    if found.left_out:
        _log.warning("left out: %s", finding.count_and_name(found.left_out))
    return [{"subject": study.name, **_files(study, path)} for study in found.studies]


def _files(study: Study, origin: Path) -> dict[str, Any]:
    match study.files:
        case FramePair(ed, es):
            files: dict[str, Any] = {"ed": str(ed), "es": str(es)}
        case CineFile(file, (ed_frame, es_frame)):
            files = {"cine": str(file), "ed_frame": ed_frame, "es_frame": es_frame}
        case Photograph(file):
            files = {"image": str(file)}
        case Unusable(reason):
            raise DataError(reason)
        case _:
            raise DataError(
                f"{origin}: {study.name} is no pair of NIfTI frames, no 4D file with known frames and no photograph, "
                "or lies in an archive; export the model, with which monai-fedlora predict reads others too"
            )
    if gone := [str(file) for file in files.values() if isinstance(file, str) and not Path(file).is_file()]:
        raise DataError(f"{gone[0]} does not exist, which {study.name} names; copy it, or delete its line")
    return files
