"""The real patients: their files, groups and masks, read from a folder outside the project."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_fedlora.data.readers.acdc import GROUPS, read_acdc
from monai_fedlora.data.records import FramePair

CLASSES = GROUPS
"""ACDC's groups, normal first; a label is an index into them."""

SUNNYBROOK = {"N": "NOR", "HF-I": "MINF", "HF-NI": "DCM", "HYP": "HCM"}
"""Sunnybrook's groups as ACDC's (ours): normal; heart failure with and without infarction; hypertrophy."""

_ACDC_VALUES = {3: 1, 2: 2, 1: 3}  # LV, MYO, RV
_LV_VALUES = {1: 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One patient.

    Attributes:
        label: index into :data:`CLASSES`.
        ed, es: files of both frames.
        ed_mask, es_mask: files of their masks.
        values: which value of a mask's file is which structure: 1 LV, 2 MYO, 3 RV.
    """

    label: int
    ed: Path
    es: Path
    ed_mask: Path
    es_mask: Path
    values: tuple[tuple[int, int], ...]

    @property
    def labelled(self) -> tuple[bool, bool, bool, bool]:
        """Whether the masks outline background, LV, MYO and RV."""
        there = {structure for _, structure in self.values}
        return True, 1 in there, 2 in there, 3 in there

    def item(self) -> dict[str, str]:
        """What the package's preprocessing reads."""
        return {"ed": str(self.ed), "es": str(self.es)}

    def masks(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Masks of ED and ES, each (X, Y, Z) uint8 in the order of their files, and the affine of the first."""
        import nibabel

        found = [nibabel.load(path) for path in (self.ed_mask, self.es_mask)]  # type: ignore[attr-defined]
        return [self._translated(np.asarray(image.dataobj)) for image in found], np.asarray(found[0].affine)

    def _translated(self, stored: np.ndarray) -> np.ndarray:
        mask = np.zeros(stored.shape, dtype=np.uint8)
        for value, structure in self.values:
            mask[stored == value] = structure
        return mask


def acdc(root: Path) -> list[Patient]:
    """The patients of the copy of ACDC in ``root/acdc``, by name."""
    found = []
    for record in read_acdc(root / "acdc"):
        if not isinstance(record.images, FramePair) or record.group is None:
            raise SystemExit(f"{record.origin}: the benchmark reads patients with two frame files alone")
        ed, es = record.images.ed, record.images.es
        masks = [path.with_name(path.name.replace(".nii", "_gt.nii")) for path in (ed, es)]
        found.append(
            Patient(
                label=CLASSES.index(record.group),
                ed=ed,
                es=es,
                ed_mask=masks[0],
                es_mask=masks[1],
                values=tuple(_ACDC_VALUES.items()),
            )
        )
    return found


def sunnybrook(root: Path) -> list[Patient]:
    """The patients of ``root/sunnybrook/patients.csv``, whose masks outline the left ventricle's blood pool alone."""
    folder = root / "sunnybrook"
    with (folder / "patients.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        Patient(
            label=CLASSES.index(SUNNYBROOK[row["pathology"]]),
            ed=folder / row["ed_image"],
            es=folder / row["es_image"],
            ed_mask=folder / row["ed_label"],
            es_mask=folder / row["es_label"],
            values=tuple(_LV_VALUES.items()),
        )
        for row in rows
    ]
