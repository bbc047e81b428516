"""The means over cases that a bundle contains, and the contribution of a single case to each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.leakage import TEST, TRAINING, VALIDATION, Cases, Mean
from monai_fedlora.site_report import PERSONAL, SHARED


def feature_mean(
    name: str, value: Tensor, count: int, project: Tensor | None = None, members: tuple[str, ...] = (TRAINING,)
) -> Mean:
    """A mean over a site's cases of the inputs of the classification heads.

    Args:
        name: of the mean.
        value: (K,).
        count: number of members.
        project: (D, K) that the features were multiplied by; None for K = D.
        members: the splits that it was computed from.
    """

    def of(cases: Cases) -> Tensor:
        if cases.features is None:
            raise ExportError("what the heads read of the cases is not known")
        features = cases.features.double()
        return features if project is None else features @ project.double()

    return Mean(name=name, members=members, value=value, count=count, of=of)


def described_means(metadata: Mapping[str, Any]) -> Iterator[Mean]:
    """The means in a bundle's ``metadata.json``: log-likelihoods of the calibration, and the confusion matrix."""
    calibration = metadata["calibration"]
    temperature = float(calibration["temperature"])
    for split in (VALIDATION, TEST):
        if split in calibration:
            values = [calibration[split]["nll"][when] for when in ("before", "after")]
            yield _likelihood(
                split, values if calibration["fitted"] else values[1:], calibration[split]["n"], temperature
            )
    view = PERSONAL if metadata["provenance"]["site"] else SHARED
    confusion = metadata["eval_metrics"]["test"].get(view, {}).get("confusion_matrix")
    if confusion and (count := sum(map(sum, confusion))):
        share = torch.tensor(confusion, dtype=torch.float64).flatten() / count
        yield Mean(name="test confusion matrix", members=(TEST,), value=share, count=count, of=_cells)


def _likelihood(split: str, values: Sequence[float], count: int, temperature: float) -> Mean:
    def of(cases: Cases) -> Tensor:
        after = cases.losses[:, None]
        if len(values) == 1:
            return after
        before = torch.nn.functional.cross_entropy(
            cases.logits.double() * temperature, cases.labels.long(), reduction="none"
        )
        return torch.cat([before[:, None], after], dim=1)

    value = torch.tensor(values, dtype=torch.float64)
    return Mean(name=f"{split} log-likelihood", members=(split,), value=value, count=count, of=of)


def _cells(cases: Cases) -> Tensor:
    """(N, C * C) one-hot cell of the confusion matrix of each case."""
    classes = cases.logits.shape[1]
    cell = cases.labels.long() * classes + cases.logits.argmax(dim=1)
    return torch.nn.functional.one_hot(cell, classes**2).double()
