"""Data sets on this disk, prepared for the sites of a federation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_fedlora.api.one_or_more import one_or_more
from monai_fedlora.data.cases import SPLITS, Datalist
from monai_fedlora.data.datalist import REGRESSION, read_prepared, write_datalists
from monai_fedlora.data.origin import Origin
from monai_fedlora.data.phantom_mark import published
from monai_fedlora.data.prepare import Settings
from monai_fedlora.data.prepare import prepare as prepare_records
from monai_fedlora.data.published_set import Reader
from monai_fedlora.data.readers import READERS
from monai_fedlora.data.records import Photograph, Record
from monai_fedlora.data.splits import FRACTIONS
from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.formats.rows import read_header_row
from monai_fedlora.rendering.tables import Table

__all__ = ["CSV", "CSV_BY", "CSV_COLUMNS", "FRACTIONS", "READERS", "PreparedSites", "prepare"]

CSV = "csv"
CSV_BY = ("column", "spacing")
CSV_COLUMNS = (
    "subject",
    "label",
    "site",
    "image",
    "unit",
    "ed_image",
    "es_image",
    "cine",
    "ed",
    "es",
    "mask",
    "ed_mask",
    "es_mask",
)


@dataclass(frozen=True, kw_only=True)
class PreparedSites:
    """Sites that were prepared.

    Attributes:
        output: the prepared folder, which has one of its own for each site.
        datalists: of the sites that were prepared now.
        notes: what was left out or counted otherwise, a line each.
        everything: names of all sites in the folder.
    """

    output: Path
    datalists: tuple[Datalist, ...]
    notes: tuple[str, ...]
    everything: tuple[str, ...]

    @property
    def folders(self) -> dict[str, Path]:
        """By site, the folder that `monai_fedlora.federate` takes."""
        return {datalist.site: self.output / datalist.site for datalist in self.datalists}

    @property
    def origins(self) -> list[str]:
        """What models trained on the sites will say that they were trained on, a line for each kind."""
        found: dict[Origin, list[str]] = {}
        for datalist in self.datalists:
            found.setdefault(datalist.origin, []).append(datalist.site)
        hint = "; if they were generated, prepare them again with --synthetic, as models say what they were trained on"
        return [
            f"{', '.join(sites)}: {origin.kind} images ({origin.name}){hint * (origin.kind == 'real')}"
            for origin, sites in found.items()
        ]

    def table(self) -> Table:
        """Cases of every site, class and split."""
        rows: list[list[Any]] = []
        for datalist in self.datalists:
            by_class = [*zip(*(datalist.counts(split) for split in SPLITS), strict=True)]
            named = [
                *(() if len(by_class) == 1 else zip(datalist.classes, by_class, strict=True)),
                ("all", [sum(c) for c in zip(*by_class, strict=True)]),
            ]
            rows += [[datalist.site, name, *counts, sum(counts)] for name, counts in named]
        return Table(caption="", head=["site", "class", *SPLITS, "all"], rows=rows)


def prepare(
    dataset: str,
    *,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    task: str | None = None,
    classes: Sequence[str] | None = None,
    by: str | None = None,
    sites: int | None = None,
    site: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    fractions: tuple[float, float, float] = FRACTIONS,
    published_split: bool | None = None,
    normal: str | None = None,
    synthetic: bool = False,
    overwrite: bool = False,
    load_all: bool = False,
    columns: Mapping[str, str] | None = None,
    first_frame: int = 0,
    mask_values: Mapping[str, int] | None = None,
    values: Mapping[str, tuple[float, float] | None] | None = None,
    dataset_name: str | None = None,
    subgroups: Sequence[str] | Mapping[str, Sequence[float] | None] = (),
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> PreparedSites:
    """Turn a published data set, or any csv with its images, into one datalist for each site, with its splits.

    Args:
        dataset: a reader's name, such as "acdc" or "fed_isic2019" (``monai-fedlora data --help`` lists them), or "csv"
            for any table with columns for subject, label, site and images.
        source: where the data set lies, or the csv.
        output: prepared folder; sites of other data sets in it stay.
        task: "binary", normal against any pathology, "multiclass", "segmentation", the structures of the data set's
            masks, or "regression", numbers of a csv or measured in the masks; None for the data set's default.
        classes: class list; needed when a class is only at hospitals that prepare their data elsewhere.
        by: what makes a site: "vendor", "centre" or "spacing", of a csv "column" or "spacing"; None for the default.
        sites: number of sites, with ``by="spacing"``.
        site: name of the one site that gets everything, in place of ``by``.
        limit: take so many images (cine: patients) of each site, the classes in their proportions.
        seed: of the split and of the limit.
        fractions: shares of training, validation and test.
        published_split: keep the data set's own test and validation patients there; None does it for photographs.
        normal: class that the binary task calls NOR; None for the data set's.
        synthetic: the images were generated, which every model trained on them will say.
        overwrite: replace sites of the same name.
        load_all: load every image as training will, so that whatever it would refuse is refused now.
        columns: of a csv, what its columns for subject, label, site, image, unit, ed_image, es_image, cine, ed, es,
            mask, ed_mask and es_mask are called, where it is something else, such as ``{"label": "diagnosis"}``.
        first_frame: of a csv, the number of a 4D file's first frame, 0 or 1.
        mask_values: of a csv with the columns ed_mask and es_mask, or mask beside cine or image, the value of every
            structure in the mask files, such as ``{"LV": 3, "MYO": 2, "RV": 1}`` or ``{"lesion": 255}``; structures
            that are not outlined are not named. Such a csv needs no column label.
        values: of a regression, by name each number with its scale, a usual value and a usual distance from it that all
            sites share, such as ``{"ejection_fraction": (50, 15)}``; its unit is that of the csv's column. Where there
            is no such column, lv_edv, lv_esv, lv_sv, rv_edv, rv_esv, rv_sv (mL), lv_ef, rv_ef (%) and lv_mass (g) are
            measured in the masks; their scale may be None for the usual one of adults. None takes lv_ef and lv_edv.
        dataset_name: of a csv, the name written into the datalists; None for that of the file.
        subgroups: columns of the data set's table that divide patients for `monai_fedlora.compare`, such as
            ``["sex"]``, or with edges of bins ``{"sex": None, "age": (40, 60)}``: below 40, 40 to below 60, 60 and
            above. They stay in the datalists; nothing of them is trained on or leaves a site.
        on_image: called with the number of images loaded, and of all.

    Returns:
        The sites; ``print(prepared.table())`` shows their cases.

    Raises:
        ConfigError: arguments contradict each other, or there is no such reader (the nearest is named).
        DataError: the source cannot be read, or cannot be divided like that; nothing is written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import monai_fedlora as fl
        >>> with tempfile.TemporaryDirectory() as place:
        ...     hearts = fl.phantom("acdc", output=Path(place) / "acdc", patients=5)
        ...     prepared = fl.prepare("acdc", source=hearts, output=Path(place) / "prepared", site="north")
        ...     sum(map(sum, (prepared.datalists[0].counts(split) for split in ("training", "validation", "test"))))
        5
        >>> prepared.everything
        ('north',)
    """
    folder, place = Path(output), Path(source)
    if values and task != REGRESSION:
        raise ConfigError(f'values are of the task "regression", and the task is {task or "another"!r}')
    reader = None if dataset == CSV else READERS[dataset]
    if reader is not None and (columns or first_frame or dataset_name or mask_values):
        raise ConfigError(f"columns, first_frame, dataset_name and mask_values are of a csv, and {dataset} has its own")
    kinds = CSV_BY if reader is None else reader.by
    if by is not None and by not in kinds:
        raise ConfigError(f"the sites of {dataset} are made by {' or '.join(kinds)}, and not by {by!r}")
    if reader is None:
        from monai_fedlora.data.table import Columns, read_table

        for name in columns or {}:
            if name not in CSV_COLUMNS:
                raise ConfigError(f"a csv has no column for {name!r}{nearest(name, CSV_COLUMNS)}")
        names: dict[str, Any] = {name: name for name in CSV_COLUMNS} | dict(columns or {})
        if site is not None or by == "spacing":
            names["site"] = None
        given = read_header_row(place) if values else ()
        records = read_table(
            place,
            Columns(
                **names,
                first_frame=first_frame,
                mask_values=tuple((mask_values or {}).items()),
                values=tuple(name for name in values or {} if name in given),
            ),
        )
        made = Reader(read=lambda path: [], text="", by=("centre", "spacing"))
    else:
        records, made = reader.read(place), reader
    photographs = all(isinstance(record.images, Photograph) for record in records)
    called = dataset if reader else dataset_name or place.stem
    settings = Settings(
        dataset=called,
        groups=made.groups,
        normal=normal or made.normal,
        task=task or made.task or ("multiclass" if photographs else "binary"),
        classes=None if classes is None else tuple(one_or_more(classes)),
        leave_out=reader is not None,
        by="centre" if by == "column" else by or made.by[0],
        sites=sites,
        site=site,
        seed=seed,
        fractions=fractions,
        published_split=made.photographs if published_split is None else published_split,
        draw_test=photographs,
        limit=limit,
        origin=published(called, made.source, synthetic=synthetic),
        values=tuple((values or {}).items()),
        subgroups=_columns_of_subgroups(subgroups),
    )
    found = prepare_records(records, settings, existing=read_prepared(folder))
    if load_all:
        _load_all(found.datalists, on_image)
    write_datalists(found.datalists, folder, overwrite=overwrite)
    return PreparedSites(
        output=folder,
        datalists=found.datalists,
        notes=(*found.notes, *_absent(dataset, made, records)),
        everything=tuple(datalist.site for datalist in read_prepared(folder)),
    )


def _absent(dataset: str, reader: Reader, records: Sequence[Record]) -> list[str]:
    """Name the centres that the published data set has and this copy of it lacks."""
    here = {record.centre for record in records}
    absent = [centre for centre in reader.centres if centre not in here]
    has = f"{dataset} has the centres {', '.join(reader.centres)}"
    return [f"{has}; this copy lacks {', '.join(absent)}"] if absent else []


def _columns_of_subgroups(
    given: Sequence[str] | Mapping[str, Sequence[float] | None],
) -> tuple[tuple[str, tuple[float, ...] | None], ...]:
    named = given if isinstance(given, Mapping) else dict.fromkeys(one_or_more(given))
    return tuple((column, None if edges is None else tuple(edges)) for column, edges in named.items())


def _load_all(datalists: Sequence[Datalist], on_image: Callable[[int, int], None]) -> None:
    from monai_fedlora.formats.photograph_file import read_photograph
    from monai_fedlora.transforms.frames import join_frames, read_frames
    from monai_fedlora.transforms.mask_reading import read_masks
    from monai_fedlora.transforms.photograph_mask_reading import read_photograph_mask

    items = [item for datalist in datalists for split in SPLITS for item in datalist.items(split)]
    for number, item in enumerate(items):
        on_image(number, len(items))
        if "image" in item:
            read_photograph(str(item["image"]))
            if "mask_values" in item:
                read_photograph_mask(item["mask"], image=item["image"], values=item["mask_values"])
        else:
            ed, es = read_frames(item)
            join_frames(ed, es)
            if "mask_values" in item:
                read_masks(item, ed, es)
