"""Regression: numbers per case, such as an ejection fraction, of which some may be unknown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import evenly_divisible_all_gather
from torch import Tensor, nn

from monai_fedlora.data.collected import TargetKind
from monai_fedlora.engines.dataset import PrepareCases
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.engines.predictions import StudyTable
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.measures.agreement import over_patients
from monai_fedlora.site_report import MetricsForm
from monai_fedlora.tasks.task import SCORE, Task, by_key, no_postprocessing

KEY = "mean_absolute_error"
_LARGEST = 1e9


class KnownSmoothL1(nn.Module):
    """Smooth L1 loss (Huber's, with its bend at a difference of 1) over the values of a case that are known.

    Values are compared as they are: choose units in which a difference of 1 matters, so that none outweighs the others.
    """

    def forward(self, found: Tensor, target: Tensor) -> Tensor:
        """The loss of each case, (B,); 0 for one without a known value.

        Args:
            found, target: (B, V); NaN in the target where a value is unknown.
        """
        known = ~target.isnan()
        losses = nn.functional.smooth_l1_loss(found.float(), target.nan_to_num().float(), reduction="none") * known
        return losses.sum(dim=1) / known.sum(dim=1).clamp(min=1)


def _loss(
    *, names: int, cases: Sequence[Mapping[str, Any]], class_weights: Any, label_smoothing: float, device: Any
) -> nn.Module:
    if class_weights is not None or label_smoothing:
        raise ConfigError("class_weights and label_smoothing are for classification; set null and 0 for regression")
    return KnownSmoothL1()


def found_and_true(output: Any) -> Tensor:
    """Predicted and true values (B, 2, V) of a decollated engine output."""
    return torch.stack(
        [torch.stack([torch.as_tensor(item[key]).double().flatten() for key in ("pred", "label")]) for item in output]
    )


def regression_metrics(pairs: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Summarise predicted and true values (N, 2, V) of a data set.

    Returns:
        ``mean_absolute_error``: mean over cases of each one's mean over its known values, with the limits
        ``mean_absolute_error_low`` and ``_high`` of its 95 % interval (bootstrap over cases); by value
        ``mean_absolute_error_<value>`` and ``bias_<value>``, predicted minus true; ``n`` cases. None where undefined.

    Raises:
        DataError: a prediction is not finite.
    """
    if not bool(pairs[:, 0].isfinite().all()):
        raise DataError("predictions are not finite; training diverged or an image is damaged")
    errors = pairs[:, 0] - pairs[:, 1]
    whole = over_patients(_mean(case.abs()) for case in errors)
    found: dict[str, Any] = dict.fromkeys(_numbers(names))
    if whole is not None:
        found |= {KEY: whole.mean, f"{KEY}_low": whole.low, f"{KEY}_high": whole.high}
    for number, name in enumerate(names):
        found[f"{KEY}_{name}"] = _mean(errors[:, number].abs())
        found[f"bias_{name}"] = _mean(errors[:, number])
    return {**found, "n": len(pairs)}


def _mean(values: Tensor) -> float | None:
    known = values[~values.isnan()].tolist()
    return math.fsum(known) / len(known) if known else None


def _numbers(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The metrics, with their limits."""
    errors = [KEY, f"{KEY}_low", f"{KEY}_high", *(f"{KEY}_{name}" for name in names)]
    return dict.fromkeys(errors, (0.0, _LARGEST)) | {f"bias_{name}": (-_LARGEST, _LARGEST) for name in names}


class RegressionMetrics(EpochMetrics):
    """Compute :func:`regression_metrics` once per epoch, over all processes.

    Args:
        names: of the values.
        key: the metric that decides which epoch is best; of errors a smaller one is better.

    Raises:
        ConfigError: ``key`` is not a metric.
    """

    def __init__(self, *, names: Sequence[str], key: str = KEY) -> None:
        self.values = list(names)
        errors = [name for name in _numbers(names) if name.startswith(KEY)]
        super().__init__(key=key, names=_numbers(names), lower_is_better=errors, output_transform=found_and_true)

    def reset(self) -> None:
        """Forget the cases seen so far."""
        self._pairs: list[Tensor] = []

    def update(self, output: Tensor) -> None:
        """Add the predicted and true values (B, 2, V) of a batch."""
        self._pairs.append(output)

    def compute(self) -> dict[str, Any]:
        """Return :func:`regression_metrics` of every process's cases.

        Raises:
            DataError: no case was seen, or a prediction is not finite.
        """
        if not self._pairs:
            raise DataError("there is no case to evaluate; the data list's split is empty")
        return regression_metrics(evenly_divisible_all_gather(torch.cat(self._pairs), concat=True), self.values)


class ValuesWriter(StudyTable):
    """Write ``study, <value>..., <value>_truth...`` for every study, see :class:`StudyTable`.

    Args:
        output_dir: receives the file.
        names: of the values.
        filename: name of the CSV file.
        labels: add the true values, empty where unknown.

    Raises:
        ConfigError: several processes would each hold a part of the studies.
    """

    def __init__(self, *, output_dir: str | Path, names: Sequence[str], filename: str, labels: bool = False) -> None:
        self.labels = labels
        header = ["study", *names, *(f"{name}_truth" for name in names if labels)]
        super().__init__(output_dir=output_dir, filename=filename, header=header)

    def rows(self, item: Mapping[str, Any], output: Mapping[str, Any]) -> Iterable[Sequence[str]]:
        """One row."""
        parts = ("pred", "label") if self.labels else ("pred",)
        values = [value for part in parts for value in torch.as_tensor(output[part]).flatten().tolist()]
        return [[str(item["subject"]), *("" if math.isnan(value) else f"{value:.6g}" for value in values)]]


def _check_output(output: tuple[int, ...], image: tuple[int, ...]) -> str | None:
    return None if len(output) == 2 else "regression needs one number per value, (1, values)"


def _read(case: Mapping[str, Any], image: Tensor, name: str) -> dict[str, Any]:
    try:
        values = torch.as_tensor(np.asarray(case["values"], dtype=np.float32)).flatten()
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} has values that are no numbers: {error}") from error
    if bool(values.isinf().any()):
        raise DataError(f"{name} has an infinite value; give NaN for one that is not known")
    return {"values": values.clone()}


def _complete(entries: Mapping[str, Any], names: Sequence[str], case: str) -> dict[str, Any]:
    if len(entries["values"]) != len(names):
        raise DataError(f"{case} has {len(entries['values'])} values, and {len(names)} are named: {', '.join(names)}")
    return dict(entries)


def _metrics(key: str, names: Sequence[str]) -> RegressionMetrics:
    return RegressionMetrics(names=names, key=key)


def _predictions(*, output_dir: Any, names: Sequence[str], filename: str, labels: bool) -> ValuesWriter:
    return ValuesWriter(output_dir=output_dir, names=names, filename=filename, labels=labels)


def _form(names: Sequence[str]) -> MetricsForm:
    return MetricsForm(numbers=_numbers(names))


def _scores(output: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """Mean absolute error over the known values, the predicted values and the true ones."""
    found, true = found_and_true([output])[0]
    values = dict(zip(names, found.tolist(), strict=True))
    return {
        SCORE: _mean((found - true).abs()),
        **values,
        **{f"{k}_truth": v for k, v in zip(names, true.tolist(), strict=True)},
    }


REGRESSION = Task(
    name="regression",
    named="values",
    least_names=1,
    listed_as=("regression",),
    outputs=lambda names: names,
    check_output=_check_output,
    collected=TargetKind(key="values", read=_read, complete=_complete),
    prepare=PrepareCases(target=by_key("values")),
    loss=_loss,
    metrics=_metrics,
    postprocessing=no_postprocessing,
    predictions=_predictions,
    form=_form,
    scores=_scores,
    gives_logits=False,
    key=KEY,
    measures={KEY: "mean absolute error"},
    lower_is_better=True,
    ends=None,
    more=lambda names: {f"{KEY}_{name}": f"error of {name}" for name in names},
    settings={"selection_metric": KEY, "class_weights": None, "label_smoothing": 0.0},
)
