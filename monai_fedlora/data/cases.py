"""A site's cases with their labels and splits, as its datalist holds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai_fedlora.data.origin import Origin
from monai_fedlora.errors import ConfigError

FORMAT = 1
SPLITS = ("training", "validation", "test")
NO_LABEL = -1
"""Label of a case whose task has no classes."""
FILE_KEYS = ("image", "ed", "es", "cine")
MASK_KEYS = ("mask", "ed_mask", "es_mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One patient's cine study or one photograph.

    A cine study is given by two frame files (``ed``, ``es``) or by one 4D file and two frame numbers, a photograph by
    ``image``.

    Attributes:
        subject: code of the patient, or of the photograph; unique in a datalist.
        label: index into the datalist's classes; :data:`NO_LABEL` where these are structures or values.
        group: the diagnosis as the source gives it.
        unit: the patient or lesion that several cases belong to; None for a case that is alone. All cases of a unit
            are in one split.
        image: file of the photograph, relative to the image root.
        ed: end-diastolic frame file, relative to the image root.
        es: end-systolic frame file, relative to the image root.
        cine: 4D file (x, y, z, t), relative to the image root.
        ed_frame: 0-based end-diastolic frame of ``cine``.
        es_frame: 0-based end-systolic frame of ``cine``.
        mask: file with the mask of ``image``, or 4D file with those of ``cine``, relative to the image root.
        ed_mask, es_mask: files with the masks of ``ed`` and ``es``, relative to the image root.
        mask_values: for each structure of the datalist the value that it has in the mask files; 0 for one that they do
            not outline.
        values: for each value of the datalist what it is, finite and in its unit.
        subgroups: sorted pairs of a column and what it says of the patient, such as ``("sex", "female")``, see
            :mod:`monai_fedlora.data.subgroups`; never part of an item.
    """

    subject: str
    label: int
    group: str
    unit: str | None = None
    image: str | None = None
    ed: str | None = None
    es: str | None = None
    cine: str | None = None
    ed_frame: int | None = None
    es_frame: int | None = None
    mask: str | None = None
    ed_mask: str | None = None
    es_mask: str | None = None
    mask_values: tuple[int, ...] | None = None
    values: tuple[float, ...] | None = None
    subgroups: tuple[tuple[str, str], ...] = ()

    def files(self) -> tuple[str, ...]:
        """Return the image paths of this case, relative to the image root."""
        return self._paths(FILE_KEYS)

    def masks(self) -> tuple[str, ...]:
        """Return the paths of this case's masks, relative to the image root."""
        return self._paths(MASK_KEYS)

    def to_json(self) -> dict[str, Any]:
        """Return the entry of this case in a datalist file."""
        entry = {key: value for key, value in asdict(self).items() if value is not None and key != "subgroups"}
        if self.subgroups:
            entry["subgroups"] = dict(self.subgroups)
        return entry | {key: list(entry[key]) for key in ("mask_values", "values") if key in entry}

    def _paths(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        paths = (getattr(self, key) for key in keys)
        return tuple(path for path in paths if path is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Datalist:
    """Every case of one site, by split.

    Attributes:
        site: name of the site, as the federation knows it.
        dataset: name of the data set, such as ``acdc``.
        task: ``binary`` or ``multiclass``, or the name of a task without classes.
        classes: class names, or those of structures or values; a label is an index into them. A site may lack
            cases of a class.
        image_root: absolute folder that the image paths are relative to.
        seed: seed of the split.
        training, validation, test: the cases; training is never empty.
        origin: whether the images are synthetic or real, and where they come from.
        scale: for each value a usual number and how far values usually lie from it, in the value's unit; the same at
            all sites, and chosen by whoever runs the study. Empty where networks give values as they are.
    """

    site: str
    dataset: str
    task: str
    classes: tuple[str, ...]
    image_root: Path
    seed: int
    training: tuple[Case, ...]
    validation: tuple[Case, ...] = ()
    test: tuple[Case, ...] = ()
    origin: Origin = field(default_factory=Origin)
    scale: tuple[tuple[float, float], ...] = ()

    def cases(self, split: str) -> tuple[Case, ...]:
        """Return the cases of a split.

        Raises:
            ConfigError: the split is not training, validation or test.
        """
        if split not in SPLITS:
            raise ConfigError(f"there is no split {split!r}; a datalist has {', '.join(SPLITS)}")
        cases: tuple[Case, ...] = getattr(self, split)
        return cases

    def items(self, split: str) -> list[dict[str, Any]]:
        """Return a split as MONAI dictionaries with absolute paths.

        Each has ``image``, or ``ed`` and ``es``, or ``cine``, ``ed_frame`` and ``es_frame`` (0-based), and
        always ``label`` (int) and ``subject``; with masks also ``mask``, or ``ed_mask`` and ``es_mask``, and
        ``mask_values``; in regression ``values``, a list of numbers.

        Raises:
            ConfigError: the split is not training, validation or test.
        """
        return [self._item(case) for case in self.cases(split)]

    @property
    def modality(self) -> str:
        """``image`` for photographs, ``cine`` for cine studies; a checked datalist holds one kind alone."""
        return "cine" if self.training[0].image is None else "image"

    def counts(self, split: str) -> tuple[int, ...]:
        """Return the number of cases of each class in a split; in a task without classes, of all cases."""
        labels = [case.label for case in self.cases(split)]
        if self.training[0].label == NO_LABEL:
            return (len(labels),)
        return tuple(labels.count(label) for label in range(len(self.classes)))

    def all_cases(self) -> Iterator[tuple[str, Case]]:
        """Yield ``(split, case)`` for every case."""
        for split in SPLITS:
            for case in self.cases(split):
                yield split, case

    def to_json(self, *, image_root: str | None = None) -> dict[str, Any]:
        """Return the content of the datalist file.

        Args:
            image_root: what to write as the image root in place of the absolute folder, such as ``"images"``
                for a folder beside the file.
        """
        head = {
            "format": FORMAT,
            "site": self.site,
            "dataset": self.dataset,
            "task": self.task,
            "classes": list(self.classes),
            "image_root": str(self.image_root) if image_root is None else image_root,
            "seed": self.seed,
        }
        if self.origin != Origin():
            head["source"] = self.origin.to_json()
        if self.scale:
            head["scale"] = [list(pair) for pair in self.scale]
        return head | {split: [case.to_json() for case in self.cases(split)] for split in SPLITS}

    def _item(self, case: Case) -> dict[str, Any]:
        item = {key: value for key, value in case.to_json().items() if key not in ("group", "unit", "subgroups")}
        return item | {key: str(self.image_root / str(item[key])) for key in (*FILE_KEYS, *MASK_KEYS) if key in item}
