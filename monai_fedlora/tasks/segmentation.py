"""Segmentation: a class per voxel, in every frame; structures that a case's mask does not outline are left out.

In memory a target is one whole number per voxel whose bits say which classes the voxel may have: one bit where the mask
says it, and, where the mask says background, also the bits of all structures that it does not outline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.losses import DiceLoss
from monai.metrics.meandice import compute_dice
from monai.utils import evenly_divisible_all_gather
from torch import Tensor, nn

from monai_fedlora.data.collected import TargetKind
from monai_fedlora.engines.dataset import PrepareCases
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.engines.native_results import DICE, NATIVE, NativeResults, from_files, heart_numbers, native_limits
from monai_fedlora.engines.predictions import StudyTable
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.measures.agreement import mean_of_known, over_patients
from monai_fedlora.measures.heart_function import UNITS
from monai_fedlora.measures.structures import PHASES
from monai_fedlora.networks.catalogue import architecture
from monai_fedlora.site_report import MOST_CASES, MetricsForm
from monai_fedlora.tasks.task import EXPORT, SCORE, AgreementNames, Task, no_postprocessing

KEY = "dice"
_MOST_STRUCTURES = 30


def allowed_classes(batch: Mapping[str, Any]) -> Tensor | None:
    """The classes that every voxel of a batch may have, as bits.

    Args:
        batch: with ``mask`` (B, F, \\*spatial), 0 for the background and 1 to K for the structures, and ``labelled``
            (B, K + 1), whether the masks outline each of them, the background first.

    Returns:
        (B, F, \\*spatial) whole numbers, of eight bits where these suffice; None for a batch without masks.
    """
    if not isinstance(batch.get("mask"), Tensor):
        return None
    mask, labelled = batch["mask"].long(), batch["labelled"].bool()
    bits = 1 << torch.arange(labelled.shape[1])
    unknown = 1 + (bits * ~labelled)[:, 1:].sum(dim=1)
    table = torch.where(labelled, bits, unknown[:, None])
    table[:, 0] = unknown
    packed = torch.stack([row[found] for row, found in zip(table, mask, strict=True)])
    return packed.to(torch.uint8 if labelled.shape[1] <= 8 else torch.int32)


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Which classes a voxel may have, (B, F, C, \\*spatial) bool, from :func:`allowed_classes`."""
    bits = torch.arange(classes, device=target.device).view(-1, *[1] * (target.ndim - 2))
    return (target.unsqueeze(2).int() >> bits) & 1 > 0


def by_frame(logits: Tensor, target: Tensor) -> Tensor:
    """Logits (B, F, C, \\*spatial); of a network for images of one frame they come as (B, C, \\*spatial)."""
    return logits.unsqueeze(1) if logits.ndim == target.ndim else logits


def outlined(allowed: Tensor) -> Tensor:
    """Which structures a case outlines, (B, K) bool, from :func:`one_hot`."""
    both = allowed[:, :, :1] & allowed[:, :, 1:]
    return ~both.transpose(1, 2).flatten(2).any(dim=2)


class MarginalDiceCrossEntropy(nn.Module):
    """Cross entropy plus Dice loss, each with weight 1 (ours), of logits and :func:`allowed_classes`.

    The cross entropy takes the probability of all classes that a voxel may have together (the marginal probability, as
    in Shi et al., Medical Image Analysis 2021). The Dice loss is MONAI's, over the structures that a case outlines; a
    structure that is nowhere in a frame is left to the cross entropy, because its Dice loss would have a gradient of
    almost zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dice = DiceLoss(reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each case, (B,).

        Args:
            logits: (B, F, C, \\*spatial), or (B, C, \\*spatial) for one frame.
            target: (B, F, \\*spatial).
        """
        logits = by_frame(logits, target).float()
        allowed = one_hot(target, logits.shape[2])
        known = logits.log_softmax(dim=2)
        entropy = -known.masked_fill(~allowed, -math.inf).logsumexp(dim=2).flatten(1).mean(dim=1)
        truth = allowed[:, :, 1:]
        counts = outlined(allowed)[:, None] & truth.flatten(3).any(dim=3)
        dice = self._dice(known.exp()[:, :, 1:].flatten(0, 1), truth.flatten(0, 1).float())
        dice = dice.reshape(counts.shape) * counts
        return entropy + dice.flatten(1).sum(dim=1) / counts.flatten(1).sum(dim=1).clamp(min=1)


def _loss(
    *, names: int, cases: Sequence[Mapping[str, Any]], class_weights: Any, label_smoothing: float, device: Any
) -> nn.Module:
    if class_weights is not None or label_smoothing:
        raise ConfigError("class_weights and label_smoothing are for classification; set null and 0 for segmentation")
    return MarginalDiceCrossEntropy()


def case_scores(output: Any) -> Tensor:
    """Dice coefficients (B, F, K) of a decollated engine output, NaN where one is undefined.

    A structure that neither the network nor the mask has in a frame, or that the mask does not outline, has none; one
    that either alone has, 0. Masks are compared on the network's grid.
    """
    rows = []
    for item in output:
        target = torch.as_tensor(item["label"])[None]
        logits = by_frame(torch.as_tensor(item["pred"])[None], target)
        allowed = one_hot(target, logits.shape[2])
        found = logits.argmax(dim=2)
        ours = torch.stack([found == number for number in range(1, logits.shape[2])], dim=2)[0].float()
        truth = (allowed[:, :, 1:] & ~allowed[:, :, :1])[0].float()
        dice = compute_dice(ours, truth, ignore_empty=False)
        empty = ~(ours.flatten(2).any(dim=2) | truth.flatten(2).any(dim=2))
        rows.append(dice.masked_fill(empty | ~outlined(allowed), math.nan))
    return torch.stack(rows)


def segmentation_metrics(scores: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Summarise :func:`case_scores` (N, F, K) of a data set.

    Returns:
        ``dice``: mean over cases of each one's mean over structures and frames, with the limits ``dice_low`` and
        ``dice_high`` of its 95 % interval (bootstrap over cases); ``dice_<structure>``, and for a pair of frames
        ``dice_<structure>_ED`` and ``_ES``, means over cases; ``cases_<structure>`` with such a mean; ``n`` cases. None
        where a value is undefined.
    """
    whole = over_patients(mean_of_known(case) for case in scores)
    found: dict[str, Any] = dict.fromkeys(_numbers(names))
    if whole is not None:
        found |= {KEY: whole.mean, f"{KEY}_low": whole.low, f"{KEY}_high": whole.high}
    for number, name in enumerate(names):
        cases = [mean_of_known(case) for case in scores[:, :, number]]
        by_case = torch.tensor([math.nan if case is None else case for case in cases], dtype=torch.float64)
        found[f"{KEY}_{name}"] = mean_of_known(by_case)
        found[_counted(names)[f"{KEY}_{name}"]] = sum(case is not None for case in cases)
        if scores.shape[1] == len(PHASES):
            for frame, phase in enumerate(PHASES):
                found[f"{KEY}_{name}_{phase}"] = mean_of_known(scores[:, frame, number])
    return {**found, "n": len(scores)}


def _numbers(names: Sequence[str]) -> list[str]:
    parts = [part for name in names for part in (name, *(f"{name}_{phase}" for phase in PHASES))]
    return [KEY, f"{KEY}_low", f"{KEY}_high", *(f"{KEY}_{part}" for part in parts)]


def _counted(names: Sequence[str]) -> dict[str, str]:
    return {f"{KEY}_{name}": f"cases_{name}" for name in names}


class SegmentationMetrics(EpochMetrics):
    """Compute :func:`segmentation_metrics` once per epoch, over all processes.

    Args:
        names: of the structures.
        key: the metric that decides which epoch is best.

    Raises:
        ConfigError: ``key`` is not a metric.
    """

    def __init__(self, *, names: Sequence[str], key: str = KEY) -> None:
        self.structures = list(names)
        super().__init__(key=key, names=_numbers(names), output_transform=case_scores)

    def reset(self) -> None:
        """Forget the cases seen so far."""
        self._scores: list[Tensor] = []

    def update(self, output: Tensor) -> None:
        """Add the scores (B, F, K) of a batch."""
        self._scores.append(output)

    def compute(self) -> dict[str, Any]:
        """Return :func:`segmentation_metrics` of every process's cases.

        Raises:
            DataError: no case was seen.
        """
        if not self._scores:
            raise DataError("there is no case to evaluate; the data list's split is empty")
        return segmentation_metrics(evenly_divisible_all_gather(torch.cat(self._scores), concat=True), self.structures)


class DiceWriter(StudyTable):
    """Write ``study, structure, frame, dice`` of every study, see :class:`StudyTable`; empty where undefined.

    Args:
        output_dir: receives the file.
        names: of the structures.
        filename: name of the CSV file.
        labels: False for an evaluation without masks, of which nothing could be written.

    Raises:
        ConfigError: several processes would each hold a part of the studies; or there are no masks.
    """

    def __init__(self, *, output_dir: str | Path, names: Sequence[str], filename: str, labels: bool = True) -> None:
        if not labels:
            raise ConfigError("Dice coefficients need masks; evaluate cases that have some")
        self.names = list(names)
        super().__init__(output_dir=output_dir, filename=filename, header=["study", "structure", "frame", "dice"])

    def rows(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterable[Sequence[str]]:
        """One row for each structure and frame."""
        (frames,) = case_scores([output]).tolist()
        phases = PHASES if len(frames) == len(PHASES) else tuple(map(str, range(1, len(frames) + 1)))
        return [
            [str(item["subject"]), name, phase, "" if math.isnan(value) else f"{value:.6f}"]
            for phase, values in zip(phases, frames, strict=True)
            for name, value in zip(self.names, values, strict=True)
        ]


def _check_output(output: tuple[int, ...], image: tuple[int, ...]) -> str | None:
    spatial = image[1:]
    if output[-len(spatial) :] == spatial and len(output) - len(spatial) in (2, 3) and _channels(output, image) > 1:
        return None
    return (
        f"segmentation needs one logit per voxel for the background and each structure, (1, 1 + structures, "
        f"{', '.join(map(str, spatial))}), or with an axis of frames in front of them"
    )


def _channels(output: tuple[int, ...], image: tuple[int, ...]) -> int:
    return output[-len(image)]


def _read(case: Mapping[str, Any], image: Tensor, name: str) -> dict[str, Any]:
    value = case["mask"]
    given = value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(np.asarray(value))
    mask = given[None] if given.ndim == image.ndim - 1 else given
    if mask.ndim != image.ndim or mask.shape[1:] != image.shape[1:] or mask.shape[0] not in (1, image.shape[0]):
        raise DataError(
            f"{name} has a mask of shape {tuple(given.shape)} beside an image of shape {tuple(image.shape)}; a mask "
            "lies on the image's grid, once or for each frame"
        )
    if mask.is_complex() or not bool((mask == mask.long()).all()) or bool((mask < 0).any()):
        raise DataError(f"{name} has a mask with values that are no whole numbers from 0; resample masks by nearest")
    found: dict[str, Any] = {"mask": mask.long().clone()}
    if "labelled" in case:
        found["labelled"] = torch.as_tensor(np.asarray(case["labelled"])).bool().flatten()
    return found


def _complete(entries: Mapping[str, Any], names: Sequence[str], case: str) -> dict[str, Any]:
    labelled = entries.get("labelled", torch.ones(len(names) + 1, dtype=torch.bool))
    if int(entries["mask"].max()) > len(names):
        raise DataError(
            f"{case} has the value {int(entries['mask'].max())} in its mask, and the structures are 1 to {len(names)}: "
            f"{', '.join(names)}"
        )
    if len(labelled) != len(names) + 1 or not bool(labelled[0]):
        raise DataError(
            f"{case}: labelled needs {len(names) + 1} marks, one for the background, which is True, and each structure"
        )
    return {"mask": entries["mask"].to(torch.uint8), "labelled": labelled}


def _metrics(key: str, names: Sequence[str]) -> SegmentationMetrics:
    return SegmentationMetrics(names=names, key=key)


def _predictions(*, output_dir: Any, names: Sequence[str], filename: str, labels: bool) -> DiceWriter:
    return DiceWriter(output_dir=output_dir, names=names, filename=filename, labels=labels)


def _form(names: Sequence[str]) -> MetricsForm:
    counts = dict.fromkeys(_counted(names).values(), (0.0, float(MOST_CASES)))
    return MetricsForm(numbers=dict.fromkeys(_numbers(names), (0.0, 1.0)) | counts | native_limits(names))


def _on_files(*, dataset: Any, names: Sequence[str], size: str, output_dir: str | None) -> NativeResults:
    grid = None
    if from_files(dataset) and (form := architecture(size)).spacing is not None:  # a network of one's own has no size
        grid = (form.image_size, form.spacing)
    return NativeResults(dataset=dataset, names=names, grid=grid, output_dir=output_dir)


def _scores(output: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """Mean Dice over structures and frames, that of each structure, in all frames and in each of a pair, and what was
    measured on the files' grid."""
    (frames,) = case_scores([output])
    found = {SCORE: mean_of_known(frames)}
    for number, name in enumerate(names):
        found[f"{KEY}_{name}"] = mean_of_known(frames[:, number])
        if len(frames) == len(PHASES):
            found |= {
                f"{KEY}_{name}_{phase}": mean_of_known(value)
                for phase, value in zip(PHASES, frames[:, number], strict=True)
            }
    return {**found, **output.get(NATIVE, {})}


def _agreements(names: Sequence[str]) -> dict[str, AgreementNames]:
    return {
        number: AgreementNames(UNITS[number], *(f"{number}_{part}" for part in ("bias", "low", "high")))
        for number in heart_numbers(names)
    }


SEGMENTATION = Task(
    name="segmentation",
    named="structures",
    least_names=1,
    most_names=_MOST_STRUCTURES,
    listed_as=("segmentation",),
    outputs=lambda names: names + 1,
    check_output=_check_output,
    channels=_channels,
    collected=TargetKind(key="mask", read=_read, complete=_complete),
    prepare=PrepareCases(target=allowed_classes, turns=True),
    along=("mask",),
    gives_masks=True,
    loss=_loss,
    metrics=_metrics,
    postprocessing=no_postprocessing,
    predictions=_predictions,
    form=_form,
    scores=_scores,
    by_patient=lambda names: {"Dice on the files' grid": lambda numbers: numbers.get(DICE)},
    sections=frozenset({EXPORT}),
    on_files=_on_files,
    key=KEY,
    measures={KEY: "mean Dice"},
    file_measures={DICE: "Dice,\nfiles' grid", "lv_ef_error": "LV EF error\n(points)"},
    more=lambda names: {f"{KEY}_{name}": f"Dice of {name}" for name in names},
    agreements=_agreements,
    counted=_counted,
    settings={"selection_metric": KEY, "class_weights": None, "label_smoothing": 0.0},
)
