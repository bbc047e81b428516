"""Fed-ISIC2019: 23,247 dermatoscopic images of six centres, in FLamby's layout.

Ogier du Terrail et al., "FLamby", NeurIPS Datasets and Benchmarks 2022; images of ISIC 2019: Tschandl et al., Sci Data
5:180161, 2018 (HAM10000), Combalia et al., arXiv 1908.02288 (BCN_20000), Codella et al., ISBI 2018 (MSK).
``train_test_split`` lists every image with its centre, its class and its fold;
``ISIC_2019_Training_Input_preprocessed/<image>.jpg`` are the images. A lesion was often photographed several times, and
FLamby's folds were drawn by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_fedlora.data.isic_files import find_masks, image_files, lesions
from monai_fedlora.data.photographs import Listed, find_photographs, stem
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.records import Record, check_unique
from monai_fedlora.errors import DataError
from monai_fedlora.formats.rows import Row, read_rows

GROUPS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
"""The classes in the order of FLamby's targets 0 to 7."""

NORMAL = "NV"
"""The class that the binary task calls NOR: the common, benign naevus (ours)."""

CENTRES = ("0", "1", "2", "3", "4", "5")
"""BCN, HAM vidir molemax, HAM vidir modern, HAM rosendahl, MSK, HAM vienna dias."""

_TABLES = tuple(f"train_test_split{suffix}" for suffix in ("", ".csv", ".tsv", ".txt"))
_FOLDERS = ("ISIC_2019_Training_Input_preprocessed", "ISIC_2019_Training_Input")
_REQUIRED = ("image", "target", "center", "fold")
_SPLITS = {"train": "training", "test": "test"}


def read_fed_isic2019(source: Path) -> list[Record]:
    """Read every image of a Fed-ISIC2019 copy.

    Args:
        source: the folder with ``train_test_split`` (separated by commas or tabs; other columns are ignored) and
            the image folder; the preprocessed images are used if both kinds are there. The lesion of an image is
            taken from ``ISIC_2019_Training_Metadata.csv`` or else ``HAM10000_metadata``, where these are there. Masks
            of lesions, such as HAM10000's, are those files of the folder and of the folders in it that are called
            ``<image>_segmentation.png``; they were drawn on the images that were not preprocessed.

    Returns:
        Records sorted by image: ``centre`` is FLamby's number 0 to 5, ``unit`` the lesion where it is known,
        ``split`` FLamby's fold.

    Raises:
        DataError: the list is missing or wrong, an image is listed twice, missing or damaged.
    """
    table = _first(source, _TABLES)
    if table is None:
        raise DataError(f"{source} has no file {_TABLES[0]}; give the folder with FLamby's split file and the images")
    folder = _first(source, _FOLDERS)
    if folder is None:
        raise DataError(f"{source} has no folder {_FOLDERS[0]}; put the images beside {table.name}")
    rows = read_rows(table, required=_REQUIRED)
    units, masks = lesions(source), find_masks(image_files(source))
    names = [stem(row.text("image")) for row in rows]
    photographs = find_photographs([Listed(row.origin, folder, name) for row, name in zip(rows, names, strict=True)])
    records = [
        Record(
            subject=name,
            origin=row.origin,
            images=photograph,
            unit=units.get(name),
            masks=masks.get(name),
            group=_group(row),
            centre=str(row.integer("center", below=len(CENTRES))),
            split=_split(row),
            columns=row.cells,
        )
        for row, name, photograph in zip(rows, names, photographs, strict=True)
    ]
    check_unique(records)
    return sorted(records, key=lambda record: record.subject)


def _first(source: Path, names: Sequence[str]) -> Path | None:
    return next((source / name for name in names if (source / name).exists()), None)


def _group(row: Row) -> str:
    """Return the class of the target; where the file has class columns, they must agree with it."""
    group = GROUPS[row.integer("target", below=len(GROUPS))]
    if set(GROUPS) <= set(row.cells):
        marked = [name for name in (*GROUPS, "UNK") if name in row.cells and row.integer(name)]
        if marked != [group]:
            raise DataError(
                f"{row.origin}: target {row.text('target')} is {group}, but the class columns say "
                f"{' and '.join(marked) or 'nothing'}"
            )
    return group


def _split(row: Row) -> str:
    fold = row.text("fold").lower()
    if fold not in _SPLITS:
        raise DataError(f"{row.origin}: fold {fold!r:.80} is unknown; this dataset has train and test")
    return _SPLITS[fold]


READER = Reader(
    read=read_fed_isic2019,
    text="Fed-ISIC2019: the folder with FLamby's train_test_split and the images",
    source="Ogier du Terrail et al., FLamby, NeurIPS 2022; images of ISIC 2019",
    groups=GROUPS,
    by=("centre",),
    normal=NORMAL,
    centres=CENTRES,
    photographs=True,
)
"""The reader behind ``monai-fedlora data fed_isic2019``."""
