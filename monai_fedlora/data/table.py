"""Read a csv of any hospital: one line per patient or photograph with subject, label and image files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.data.records import (
    Cine,
    FramePair,
    Masks,
    Photograph,
    Record,
    check_unique,
    cine_geometry,
    pair_geometry,
)
from monai_fedlora.data.table_words import settle_codes, settle_labels
from monai_fedlora.errors import DataError
from monai_fedlora.formats.image_header import check_image_header
from monai_fedlora.formats.rows import Row, read_header_row, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of the columns of the csv (defaults ours).

    A line gives its images as one photograph (``image``), as two 3D files (``ed_image``, ``es_image``) or as one 4D
    file (``cine``) with two frame numbers (``ed``, ``es``).

    Attributes:
        subject: column of the patient's code, or of a code of each photograph; a csv of photographs may lack the column
            ``subject``, and then the path of the file is the code.
        site: column of the site; None for a csv of one site.
        unit: column of the patient or lesion of a photograph. The csv may lack the column ``unit``, but not a column of
            another name that is given here.
        first_frame: number of the first frame of a 4D file, 0 or 1.
        mask_values: the value of every structure in the mask files, by its name; () where the csv has no masks. Masks
            stand in the columns ``ed_mask`` and ``es_mask`` (3D files), or ``mask`` beside ``cine`` (4D) or ``image``;
            a patient without any has none. Such a csv may lack the column of the label.
        values: columns of numbers, one for each patient or photograph; such a csv may lack that column too.
    """

    subject: str = "subject"
    label: str = "label"
    site: str | None = "site"
    image: str = "image"
    unit: str = "unit"
    ed_image: str = "ed_image"
    es_image: str = "es_image"
    cine: str = "cine"
    ed: str = "ed"
    es: str = "es"
    mask: str = "mask"
    ed_mask: str = "ed_mask"
    es_mask: str = "es_mask"
    first_frame: int = 0
    mask_values: tuple[tuple[str, int], ...] = ()
    values: tuple[str, ...] = ()


def read_table(source: Path, columns: Columns | None = None) -> list[Record]:
    """Read every patient of a csv.

    Args:
        source: the csv; its image paths are relative to its folder or absolute.
        columns: the names of its columns.

    Returns:
        Records sorted by subject; ``centre`` is the site column, ``group`` the label column. Labels that differ only in
        capitals are the same, ``3.0`` is ``3``, and codes are read as whole numbers where all of them are.

    Raises:
        DataError: a column, cell or image is missing or wrong, or a patient or photograph occurs twice.
    """
    columns = columns or Columns()
    head = read_header_row(source)
    labels = columns.label in head or columns.label != Columns().label or not (columns.mask_values or columns.values)
    required = [columns.label] * labels + ([columns.site] if columns.site else [])
    required += columns.values
    pairs = zip(("mask", "ed_mask", "es_mask"), (columns.mask, columns.ed_mask, columns.es_mask), strict=True)
    required += [name for default, name in pairs if name != default]
    if columns.subject != Columns().subject or columns.image not in head:
        required.insert(0, columns.subject)
    if columns.unit != Columns().unit:
        required.append(columns.unit)
    rows = read_rows(source, required=required)
    if columns.label in rows[0].cells:
        rows = settle_labels(rows, columns.label)
    for column in (columns.subject, columns.unit, columns.site):
        rows = rows if column is None else settle_codes(rows, column)
    records = [_record(row, source.parent, columns) for row in rows]
    check_unique(records)
    return sorted(records, key=lambda record: record.subject)


def _record(row: Row, folder: Path, columns: Columns) -> Record:
    images: Photograph | FramePair | Cine
    geometry, subject, unit = None, columns.subject, None
    if row.cells.get(columns.image):
        if others := [name for name in (columns.ed_image, columns.es_image, columns.cine) if row.cells.get(name)]:
            raise DataError(
                f"{row.origin}: {columns.image} and {others[0]} are both filled; a line is one or the other"
            )
        images = Photograph(_path(row, columns.image, folder))
        check_image_header(images.file)
        subject, unit = subject if subject in row.cells else columns.image, row.cells.get(columns.unit) or None
    elif row.cells.get(columns.cine):
        ed, es = (row.integer(column) - columns.first_frame for column in (columns.ed, columns.es))
        images = Cine(_path(row, columns.cine, folder), ed, es)
        geometry = cine_geometry(images, origin=row.origin)
    elif row.cells.get(columns.ed_image) or row.cells.get(columns.es_image):
        images = FramePair(*(_path(row, column, folder) for column in (columns.ed_image, columns.es_image)))
        geometry = pair_geometry(images)
    else:
        raise DataError(
            f"{row.origin}: no image; fill {columns.ed_image} and {columns.es_image} (two 3D files), or "
            f"{columns.cine}, {columns.ed} and {columns.es} (one 4D file and its frames), or {columns.image} "
            "(a photograph)"
        )
    return Record(
        masks=_masks(row, images, columns, folder),
        subject=row.text(subject),
        origin=row.origin,
        images=images,
        spacing=geometry.spacing if geometry else None,
        notes=(*(geometry.notes if geometry else ()), *row.notes),
        unit=unit,
        group=row.text(columns.label)
        if columns.label in row.cells or not (columns.mask_values or columns.values)
        else None,
        values={name: row.number(name) for name in columns.values},
        columns=row.cells,
        centre=row.text(columns.site) if columns.site else None,
    )


def _masks(row: Row, images: Photograph | FramePair | Cine, columns: Columns, folder: Path) -> Masks | None:
    """The masks of a line; one of two alone is an error."""
    names = (columns.ed_mask, columns.es_mask) if isinstance(images, FramePair) else (columns.mask,)
    if not columns.mask_values or not any(row.cells.get(name) for name in names):
        return None
    return Masks(tuple(_path(row, name, folder) for name in names), dict(columns.mask_values))


def _path(row: Row, column: str, folder: Path) -> Path:
    path = Path(os.path.abspath(folder / row.text(column)))
    if not path.is_file():
        raise DataError(f"{row.origin}: {column} {path} does not exist; paths are relative to the csv")
    return path
