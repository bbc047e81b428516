"""Results of segmentation: of each patient, and over patients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from monai_fedlora.measures.agreement import BlandAltman, OverPatients, bland_altman, over_patients
from monai_fedlora.measures.given_numbers import REASON
from monai_fedlora.measures.heart_function import COLUMNS, UNITS, HeartFunction, heart_function
from monai_fedlora.measures.overlap import Overlap, compare_masks
from monai_fedlora.measures.structures import LV, RV

_COLUMNS = tuple(field.name for field in fields(OverPatients))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """Agreement of one patient's masks with the reference.

    Attributes:
        subject: the patient.
        overlaps: of every phase and outlined structure.
        found, truth: numbers of the heart by the masks and by the reference, whether or not they should be given to a
            reader; None for other images.
        no_volume_because: why those of the masks should not be, see
            :mod:`monai_fedlora.measures.given_numbers`; empty if nothing speaks against them, or it was not asked.
    """

    subject: str
    overlaps: tuple[Overlap, ...]
    found: HeartFunction | None = None
    truth: HeartFunction | None = None
    no_volume_because: tuple[str, ...] = ()

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each structure and phase, for a table."""
        return [{"study": self.subject, **overlap.to_row()} for overlap in self.overlaps]

    def heart_row(self) -> dict[str, Any]:
        """One row with every number of the heart as found, its reference and the difference, for a table.

        The difference of an ejection fraction is in points, that of the others in their unit. Numbers of masks that
        give no volume are among them, so that none of a network's faults is left out; the last column says why such a
        study would have none.
        """
        row: dict[str, Any] = {"study": self.subject}
        if self.found is None or self.truth is None:
            return row
        found, truth, errors = self.found.to_row(), self.truth.to_row(), self.found.minus(self.truth)
        for name, column in zip(UNITS, COLUMNS, strict=True):
            row |= {column: found[name], f"{column}_truth": truth[name], f"{column}_error": errors[name]}
        return row | {REASON: "; ".join(self.no_volume_because)}


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureSummary:
    """One structure in one phase over patients.

    Attributes:
        structure, phase: which.
        dice: over the patients with the structure in one of their masks; None if there is none.
        hausdorff_95: over the patients with the structure in both masks; None if there is none.
        missed: patients with the structure in the reference alone; they count as Dice 0, and have no distance.
        invented: patients with the structure in the mask alone; they too.
    """

    structure: str
    phase: str
    dice: OverPatients | None
    hausdorff_95: OverPatients | None
    missed: int
    invented: int

    def to_row(self) -> dict[str, Any]:
        """All numbers in one row, for a table."""
        row: dict[str, Any] = {"structure": self.structure, "phase": self.phase}
        for name, measure in (("dice", self.dice), ("hausdorff_95", self.hausdorff_95)):
            row |= {f"{name}_{key}": None if measure is None else getattr(measure, key) for key in _COLUMNS}
        return row | {"missed": self.missed, "invented": self.invented}


def measure_case(
    found: Any,
    truth: Any,
    *,
    subject: str,
    structures: Sequence[str],
    phases: Sequence[str],
    spacing: Sequence[float],
    labelled: Sequence[bool] | None = None,
) -> CaseResult:
    """Compare a patient's masks with the reference.

    Numbers of the heart are computed of two frames of a stack, end-diastole first, whose structures include one of the
    ventricles. Other arguments, and errors, are those of :func:`monai_fedlora.measures.overlap.compare_masks`.
    """
    overlaps = compare_masks(found, truth, structures=structures, phases=phases, spacing=spacing, labelled=labelled)
    if len(spacing) != 3 or len(phases) != 2 or not {LV, RV} & set(structures):
        return CaseResult(subject=subject, overlaps=overlaps)
    ours, theirs = (
        heart_function(mask, spacing=spacing, structures=structures, labelled=labelled) for mask in (found, truth)
    )
    return CaseResult(subject=subject, overlaps=overlaps, found=ours, truth=theirs)


def structures_over_patients(cases: Iterable[CaseResult], *, seed: int = 0) -> list[StructureSummary]:
    """Summarise Dice and Hausdorff distance of every structure and phase, in the order of their first occurrence.

    Args:
        cases: one result for each patient; structures may be outlined for some patients only.
        seed: of the intervals, see :func:`monai_fedlora.measures.agreement.over_patients`.
    """
    groups: dict[tuple[str, str], list[Overlap]] = {}
    for case in cases:
        for overlap in case.overlaps:
            groups.setdefault((overlap.structure, overlap.phase), []).append(overlap)
    return [
        StructureSummary(
            structure=structure,
            phase=phase,
            dice=over_patients((one.dice for one in overlaps), seed=seed),
            hausdorff_95=over_patients((one.hausdorff_95 for one in overlaps), seed=seed),
            missed=sum(one.missed for one in overlaps),
            invented=sum(one.invented for one in overlaps),
        )
        for (structure, phase), overlaps in groups.items()
    ]


def heart_over_patients(cases: Iterable[CaseResult]) -> dict[str, BlandAltman]:
    """Compare every number of the heart with the reference over patients; those that no patient has are left out."""
    pairs = [(case.found.to_row(), case.truth.to_row()) for case in cases if case.found and case.truth]
    compared = {
        name: bland_altman([ours[name] for ours, _ in pairs], [theirs[name] for _, theirs in pairs]) for name in UNITS
    }
    return {name: agreement for name, agreement in compared.items() if agreement is not None}
