"""Masks of cines measured where a reader drew them: on the grid of the study's own files, with all of their slices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_fedlora.engines.distributed import world_size
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import csv_cell, csv_text, write_text
from monai_fedlora.measures.agreement import FEWEST_PATIENTS
from monai_fedlora.measures.mask_results import (
    CaseResult,
    heart_over_patients,
    measure_case,
    structures_over_patients,
)
from monai_fedlora.measures.structures import LV, MYO, PHASES, RV
from monai_fedlora.transforms.file_masks import CineFiles
from monai_fedlora.transforms.mask_reading import outlined

DICE = "native_dice"
"""Mean over patients of each one's mean Dice over structures and phases."""
HAUSDORFF = "hausdorff_95"
NATIVE = "native"
"""Where an evaluation's output of a case holds its :func:`case_numbers`."""
HEART_NUMBERS = {
    "lv_edv": LV, "lv_esv": LV, "lv_ef": LV, "lv_mass": MYO, "rv_edv": RV, "rv_esv": RV, "rv_ef": RV,
}  # fmt: skip
"""Numbers of a heart that are compared with the reader's, and the structure that each of them needs."""
_FARTHEST = 1000.0
_LARGEST = 10_000.0
_MOST = 1_000_000.0


def native_limits(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """What :func:`native_metrics` finds of these structures, with the limits of each number."""
    parts = [f"{name}_{phase}" for name in names for phase in PHASES]
    limits = {DICE: (0.0, 1.0)}
    for name, highest in ((DICE, 1.0), (HAUSDORFF, _FARTHEST), ("unmatched", _MOST)):
        limits |= {f"{name}_{part}": (0.0, highest) for part in parts}
    for number in heart_numbers(names):
        limits |= {f"{number}_{what}": (-_LARGEST, _LARGEST) for what in ("bias", "low", "high")}
        limits[f"{number}_error"] = (0.0, _LARGEST)
    return limits


def native_metrics(cases: Iterable[CaseResult], names: Sequence[str]) -> dict[str, float | None]:
    """Summarise patients.

    Returns:
        ``native_dice``, see :data:`DICE`; by structure and phase ``native_dice_LV_ED`` and ``hausdorff_95_LV_ED`` in
        mm, means over patients, and ``unmatched_LV_ED``, the patients with the structure in one of both masks alone;
        of each of :data:`HEART_NUMBERS` ``lv_ef_bias``, measured minus the reader's, with its limits of agreement
        ``lv_ef_low`` and ``lv_ef_high``, and ``lv_ef_error``, the mean absolute difference: mL, %, or g. None where a
        value is undefined, and of the heart's numbers below
        :data:`monai_fedlora.measures.agreement.FEWEST_PATIENTS` patients: with one or two, a bias tells theirs.
    """
    found = list(cases)
    metrics: dict[str, float | None] = dict.fromkeys(native_limits(names))
    means = [mean for case in found if (mean := case_numbers(case, names)[DICE]) is not None]
    metrics[DICE] = math.fsum(means) / len(means) if means else None
    for summary in structures_over_patients(found):
        part = f"{summary.structure}_{summary.phase}"
        metrics[f"{DICE}_{part}"] = None if summary.dice is None else summary.dice.mean
        metrics[f"{HAUSDORFF}_{part}"] = None if summary.hausdorff_95 is None else summary.hausdorff_95.mean
        metrics[f"unmatched_{part}"] = float(summary.missed + summary.invented)
    agreement = heart_over_patients(found)
    for number in heart_numbers(names):
        if (both := agreement.get(number)) is not None and both.n >= FEWEST_PATIENTS:
            metrics |= {f"{number}_bias": both.bias, f"{number}_low": both.low, f"{number}_high": both.high}
            metrics[f"{number}_error"] = both.mean_absolute
    return metrics


def case_numbers(case: CaseResult, names: Sequence[str]) -> dict[str, float | None]:
    """A patient's ``native_dice``, the mean over structures and phases, and by these ``native_dice_LV_ED`` and
    ``hausdorff_95_LV_ED`` in mm; None where one is undefined."""
    parts = [f"{name}_{phase}" for name in names for phase in PHASES]
    numbers: dict[str, float | None] = dict.fromkeys(
        [DICE, *(f"{what}_{part}" for what in (DICE, HAUSDORFF) for part in parts)]
    )
    for one in case.overlaps:
        part = f"{one.structure}_{one.phase}"
        numbers |= {f"{DICE}_{part}": one.dice, f"{HAUSDORFF}_{part}": one.hausdorff_95}
    if known := [one.dice for one in case.overlaps if one.dice is not None]:
        numbers[DICE] = float(np.mean(known))
    return numbers


def heart_numbers(names: Sequence[str]) -> list[str]:
    """Those of :data:`HEART_NUMBERS` whose structure is among the names."""
    return [number for number, needed in HEART_NUMBERS.items() if needed in names]


def from_files(dataset: Any) -> bool:
    """Whether cases of a data set are cines in files; those of a program's own tensors are not."""
    return any({"ed", "cine"} & item.keys() for item in getattr(dataset, "data", ()))


class NativeResults:
    """Add :func:`native_metrics` to the metrics of an evaluation of cines, and write its patients' numbers.

    Cases that come without files, from a program's own tensors, have no other grid than the network's; an evaluation
    without any case with files is left as it is.

    Args:
        dataset: of the evaluation, whose ``data`` name the files of its cases.
        names: of the structures.
        grid: (X, Y, Z) of the network, and the size of its voxels in mm; None for other images, which are left as they
            are.
        output_dir: receives ``structures.csv``, a row for each patient, structure and phase, and ``hearts.csv``, one
            for each patient with volumes, ejection fractions and mass, those of the reader, the differences, and why
            the masks would give a reader no volume; None writes nothing.

    Raises:
        ConfigError: several processes would each hold a part of the patients.
    """

    def __init__(
        self,
        *,
        dataset: Any,
        names: Sequence[str],
        grid: tuple[Sequence[int], Sequence[float]] | None,
        output_dir: str | Path | None = None,
    ) -> None:
        if world_size() > 1:
            raise ConfigError("masks are measured by one process; start the evaluation without torchrun")
        self.names = list(names)
        self.grid = grid
        self.folder = None if output_dir is None else Path(output_dir)
        items = [] if grid is None else getattr(dataset, "data", ())
        self._items = {str(item["subject"]): item for item in items if {"ed", "cine"} & item.keys()}
        self.cases: list[CaseResult] = []

    def attach(self, engine: Engine) -> None:
        """Measure what ``engine`` evaluates."""
        engine.add_event_handler(Events.STARTED, self._reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)
        if self.folder is not None:
            engine.add_event_handler(Events.COMPLETED, self._write)

    def _reset(self, engine: Engine) -> None:
        self.cases = []

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            source = self._items.get(str(item.get("subject")))
            if source is not None and "mask_values" in source:
                self.cases.append(self._measured(source, output))
                output[NATIVE] = case_numbers(self.cases[-1], self.names)

    def _measured(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> CaseResult:
        assert self.grid is not None
        shape, spacing = self.grid
        files = CineFiles.of(item)
        masks = files.restored(torch.as_tensor(output["pred"]).float().softmax(dim=1), spacing=spacing)
        case = measure_case(
            files.together(masks),
            files.together(files.drawn(item)),
            subject=str(item["subject"]),
            structures=self.names,
            phases=PHASES,
            spacing=files.spacing,
            labelled=outlined(item["mask_values"]).tolist(),
        )
        given = files.given(masks, structures=self.names, seen=(shape[2], spacing[2]))
        return replace(case, no_volume_because=given.no_volume_because)

    def _tell(self, engine: Engine) -> None:
        if self.cases:
            state: Any = engine.state
            state.metric_details = {**state.metric_details, **native_metrics(self.cases, self.names)}

    def _write(self, engine: Engine) -> None:
        if self.cases and self.folder is not None:
            write_text(self.folder / "structures.csv", _csv([row for case in self.cases for row in case.to_rows()]))
            write_text(self.folder / "hearts.csv", _csv([case.heart_row() for case in self.cases]))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    head = list(rows[0]) if rows else []
    return csv_text([head, *([csv_cell(row.get(name)) for name in head] for row in rows)])
