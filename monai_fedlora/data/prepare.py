"""Turn the records of a reader into datalists: labels, sites and splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, pstdev

from monai_fedlora.data.cases import NO_LABEL, SPLITS, Case, Datalist
from monai_fedlora.data.datalist import REGRESSION, SEGMENTATION, UNLABELLED, check_site_name
from monai_fedlora.data.identical import link_identical
from monai_fedlora.data.origin import Origin
from monai_fedlora.data.phantom_mark import origin_of
from monai_fedlora.data.records import FramePair, Photograph, Record
from monai_fedlora.data.splits import FRACTIONS, assign_splits, check_fractions, group_by_name, group_by_spacing
from monai_fedlora.data.subgroups import find_subgroups, with_subgroups
from monai_fedlora.data.units import keep_published_apart, take_subset, unit_labels, unit_of
from monai_fedlora.data.value_scale import HEART_SCALES, HEART_VALUES, check_scale, known_scales
from monai_fedlora.errors import ConfigError, DataError, nearest
from monai_fedlora.measures.structures import HEART

BINARY_CLASSES = ("NOR", "ABN")
"""Classes of the binary task: normal, and any pathology."""
_NO_GROUP = "not given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to label, group and split the records of a data set.

    Attributes:
        dataset: name of the data set, written into the datalists.
        groups: the data set's diagnoses in the order of its classes; () takes those that occur, sorted.
        normal: the diagnosis that is NOR in the binary task.
        task: ``binary`` (NOR against any pathology), ``multiclass`` (the dataset's groups), ``segmentation`` (the
            structures of its masks; patients without masks are left out, and the diagnoses only balance the splits) or
            ``regression`` (numbers of the source, or measured in its masks; diagnoses likewise).
        classes: the classes, or structures, to use; None takes all of the task. A list may name classes that no site
            has, for sites that are prepared separately.
        leave_out: leave out patients whose diagnosis is not in ``classes``; otherwise they are an error.
        by: ``vendor``, ``centre`` or ``spacing``.
        sites: number of sites, for ``spacing`` only.
        site: name of a single site that gets all records, in place of ``by``.
        seed: seed of the split.
        fractions: shares of training, validation and test.
        published_split: keep the published test and validation cases in their splits. Training records of the same
            patients or lesions are left out.
        draw_test: draw test cases where the published split has none; otherwise that is an error.
        limit: largest number of records of a site, or None for all; see :func:`~monai_fedlora.data.units.take_subset`.
        origin: declared origin of the images; files that are marked as phantoms override it.
        values: of a regression, each value with its scale, None for that of
            :data:`~monai_fedlora.data.value_scale.HEART_SCALES`; () takes
            :data:`~monai_fedlora.data.value_scale.HEART_VALUES`.
        subgroups: columns of the source that say which subgroup a patient is of, each with the edges of its bins, or
            None to take what it says; see :func:`~monai_fedlora.data.subgroups.find_subgroups`.
    """

    dataset: str
    groups: tuple[str, ...] = ()
    normal: str = "NOR"
    task: str = "binary"
    classes: tuple[str, ...] | None = None
    leave_out: bool = True
    by: str = "vendor"
    sites: int | None = None
    site: str | None = None
    seed: int = 0
    fractions: tuple[float, float, float] = FRACTIONS
    published_split: bool = False
    draw_test: bool = False
    limit: int | None = None
    origin: Origin = field(default_factory=Origin)
    values: tuple[tuple[str, tuple[float, float] | None], ...] = ()
    subgroups: tuple[tuple[str, tuple[float, ...] | None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The datalists of all sites, and notes for the user."""

    datalists: tuple[Datalist, ...]
    notes: tuple[str, ...]


def prepare(records: Sequence[Record], settings: Settings, *, existing: Sequence[Datalist] = ()) -> Prepared:
    """Label, group and split records.

    Args:
        records: the patients of a dataset.
        settings: how to do so.
        existing: datalists that the output folder already holds; a class that they have is not missing.

    Raises:
        ConfigError: settings contradict each other, or the source has no column of a subgroup.
        DataError: a patient has no label or site, a site has no training case, or no site has a class.
    """
    check_fractions(settings.fractions)
    if (settings.sites is not None) != (settings.by == "spacing" and settings.site is None):
        raise ConfigError("the number of sites belongs to sites by spacing, and these need it: --by spacing --sites K")
    records = link_identical(records)
    scale: tuple[tuple[float, float], ...] = ()
    if settings.task == SEGMENTATION:
        classes = _structures(records, settings)
        strata, labels, notes = _by_diagnosis(records, [record for record in records if record.masks], "masks")
    elif settings.task == REGRESSION:
        if settings.classes is not None:
            raise ConfigError("a regression has values and no classes: give --value NAME, and drop --classes")
        classes = tuple(name for name, _ in settings.values) or HEART_VALUES
        records, having = _measured(records, classes, settings)
        scale = _scales(having, classes, settings)
        strata, labels, notes = _by_diagnosis(records, having, "values and no masks to measure")
    else:
        classes = strata = _classes(records, settings)
        labels, notes = _labels(records, classes, settings)
    kept = [record for record in records if record.subject in labels]
    notes += _unit_notes(kept)
    notes += _record_notes(kept)
    draw: tuple[str, ...] = ("validation",)
    if settings.published_split:
        kept, more, draw = _published(kept, settings)
        notes += more
    root = _common_root(kept, with_masks=settings.task == SEGMENTATION)
    sites = _sites(kept, settings)
    if settings.limit is not None:
        for site, members in sites.items():
            sites[site] = take_subset(
                members, labels, limit=settings.limit, seed=settings.seed, by_split=settings.published_split
            )
            notes.append(f"site {site}: {len(sites[site])} of {len(members)}, a subset of seed {settings.seed}")
    datalists = _datalists(sites, labels, strata, classes, root, settings, draw, scale)
    if settings.subgroups:
        used = [record for members in sites.values() for record in members]
        found, more = find_subgroups(used, dict(settings.subgroups))
        datalists = tuple(with_subgroups(datalist, found) for datalist in datalists)
        notes += more
    if settings.sites is not None:
        notes += [f"site {site} has in-plane spacing {_range(members)} mm" for site, members in sites.items()]
    if settings.classes is None and settings.task not in UNLABELLED:
        names = [datalist.site for datalist in datalists]
        _check_classes([*datalists, *(site for site in existing if site.site not in names)], classes)
    if settings.task not in UNLABELLED:
        notes += [note for datalist in datalists for note in _empty_cells(datalist, settings.fractions)]
    return Prepared(datalists=datalists, notes=tuple(notes))


def _structures(records: Sequence[Record], settings: Settings) -> tuple[str, ...]:
    """The structures of the masks: those of the heart in their order, and then others as they occur."""
    found = list(dict.fromkeys(name for record in records if record.masks for name in record.masks.values))
    if not found:
        raise DataError(
            f"{settings.dataset} has no masks here, and the task is segmentation; download the masks too (of a csv, "
            "say what they outline with --mask-values), or choose another --task"
        )
    if settings.classes is not None:
        if unknown := [name for name in found if name not in settings.classes]:
            raise ConfigError(f"--classes {','.join(settings.classes)} lacks {unknown[0]}, which the masks outline")
        return settings.classes
    if set(found) <= set(HEART):
        return HEART
    return tuple(found)


def _by_diagnosis(
    records: Sequence[Record], kept: Sequence[Record], what: str
) -> tuple[tuple[str, ...], dict[str, int], list[str]]:
    """Diagnoses, the number of that of every record that is kept, and notes."""
    strata = tuple(sorted({record.group or _NO_GROUP for record in kept}))
    labels = {record.subject: strata.index(record.group or _NO_GROUP) for record in kept}
    without = len(records) - len(labels)
    return strata, labels, [f"left out, having no {what}: {without} of {len(records)}"] if without else []


def _measured(
    records: Sequence[Record], names: Sequence[str], settings: Settings
) -> tuple[Sequence[Record], list[Record]]:
    """All records, and those with all values; what the source does not give is measured in the masks."""
    given = {name for record in records for name in record.values}
    to_measure = [name for name in names if name not in given]
    if unknown := [name for name in to_measure if name not in HEART_SCALES]:
        raise ConfigError(
            f"--value {unknown[0]}: {settings.dataset} gives no such number, and masks give {', '.join(HEART_SCALES)}"
            f"{nearest(unknown[0], [*given, *HEART_SCALES])}"
        )
    if to_measure and not any(record.masks for record in records):
        raise DataError(
            f"{settings.dataset} gives no {to_measure[0]}, and has no masks to measure it in; download the masks too, "
            "or name a column of a csv"
        )
    if not to_measure:
        return records, list(records)
    from monai_fedlora.data.heart_values import heart_values  # imports torch

    found = [
        replace(record, values={**record.values, **heart_values(record, to_measure)}) if record.masks else record
        for record in records
    ]
    return found, [record for record in found if record.masks]


def _scales(records: Sequence[Record], names: Sequence[str], settings: Settings) -> tuple[tuple[float, float], ...]:
    """The scale of every value, as chosen or as is usual for hearts."""
    chosen = known_scales({**dict.fromkeys(names), **dict(settings.values)})
    for name in names:
        if name not in chosen:
            here = [record.values[name] for record in records]
            raise ConfigError(
                f"--value {name} needs a scale, a usual value and a usual distance from it, such as {name}=50/15. "
                f"All sites must have the same, so choose round numbers; here the mean is {fmean(here):.4g} and the "
                f"standard deviation {pstdev(here):.3g}"
            )
    scale = tuple(chosen[name] for name in names)
    check_scale(scale, names)
    return scale


def _unit_notes(records: Sequence[Record]) -> list[str]:
    alone = sum(record.unit is None for record in records if isinstance(record.images, Photograph))
    if not alone:
        return []
    return [f"{alone} of {len(records)} images have no known patient or lesion, so each of them is split on its own"]


def _record_notes(records: Sequence[Record]) -> list[str]:
    """The notes of the reader, each with the number of records it is about and the first of them."""
    noted: dict[str, list[str]] = {}
    for record in records:
        for note in record.notes:
            noted.setdefault(note, []).append(record.subject)
    return [
        f"{len(subjects)} of {len(records)} ({', '.join(subjects[:3])}{', ...' if len(subjects) > 3 else ''}): {note}"
        for note, subjects in noted.items()
    ]


def _published(records: Sequence[Record], settings: Settings) -> tuple[list[Record], list[str], tuple[str, ...]]:
    """The records that stay, notes, and the splits that are drawn."""
    kept, notes, draw = keep_published_apart(records), [], ["validation"]
    if not any(record.split == "test" for record in kept):
        if not settings.draw_test:
            raise DataError(f"{settings.dataset} has no published test patient here; drop --published-split")
        notes.append(
            f"{settings.dataset} has no published test split here, so a test split is drawn, by patient or lesion"
        )
        draw.append("test")
    if len(kept) < len(records):
        notes.append(
            f"left out, because their patient or lesion is in a published test or validation split: "
            f"{len(records) - len(kept)} of {len(records)}"
        )
    return kept, notes, tuple(draw)


def _classes(records: Sequence[Record], settings: Settings) -> tuple[str, ...]:
    if settings.task == "binary":
        if settings.groups and settings.normal.casefold() not in map(str.casefold, settings.groups):
            raise ConfigError(
                f"--normal {settings.normal}: {settings.dataset} has no such class, it has {', '.join(settings.groups)}"
            )
        if settings.classes not in (None, BINARY_CLASSES):
            raise ConfigError(f"the binary task has the classes {','.join(BINARY_CLASSES)}; drop --classes")
        return BINARY_CLASSES
    if settings.classes is not None:
        if len(settings.classes) < 2 or len(set(settings.classes)) < len(settings.classes):
            raise ConfigError(f"--classes {','.join(settings.classes)} must be two or more different names")
        if unknown := [name for name in settings.classes if settings.groups and name not in settings.groups]:
            raise ConfigError(f"--classes: {settings.dataset} has no {unknown[0]}, it has {', '.join(settings.groups)}")
        return settings.classes
    return settings.groups or tuple(sorted({record.group for record in records if record.group}))


def _labels(
    records: Sequence[Record], classes: tuple[str, ...], settings: Settings
) -> tuple[dict[str, int], list[str]]:
    labels: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    abnormal: Counter[str] = Counter()
    for record in records:
        if record.group is None:
            raise DataError(
                f"{record.origin}: there is no diagnosis for subject {record.subject}; use the edition of the "
                "dataset's csv with a column Pathology, or --task segmentation where there are masks"
            )
        if settings.task == "binary":
            labels[record.subject] = int(record.group.casefold() != settings.normal.casefold())
            abnormal[record.group] += labels[record.subject]
        elif record.group in classes:
            labels[record.subject] = classes.index(record.group)
        elif settings.leave_out:
            left_out[record.group] += 1
        else:
            raise DataError(f"{record.origin}: label {record.group!r:.80} is not one of {', '.join(classes)}")
    if not labels:
        raise DataError(f"{settings.dataset} has no patient of the classes {', '.join(classes)}")
    notes = []
    if left_out:
        notes.append(f"left out, being of no class of the task: {_listed(left_out)}")
    if +abnormal and not settings.groups:
        notes.append(f"counted as {BINARY_CLASSES[1]}: {_listed(+abnormal)}")
    return labels, notes


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {group}" for group, count in sorted(counts.items()))


def _sites(records: Sequence[Record], settings: Settings) -> dict[str, list[Record]]:
    if settings.site is not None:
        check_site_name(settings.site)
        return {settings.site: list(records)}
    if settings.sites is not None:
        return group_by_spacing(records, settings.sites)
    return group_by_name(records, settings.by)


def _range(records: Sequence[Record]) -> str:
    steps = [record.spacing for record in records if record.spacing is not None]
    return f"{min(steps):.3f} to {max(steps):.3f}"


def _common_root(records: Sequence[Record], *, with_masks: bool) -> Path:
    files = [
        file
        for record in records
        for file in (*record.files(), *(record.masks.files if with_masks and record.masks else ()))
    ]
    return Path(os.path.commonpath([os.path.abspath(file.parent) for file in files]))


def _datalists(
    sites: Mapping[str, Sequence[Record]],
    labels: dict[str, int],
    strata: tuple[str, ...],
    classes: tuple[str, ...],
    root: Path,
    settings: Settings,
    draw: Sequence[str],
    scale: tuple[tuple[float, float], ...],
) -> tuple[Datalist, ...]:
    """Split one site after the other; a unit that an earlier site has too stays in the split it has there."""
    datalists = []
    splits: dict[str, str] = {}
    for site, records in sites.items():
        published = {unit_of(record): record.split for record in records if record.split}
        splits |= assign_splits(
            {unit: strata[label] for unit, label in unit_labels(records, labels).items() if unit not in splits},
            seed=settings.seed,
            fractions=settings.fractions,
            fixed=published if settings.published_split else None,
            draw=draw,
        )
        cases: dict[str, list[Case]] = {split: [] for split in SPLITS}
        for record in sorted(records, key=lambda record: record.subject):
            case = _case(record, labels[record.subject], root)
            if settings.task == SEGMENTATION:
                case = _masked(case, record, classes, root)
            elif settings.task == REGRESSION:
                values = tuple(record.values[name] for name in classes)
                case = replace(case, label=NO_LABEL, group=case.group or _NO_GROUP, values=values)
            cases[splits[unit_of(record)]].append(case)
        if not cases["training"]:
            raise DataError(
                f"site {site} has no training patient in the published split; drop --published-split or group the "
                "sites otherwise"
            )
        datalists.append(
            Datalist(
                site=site,
                dataset=settings.dataset,
                task=settings.task,
                classes=classes,
                image_root=root,
                seed=settings.seed,
                **{split: tuple(members) for split, members in cases.items()},
                origin=origin_of(
                    (record.files()[0] for record in records), dataset=settings.dataset, said=settings.origin
                ),
                scale=scale,
            )
        )
    return tuple(datalists)


def _relative(file: Path, root: Path) -> str:
    return Path(os.path.abspath(file)).relative_to(root).as_posix()


def _masked(case: Case, record: Record, structures: Sequence[str], root: Path) -> Case:
    """The case with its masks in place of its label."""
    assert record.masks is not None
    values = tuple(record.masks.values.get(name, 0) for name in structures)
    files = [_relative(file, root) for file in record.masks.files]
    case = replace(case, label=NO_LABEL, group=case.group or _NO_GROUP, mask_values=values)
    return replace(case, mask=files[0]) if len(files) == 1 else replace(case, ed_mask=files[0], es_mask=files[1])


def _case(record: Record, label: int, root: Path) -> Case:
    def relative(file: Path) -> str:
        return _relative(file, root)

    case = Case(subject=record.subject, label=label, group=record.group or "", unit=record.unit)
    images = record.images
    if isinstance(images, Photograph):
        return replace(case, image=relative(images.file))
    if isinstance(images, FramePair):
        return replace(case, ed=relative(images.ed), es=relative(images.es))
    return replace(case, cine=relative(images.file), ed_frame=images.ed, es_frame=images.es)


def _check_classes(sites: Sequence[Datalist], classes: tuple[str, ...]) -> None:
    for label, name in enumerate(classes):
        if not any(site.classes == classes and site.counts("training")[label] for site in sites):
            raise DataError(
                f"empty class: no site has a training case of {name}. Prepare the dataset that has it into the same "
                f"output first, or say with --classes {','.join(classes)} that another hospital has it, or name "
                "fewer classes"
            )


def _empty_cells(datalist: Datalist, fractions: Sequence[float]) -> list[str]:
    wanted = [split for split, share in zip(SPLITS, fractions, strict=True) if share > 0]
    notes = []
    for label, name in enumerate(datalist.classes):
        empty = [split for split in wanted if not datalist.counts(split)[label]]
        if empty:
            where = "" if len(empty) == len(wanted) else f"{' or '.join(empty)} "
            notes.append(f"site {datalist.site} has no {where}case of class {name}")
    return notes
