"""Read a csv that lists studies."""

from __future__ import annotations

import os
from pathlib import Path

from monai_fedlora.data.records import FramePair, Photograph
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import Row, read_header_row, read_rows
from monai_fedlora.studies.naming import names_of_file, names_of_row
from monai_fedlora.studies.study import CineFile, DicomFiles, Files, Unusable

_COLUMNS = ("ed", "es", "cine", "image", "folder")


def read_list(table: Path) -> list[tuple[tuple[str, ...], Files]]:
    """Read a csv with a column ``study`` and, per line, ``ed`` and ``es``, or ``cine``, ``image`` or ``folder``.

    Paths are relative to the csv; ``folder`` may be a zip archive. On a line with ``cine`` or ``folder``, the columns
    ``ed_frame`` and ``es_frame`` may give the frames, counted from 0. A line with no image, with several kinds of
    images or without a study is an unusable study and does not affect the others. A csv of photographs may lack the
    column ``study``; then each study has the name of its file.

    Returns:
        The possible names of each study, shortest first, and its files, in the order of the lines.

    Raises:
        DataError: the csv cannot be read, or has no such columns.
    """
    found: list[tuple[int, tuple[str, ...], Files]] = []

    columns = read_header_row(table)
    unnamed = "image" in columns and "study" not in columns

    def keep(row: Row, files: Files) -> None:
        named = names_of_file(files.file, files.file.suffix) if unnamed and isinstance(files, Photograph) else None
        found.append((int(row.origin.rpartition(":")[2]), named or names_of_row(row), files))

    for row in read_rows(
        table,
        required=[] if unnamed else ["study"],
        on_bad=lambda origin, fault: keep(Row(origin, {}), Unusable(fault)),
    ):
        try:
            if not unnamed:
                row.text("study")
            keep(row, _listed(row, table.parent))
        except DataError as error:
            keep(row, Unusable(str(error)))
    return [(names, files) for _, names, files in sorted(found, key=lambda entry: entry[0])]


def _listed(row: Row, folder: Path) -> Files:
    given = [column for column in _COLUMNS if row.cells.get(column)]

    def file(column: str) -> Path:
        return Path(os.path.abspath(folder / row.text(column)))

    if given == ["ed", "es"]:
        return FramePair(file("ed"), file("es"))
    if given == ["image"]:
        return Photograph(file("image"))
    if given == ["cine"]:
        return CineFile(file("cine"), _frames(row))
    if given == ["folder"]:
        return DicomFiles(file("folder"), _frames(row))
    raise DataError(
        f"{row.origin}: give ed and es, or cine, image or folder, and leave the other columns empty; "
        f"given: {', '.join(given) or 'none'}"
    )


def _frames(row: Row) -> tuple[int, int] | None:
    if not (row.cells.get("ed_frame") or row.cells.get("es_frame")):
        return None
    return row.integer("ed_frame"), row.integer("es_frame")
