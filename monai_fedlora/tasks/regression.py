"""Regression: numbers per case, such as an ejection fraction, of which some may be unknown.

Where the cases' values have a scale (:mod:`monai_fedlora.data.value_scale`), a network gives numbers on it: the loss
takes the targets there, and an evaluation brings the network's numbers back into the values' units before it measures
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, MapTransform
from monai.utils import evenly_divisible_all_gather
from torch import Tensor, nn

from monai_fedlora.data.collected import TargetKind
from monai_fedlora.data.value_scale import Scale
from monai_fedlora.engines.dataset import PrepareCases
from monai_fedlora.engines.epoch_metrics import EpochMetrics
from monai_fedlora.engines.predictions import StudyTable
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.measures.agreement import FEWEST_PATIENTS, bland_altman, mean_of_known, over_patients
from monai_fedlora.measures.heart_function import UNITS
from monai_fedlora.site_report import MOST_CASES, MetricsForm
from monai_fedlora.tasks.task import EXPORT, SCORE, AgreementNames, Task, no_postprocessing

KEY = "scaled_error"
ERROR = "mean_absolute_error"
_LARGEST = 1e9


class KnownSmoothL1(nn.Module):
    """Smooth L1 loss (Huber's, with its bend at a difference of 1) over the values of a case that are known.

    Args:
        scale: that the network's numbers are on, and the targets are brought to. Without one they are compared as they
            are: choose units in which a difference of 1 matters, so that none outweighs the others.
    """

    def __init__(self, scale: Scale = ()) -> None:
        super().__init__()
        self._scale = tuple(scale)

    def forward(self, found: Tensor, target: Tensor) -> Tensor:
        """The loss of each case, (B,); 0 for one without a known value.

        Args:
            found, target: (B, V); NaN in the target where a value is unknown.
        """
        known = ~target.isnan()
        if self._scale:
            centre, spread = target.new_tensor(self._scale).unbind(dim=1)
            target = (target - centre) / spread
        losses = nn.functional.smooth_l1_loss(found.float(), target.nan_to_num().float(), reduction="none") * known
        return losses.sum(dim=1) / known.sum(dim=1).clamp(min=1)


class InUnits(MapTransform):
    """Bring numbers (V,) from a scale into the values' units.

    Args:
        scale: for each value.
        keys: of the numbers.
    """

    def __init__(self, *, scale: Scale, keys: Sequence[str] = ("pred",)) -> None:
        super().__init__(keys)
        self._scale = tuple(scale)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A case's outputs, with numbers in their units."""
        found = dict(data)
        for key in self.key_iterator(found):
            numbers = torch.as_tensor(found[key]).float()
            centre, spread = numbers.new_tensor(self._scale).unbind(dim=1)
            found[key] = numbers * spread + centre
        return found


def values_of(batch: Mapping[str, Any]) -> Tensor | None:
    """The values (B, V) of a batch, float32; None for one without. Lists of numbers come as one tensor per value."""
    found = batch.get("values")
    if isinstance(found, (list, tuple)):
        found = torch.stack([torch.as_tensor(column) for column in found], dim=1)
    return found.float() if isinstance(found, Tensor) else None


def _loss(
    *,
    names: int,
    cases: Sequence[Mapping[str, Any]],
    class_weights: Any,
    label_smoothing: float,
    device: Any,
    scale: Scale = (),
) -> nn.Module:
    if class_weights is not None or label_smoothing:
        raise ConfigError("class_weights and label_smoothing are for classification; set null and 0 for regression")
    return KnownSmoothL1(scale)


def found_and_true(output: Any) -> Tensor:
    """Predicted and true values (B, 2, V) of a decollated engine output."""
    return torch.stack(
        [torch.stack([torch.as_tensor(item[key]).double().flatten() for key in ("pred", "label")]) for item in output]
    )


def regression_metrics(pairs: Tensor, names: Sequence[str], scale: Scale = ()) -> dict[str, Any]:
    """Summarise predicted and true values (N, 2, V) of a data set.

    Args:
        pairs: in the values' units.
        names: of the values.
        scale: of the values; without one, the distances that errors are divided by are 1.

    Returns:
        ``scaled_error``: mean over cases of each one's mean over its known values of the absolute error, each divided
        by the usual distance of its value's scale, so that none outweighs the others by its unit, with the limits
        ``scaled_error_low`` and ``_high`` of its 95 % interval (bootstrap over cases); by value
        ``mean_absolute_error_<value>``, ``bias_<value>``, predicted minus true, the limits of agreement
        ``agreement_low_<value>`` and ``agreement_high_<value>``, 1.96 standard deviations of these differences from the
        bias, and Pearson's ``correlation_<value>``; ``cases_<value>`` of which it is known; ``n`` cases. None where
        undefined, and by value below :data:`monai_fedlora.measures.agreement.FEWEST_PATIENTS` known ones: with one or
        two, a bias tells theirs. Each value's numbers are in its unit.

    Raises:
        DataError: a prediction is not finite.
    """
    if not bool(pairs[:, 0].isfinite().all()):
        raise DataError("predictions are not finite; training diverged or an image is damaged")
    errors = pairs[:, 0] - pairs[:, 1]
    whole = over_patients(_scaled_error(case, scale) for case in errors)
    found: dict[str, Any] = dict.fromkeys(_numbers(names))
    if whole is not None:
        found |= {KEY: whole.mean, f"{KEY}_low": whole.low, f"{KEY}_high": whole.high}
    for number, name in enumerate(names):
        ours, theirs = (
            [None if math.isnan(value) else value for value in column] for column in pairs[:, :, number].T.tolist()
        )
        found[_counted(names)[f"{ERROR}_{name}"]] = sum(value is not None for value in theirs)
        agreement = bland_altman(ours, theirs)
        if agreement is not None and agreement.n >= FEWEST_PATIENTS:
            found[f"{ERROR}_{name}"] = agreement.mean_absolute
            found[f"bias_{name}"] = agreement.bias
            found[f"agreement_low_{name}"] = agreement.low
            found[f"agreement_high_{name}"] = agreement.high
            found[f"correlation_{name}"] = agreement.correlation
    return {**found, "n": len(pairs)}


def _scaled_error(errors: Tensor, scale: Scale) -> float | None:
    """A case's mean over its known values of their absolute errors (V,), each in usual distances of its value."""
    spread = errors.new_tensor([distance for _, distance in scale]) if scale else 1.0
    return mean_of_known(errors.abs() / spread)


def _errors(names: Sequence[str]) -> list[str]:
    return [KEY, f"{KEY}_low", f"{KEY}_high", *(f"{ERROR}_{name}" for name in names)]


def _numbers(names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The metrics, with their limits."""
    differences = [f"{part}_{name}" for name in names for part in ("bias", "agreement_low", "agreement_high")]
    return (
        dict.fromkeys(_errors(names), (0.0, _LARGEST))
        | dict.fromkeys(differences, (-_LARGEST, _LARGEST))
        | {f"correlation_{name}": (-1.0, 1.0) for name in names}
    )


def _counted(names: Sequence[str]) -> dict[str, str]:
    return {f"{ERROR}_{name}": f"cases_{name}" for name in names}


class RegressionMetrics(EpochMetrics):
    """Compute :func:`regression_metrics` once per epoch, over all processes.

    Args:
        names: of the values.
        key: the metric that decides which epoch is best; of errors a smaller one is better.
        scale: of the values.

    Raises:
        ConfigError: ``key`` is not a metric.
    """

    def __init__(self, *, names: Sequence[str], key: str = KEY, scale: Scale = ()) -> None:
        self.values, self.scale = list(names), tuple(scale)
        super().__init__(
            key=key, names=_numbers(names), lower_is_better=_errors(names), output_transform=found_and_true
        )

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
        pairs = evenly_divisible_all_gather(torch.cat(self._pairs), concat=True)
        return regression_metrics(pairs, self.values, self.scale)


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


def _metrics(key: str, names: Sequence[str], scale: Scale = ()) -> RegressionMetrics:
    return RegressionMetrics(names=names, key=key, scale=scale)


def _predictions(*, output_dir: Any, names: Sequence[str], filename: str, labels: bool) -> ValuesWriter:
    return ValuesWriter(output_dir=output_dir, names=names, filename=filename, labels=labels)


def _form(names: Sequence[str]) -> MetricsForm:
    counts = dict.fromkeys(_counted(names).values(), (0.0, float(MOST_CASES)))
    return MetricsForm(numbers=_numbers(names) | counts)


def _scores(output: Mapping[str, Any], names: Sequence[str], scale: Scale = ()) -> dict[str, float | None]:
    """Scaled error over the known values, the predicted values and the true ones."""
    found, true = found_and_true([output])[0]
    values = dict(zip(names, found.tolist(), strict=True))
    return {
        SCORE: _scaled_error(found - true, scale),
        **values,
        **{f"{k}_truth": v for k, v in zip(names, true.tolist(), strict=True)},
    }


def _by_patient(names: Sequence[str]) -> dict[str, Callable[[Mapping[str, float | None]], float | None]]:
    """The absolute error of each value in its unit; the score has them on their scales."""
    words = _more(names)
    return {words[f"{ERROR}_{name}"]: partial(_error, name=name) for name in names}


def _error(numbers: Mapping[str, float | None], *, name: str) -> float | None:
    found, true = numbers.get(name), numbers.get(f"{name}_truth")
    return None if found is None or true is None else abs(found - true)


def _scaled(scale: Scale) -> Task:
    """Regression on a scale."""
    return replace(
        REGRESSION,
        loss=partial(_loss, scale=scale),
        metrics=partial(_metrics, scale=scale),
        scores=partial(_scores, scale=scale),
        postprocessing=lambda: Compose([InUnits(scale=scale)]),
    )


def _more(names: Sequence[str]) -> dict[str, str]:
    return {f"{ERROR}_{name}": f"error of {name}{f', {UNITS[name]}' if name in UNITS else ''}" for name in names}


def _agreements(names: Sequence[str]) -> dict[str, AgreementNames]:
    parts = ("bias", "agreement_low", "agreement_high")
    return {name: AgreementNames(UNITS.get(name, ""), *(f"{part}_{name}" for part in parts)) for name in names}


REGRESSION = Task(
    name="regression",
    named="values",
    least_names=1,
    listed_as=("regression",),
    outputs=lambda names: names,
    check_output=_check_output,
    collected=TargetKind(key="values", read=_read, complete=_complete),
    prepare=PrepareCases(target=values_of),
    loss=_loss,
    metrics=_metrics,
    postprocessing=no_postprocessing,
    predictions=_predictions,
    form=_form,
    scores=_scores,
    by_patient=_by_patient,
    gives_logits=False,
    key=KEY,
    measures={KEY: "scaled error"},
    lower_is_better=True,
    ends=None,
    more=_more,
    agreements=_agreements,
    counted=_counted,
    settings={"selection_metric": KEY, "class_weights": None, "label_smoothing": 0.0},
    sections=frozenset({EXPORT}),
    scaled=_scaled,
)
"""With values as they are."""
