"""HAM10000: 10,015 dermatoscopic images of four collections.

Tschandl et al., Sci Data 5:180161, 2018. ``HAM10000_metadata.csv`` says of every image its lesion, its diagnosis and
its collection; the images ``<image_id>.jpg`` lie beside it or in ``HAM10000_images_part_1`` and ``_2``.
"""

from __future__ import annotations

from pathlib import Path

from monai_fedlora.data.photographs import Listed, find_photographs
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import Record, check_unique
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import read_rows

_TABLE = "HAM10000_metadata.csv"
_FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2", ".")


def read(source: Path) -> list[Record]:
    """Read every image of a copy.

    Args:
        source: the folder with the table.

    Raises:
        DataError: the table is missing or wrong, or an image is listed twice, missing or damaged.
    """
    rows = read_rows(source / _TABLE, required=("lesion_id", "image_id", "dx", "dataset"))
    places = {path.stem: path.parent for folder in _FOLDERS for path in (source / folder).glob("*.jpg")}
    names = [row.text("image_id") for row in rows]
    listed = [Listed(row.origin, places.get(n, source), f"{n}.jpg") for row, n in zip(rows, names, strict=True)]
    records = []
    for row, name, photograph in zip(rows, names, find_photographs(listed), strict=True):
        if row.text("dx") not in READER.groups:
            raise DataError(f"{row.origin}: the diagnosis {row.text('dx')!r:.80} is none of {', '.join(READER.groups)}")
        records.append(
            Record(
                subject=name,
                origin=row.origin,
                images=photograph,
                unit=row.text("lesion_id"),
                group=row.text("dx"),
                centre=row.text("dataset"),
            )
        )
    check_unique(records)
    return sorted(records, key=lambda record: record.subject)


READER = Reader(
    read=read,
    text="HAM10000: the folder with HAM10000_metadata.csv and the images",
    source="Tschandl et al., Sci Data 5:180161, 2018",
    by=("centre",),
    groups=("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"),
    normal="nv",
    centres=("rosendahl", "vidir_molemax", "vidir_modern", "vienna_dias"),
    photographs=True,
)
"""What ``monai-fedlora data ham10000`` offers."""
