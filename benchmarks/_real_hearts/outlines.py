"""Outlines of a network on real hearts: agreement with the reference on the grid of the files, over all slices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _real_hearts.grids import Grid, Truth, resampled, to_files
from _real_hearts.patients import CLASSES
from monai_fedlora.exporting.segmenter import mean_turned_back
from monai_fedlora.measures.agreement import over_patients
from monai_fedlora.measures.mask_results import CaseResult, heart_over_patients, measure_case, structures_over_patients
from monai_fedlora.measures.structures import HEART
from monai_fedlora.networks.cinema import convunetr
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.networks.weights import load_backbone
from monai_fedlora.transforms.localise import normalise_cine
from monai_fedlora.transforms.orientation import all_orders, filled_slices

PHASES = ("ED", "ES")
PLACES = ("base", "mid", "apex")
WORST = 5


def decoder(*, size: str, weights: str | Path) -> ConvUNetR:
    """Encoder and decoder of a file."""
    network = convunetr(size, out_chans=len(HEART) + 1)
    if not load_backbone(network, weights).heads:
        raise SystemExit(f"the decoder of {weights} is for other structures than {', '.join(HEART)}")
    return network.eval()


@torch.inference_mode()
def outlined(network: ConvUNetR, truth: Truth, grid: Grid) -> np.ndarray:
    """The masks (2, X, Y, Z) that a clinic gets on the grid of a patient's files.

    Where these do not tell how the patient lies, logits are averaged over all orders of the axes, as in an export.
    """
    image, place = resampled(truth, grid)
    prepared = normalise_cine(image, grid.image_size, grid.spacing[0])
    if truth.oriented:
        logits = network(prepared[None])
    else:
        logits = mean_turned_back(
            torch.cat([network(one[None]) for one in all_orders(prepared)]), filled_slices(prepared)
        )
    return to_files(logits[0].softmax(dim=1), truth, grid, place)


def by_place(found: np.ndarray, truth: Truth) -> dict[tuple[str, str], list[float]]:
    """Dice of single slices by third of the heart and structure, both frames together.

    The slices of a frame with a left ventricle in the reference are divided into thirds. The files do not say where the
    base is: the end whose blood pools at ED are larger is taken for it.
    """
    rows: dict[tuple[str, str], list[float]] = {}
    structures = [number for number in (1, 2, 3) if truth.labelled[number]]
    blood = np.isin(truth.mask[0], (1, 3)).sum(axis=(0, 1))
    depth = len(blood)
    backwards = blood[: depth // 2].sum() < blood[depth - depth // 2 :].sum()
    for ours, theirs in zip(found, truth.mask, strict=True):
        there = np.flatnonzero((theirs == 1).any(axis=(0, 1)))
        there = there[::-1] if backwards else there
        for rank, z in enumerate(there):
            place = PLACES[rank * 3 // len(there)]
            for number in structures:
                a, b = ours[..., z] == number, theirs[..., z] == number
                if a.any() or b.any():
                    dice = 2 * float((a & b).sum()) / float(a.sum() + b.sum())
                    rows.setdefault((place, HEART[number - 1]), []).append(dice)
    return rows


def agreement(found: Sequence[np.ndarray], truths: Sequence[Truth]) -> tuple[dict[str, Any], list[CaseResult]]:
    """Figures over patients, and each patient's for those who look for the worst."""
    cases, places = [], {}
    for number, (mask, truth) in enumerate(zip(found, truths, strict=True)):
        cases.append(
            measure_case(
                mask,
                truth.mask,
                subject=str(number),
                structures=HEART,
                phases=PHASES,
                spacing=truth.spacing,
                labelled=truth.labelled,
            )
        )
        for key, values in by_place(mask, truth).items():
            places.setdefault(key, []).extend(values)
    mean = over_patients(_mean_dice(case, "ED") for case in cases)
    return {
        "structures": [_rounded(summary.to_row()) for summary in structures_over_patients(cases)],
        "mean_dice_ed": None if mean is None else _rounded(mean.to_row()),
        "heart": {name: _rounded(row.to_row()) for name, row in heart_over_patients(cases).items()},
        "dice_of_slices": {
            f"{place} {structure}": {"mean": round(float(np.mean(values)), 3), "slices": len(values)}
            for (place, structure), values in sorted(places.items())
        },
    }, cases


def worst(cases: Sequence[CaseResult], labels: Sequence[int]) -> list[str]:
    """A line for each of the patients with the lowest mean Dice at ED, by rank, without a name."""
    ranked = sorted(zip(cases, labels, strict=True), key=lambda pair: _mean_dice(pair[0], "ED") or 0.0)
    lines = []
    for rank, (case, label) in enumerate(ranked[:WORST], 1):
        dice = ", ".join(f"{one.structure} {one.phase} {_told(one.dice)}" for one in case.overlaps)
        error = None if case.found is None or case.truth is None else case.found.minus(case.truth)["lv_ef"]
        told = "no LV ejection fraction" if error is None else f"LV ejection fraction off by {error:.0f} points"
        lines.append(f"{rank}. {CLASSES[label]}: {dice}; {told}")
    return lines


def _told(dice: float | None) -> str:
    return "none" if dice is None else f"{dice:.2f}"


def _mean_dice(case: CaseResult, phase: str) -> float | None:
    values = [one.dice for one in case.overlaps if one.phase == phase and one.dice is not None]
    return float(np.mean(values)) if values else None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}
