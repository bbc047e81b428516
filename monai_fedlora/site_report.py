"""Report of a site about a round, sent beside its tensors.

A report could leak information, so that it is restricted: counts have a limit, metrics of classes have four decimals
and other numbers four significant digits. Which metrics there may be, the plan's task says (:class:`MetricsForm`). A
confusion matrix has the plan's classes and adds up to the number of cases; metrics that follow from it are only
accepted together with it and must agree with it. :func:`report_bits` computes how much
information remains possible.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_fedlora.data.origin import KINDS, UNKNOWN
from monai_fedlora.errors import PrivacyError

MOST_CLASSES = 128
"""Largest number of classes (ours); a confusion matrix then takes 66 kB."""
MOST_CASES = 10**7
"""Largest count of cases, and of anything else that a report counts (ours)."""
REPORTED = ("validation", "test")

_COUNTS = ("round", "cases", "restored_rounds")
_NUMBERS = ("seconds", "train_loss")
IDLE = "idle"
"""Entry of a round in which a site has trained private parameters alone."""
IMAGES = "images"
"""Entry with the kind of the images, as an index into :data:`monai_fedlora.data.origin.KINDS`."""
PERSONAL, SHARED = VIEWS = "personal", "shared"
"""The two models of a site that have metrics of their own: with its private part, and without."""
EARLIER_VIEWS = {"private_on": PERSONAL, "private_off": SHARED}
"""Their names in files of earlier versions (``results.json`` of format 1)."""
_FROM_MATRIX = ("balanced_accuracy", "sensitivity", "specificity", "mcc", "accuracy")
_FREE = ("auroc", "ece")
_BALANCED = "balanced_accuracy"
_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "ece", "accuracy")
_MATRIX = "confusion_matrix"
_LARGEST_NUMBER = 1e9
_DIGITS, _DECIMALS, _FINEST = 4, 4, 6


@dataclass(frozen=True, kw_only=True)
class MetricsForm:
    """Which metrics a report may have of each model and split.

    Attributes:
        classes: of the confusion matrix, with which the metrics of classes are permitted; 0 permits neither.
        numbers: lowest and highest value of each other metric, by name.
    """

    classes: int = 0
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-compatible form."""
        return {"classes": self.classes, "numbers": {name: list(ends) for name, ends in self.numbers.items()}}

    @classmethod
    def from_json(cls, value: Any) -> MetricsForm:
        """Parse :meth:`to_json`'s form.

        Raises:
            PrivacyError: the value is no form.
        """
        try:
            classes, numbers = value["classes"], {name: (low, high) for name, (low, high) in value["numbers"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PrivacyError("what metrics a report may have is not said as classes and numbers") from error
        ends = [end for pair in numbers.values() for end in pair]
        if (
            type(classes) is not int
            or not 0 <= classes <= MOST_CLASSES
            or any(type(e) not in (int, float) for e in ends)
        ):
            raise PrivacyError("what metrics a report may have is said with other things than numbers")
        return cls(classes=classes, numbers=numbers)


def round_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """Round a site's numbers to the digits that a report may have; other entries stay as they are."""
    rounded: dict[str, Any] = {}
    for key, value in report.items():
        if key in _NUMBERS:
            rounded[key] = _rounded(float(value))
        elif key in REPORTED:
            rounded[key] = {view: round_metrics(metrics) for view, metrics in value.items()}
        else:
            rounded[key] = value
    return rounded


def round_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Round the metrics of one view; counts stay as they are."""
    return {name: _round_metric(name, value) for name, value in metrics.items()}


def _round_metric(name: str, value: Any) -> Any:
    if value is None or name in ("n", _MATRIX):
        return value
    return round(float(value), _DECIMALS) + 0.0 if name in _METRICS else _rounded(float(value))


def current_views(metrics: Any) -> Any:
    """Metrics by view as this version has them, from a file of any version.

    Views that had another name get today's, and a balanced accuracy of one class alone, which earlier versions gave, is
    None. Anything but a mapping stays as it is.
    """
    if not isinstance(metrics, Mapping):
        return metrics
    return {EARLIER_VIEWS.get(view, view): _without_one_class(value) for view, value in metrics.items()}


def _without_one_class(metrics: Any) -> Any:
    rows = metrics.get(_MATRIX) if isinstance(metrics, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows) or sum(map(any, rows)) != 1:
        return metrics
    return {**metrics, **{name: None for name in (_BALANCED,) if name in metrics}}


@dataclass(frozen=True, kw_only=True)
class Report:
    """A site's report about a round: a few named numbers and nothing else.

    Missing entries are None. :meth:`parse` checks what was received.

    Attributes:
        round: number of the round, as the server counts.
        cases: number of training cases.
        restored_rounds: number of rounds behind the state with which the site began the round, at most ``round``.
        images: kind of the training images, as an index into :data:`monai_fedlora.data.origin.KINDS`.
        idle: 1 where no step of the round has moved a shared parameter, because phases of the method take turns over
            several rounds: the tensors are those that came, and have no weight.
        seconds: duration of the task.
        train_loss: mean over the round.
        validation, test: metrics of the split, by view.
    """

    round: int | None = None
    cases: int | None = None
    restored_rounds: int | None = None
    images: int | None = None
    idle: int | None = None
    seconds: float | None = None
    train_loss: float | None = None
    validation: Mapping[str, Mapping[str, Any]] | None = None
    test: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def parse(cls, value: Any, *, form: MetricsForm, splits: Collection[str] = REPORTED) -> Report:
        """Read a report in :meth:`to_json`'s form, or refuse it as a whole.

        Counts have a limit; the numbers ``seconds`` and ``train_loss`` have four significant digits, and the metrics of
        the ``splits`` x {personal, shared} four decimals, or are null where undefined, with the number of cases
        ``n`` and a confusion matrix of counts that add up to it. Metrics of other tasks
        have four significant digits. Both views of a split have the same cases. Text is refused, and with it file names
        and paths; the limits prevent text or images encoded as long numbers or large matrices.

        Args:
            value: the received value.
            form: of the metrics, as the plan's task has it.
            splits: splits that the report may contain; while a site trains, only "validation".

        Raises:
            PrivacyError: an entry is undeclared or not such a number.
        """
        if not isinstance(value, Mapping):
            raise PrivacyError(f"the report is a {type(value).__name__}, not a mapping")
        for key in value:
            if key not in (*_COUNTS, IMAGES, IDLE, *splits, *_NUMBERS):
                raise PrivacyError(f"undeclared report entry {key!r}")
        found: dict[str, Any] = {key: _count(key, value[key]) for key in _COUNTS if key in value}
        if found.get("restored_rounds", 0) > found.get("round", 0):
            raise PrivacyError("report entry 'restored_rounds' is more than the rounds there were")
        if IMAGES in value:
            if type(value[IMAGES]) is not int or not 0 <= value[IMAGES] < len(KINDS):
                raise PrivacyError(f"report entry {IMAGES!r} must be a whole number from 0 to {len(KINDS) - 1}")
            found[IMAGES] = value[IMAGES]
        if IDLE in value:
            if value[IDLE] != 1 or type(value[IDLE]) is not int:
                raise PrivacyError(f"report entry {IDLE!r} can only be 1")
            found[IDLE] = 1
        found |= {key: _number(key, value[key]) for key in _NUMBERS if key in value}
        found |= {split: _views(split, value[split], form) for split in REPORTED if split in value}
        return cls(**found)

    def to_json(self) -> dict[str, Any]:
        """The entries that are not None, in a fixed order and with fixed types, so that these carry no information."""
        return {key: value for key, value in vars(self).items() if value is not None}

    @property
    def kind(self) -> str:
        """The kind of the images; "unknown" if the report has none."""
        return UNKNOWN if self.images is None else KINDS[self.images]


def images_said(kind: str) -> int:
    """The value of a kind of images in a report."""
    return KINDS.index(kind)


def report_bits(*, form: MetricsForm, cases: int, splits: int = 1) -> float:
    """Largest amount of information in a report, in bits.

    It is the logarithm of the number of different reports that :class:`Report` accepts, by their entries and values.

    Args:
        form: of the metrics.
        cases: number of cases in each split, as known to the site's own engineer; no program can check it.
        splits: number of splits in the report.
    """
    numbers = len(_COUNTS) * math.log2(MOST_CASES + 2) + 2 * math.log2(2 * _distinct_numbers() + 1)
    numbers += math.log2(len(KINDS) + 1) + 1  # the kind of the images, and whether the round was idle
    free = len(form.numbers) * math.log2(2 * _distinct_numbers() + 2)
    if not form.classes:
        return numbers + splits * (1 + len(VIEWS) * (1 + math.log2(MOST_CASES + 2) + free))
    cells = form.classes**2
    matrices = (math.lgamma(cases + cells + 1) - math.lgamma(cells + 1) - math.lgamma(cases + 1)) / math.log(2)
    counted = max(matrices, 0.0) + 2  # with the case count and without
    metrics = len(_FREE) * math.log2(10**_DECIMALS + 3) + len(_FROM_MATRIX) * math.log2(3)
    return numbers + splits * (1 + len(VIEWS) * (1 + counted + metrics + free))


def report_nbytes(*, form: MetricsForm) -> int:
    """Largest size of a report in NVFlare's message, bytes, including the names of its entries."""
    free = sum(len(name.encode()) + 16 for name in form.numbers)
    return 512 + len(REPORTED) * len(VIEWS) * (512 + (5 * form.classes + 5) * form.classes + free)


def _distinct_numbers() -> int:
    """Number of different values from 0 to the largest number with so many digits."""
    return 10**_DIGITS + round((math.log10(_LARGEST_NUMBER) + _FINEST - _DIGITS) * 9 * 10 ** (_DIGITS - 1))


def _rounded(value: float) -> float:
    return round(float(f"{value:.{_DIGITS}g}"), _FINEST) + 0.0 if math.isfinite(value) else value


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST_CASES:
        raise PrivacyError(f"report entry {name!r} must be a whole number from 0 to {MOST_CASES:,}")
    return value


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER:
        raise PrivacyError(f"report entry {name!r} must be a finite number up to {_LARGEST_NUMBER:,.0f}")
    if value != _rounded(value):
        raise PrivacyError(
            f"report entry {name!r} has more than {_DIGITS} significant digits; the site may run another version"
        )
    return float(value) + 0.0


def _views(split: str, views: Any, form: MetricsForm) -> dict[str, dict[str, Any]]:
    if not isinstance(views, Mapping) or set(views) - set(VIEWS):
        raise PrivacyError(f"report entry {split!r} may only hold {', '.join(VIEWS)}")
    found = {view: _metrics(f"{split}.{view}", views[view], form) for view in VIEWS if view in views}
    said = [metrics for metrics in found.values() if "n" in metrics]
    supports = [[sum(row) for row in metrics[_MATRIX]] for metrics in found.values() if _MATRIX in metrics]
    if any(metrics["n"] != said[0]["n"] for metrics in said) or any(support != supports[0] for support in supports):
        raise PrivacyError(f"report entry {split!r} must be about the same cases in both views")
    return found


def _metrics(place: str, metrics: Any, form: MetricsForm) -> dict[str, Any]:
    if not isinstance(metrics, Mapping):
        raise PrivacyError(f"report entry {place} is not a mapping of metrics")
    known = (*((*_METRICS, _MATRIX) if form.classes else ()), *form.numbers, "n")
    if unknown := [name for name in metrics if name not in known]:
        raise PrivacyError(f"undeclared metric {place}.{unknown[0]!r}")
    found: dict[str, Any] = {}
    rows = _confusion(f"{place}.{_MATRIX}", metrics[_MATRIX], form.classes) if _MATRIX in metrics else []
    derived = _derived(rows) if rows else {}
    for name in _METRICS:
        if name in metrics:
            found[name] = _metric(f"{place}.{name}", metrics[name], least=-1.0 if name == "mcc" else 0.0)
            if name == _BALANCED and rows and _one_class(rows) and found[name] is not None:
                _check_derived(f"{place}.{name}", found[name], derived["accuracy"])
                found[name] = None  # sites with an earlier version give the share of right answers in that class
            if name in _FROM_MATRIX:
                _check_derived(f"{place}.{name}", found[name], derived.get(name, math.nan))
    for name, (low, high) in form.numbers.items():
        if name in metrics:
            found[name] = _limited(f"{place}.{name}", metrics[name], low, high)
    if "n" in metrics:
        found["n"] = _count(f"{place}.n", metrics["n"])
    if rows:
        found[_MATRIX] = rows
        if found.setdefault("n", total := sum(map(sum, rows))) != total:
            raise PrivacyError(f"report entry {place}.n must be the sum of the confusion matrix")
    return found


def _metric(name: str, value: Any, *, least: float) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not least <= value <= 1:
        raise PrivacyError(f"report entry {name!r} must be a number from {least:.0f} to 1, or null")
    if value != round(value, _DECIMALS):
        raise PrivacyError(
            f"report entry {name!r} has more than {_DECIMALS} decimals; the site may run another version"
        )
    return float(value) + 0.0


def _limited(name: str, value: Any, low: float, high: float) -> float | None:
    if value is None:
        return None
    found = _number(name, value)
    if not low <= found <= high:
        raise PrivacyError(f"report entry {name!r} must lie from {low:g} to {high:g}")
    return found


def _check_derived(name: str, value: float | None, expected: float | None) -> None:
    """Check a metric against the confusion matrix; a value between two roundings may be rounded either way."""
    if value is None or expected is None:
        agrees = value is expected
    else:
        agrees = abs(value - expected) <= 0.5 * 10**-_DECIMALS + 1e-9
    if not agrees:
        raise PrivacyError(f"report entry {name!r} does not follow from a confusion matrix beside it")


def _confusion(name: str, rows: Any, classes: int) -> list[list[int]]:
    square = isinstance(rows, list) and len(rows) == classes
    if not square or not all(isinstance(row, list) and len(row) == classes for row in rows):
        raise PrivacyError(f"report entry {name!r} must be {classes} lists of {classes} counts, the plan's classes")
    found = [[_count(name, cell) for cell in row] for row in rows]
    if sum(map(sum, found)) > MOST_CASES:
        raise PrivacyError(f"report entry {name!r} counts more than {MOST_CASES:,} cases")
    return found


def _derived(rows: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """The metrics of :func:`monai_fedlora.engines.metrics.classification_metrics` from a confusion matrix."""
    places, total = range(len(rows)), sum(map(sum, rows))
    support, predicted = [sum(row) for row in rows], [sum(column) for column in zip(*rows, strict=True)]
    hits = [rows[c][c] for c in places]
    recall = [_ratio(hits[c], support[c]) for c in places]
    rejected = [
        _ratio(total - support[c] - predicted[c] + hits[c], total - support[c]) if support[c] else None for c in places
    ]
    spread = (total**2 - sum(p * p for p in predicted)) * (total**2 - sum(t * t for t in support))
    covariance = sum(hits) * total - sum(t * p for t, p in zip(support, predicted, strict=True))
    return {
        _BALANCED: None if _one_class(rows) else _mean(recall),
        "sensitivity": recall[1] if len(rows) == 2 else _mean(recall),
        "specificity": recall[0] if len(rows) == 2 else _mean(rejected),
        "mcc": covariance / math.sqrt(spread) if spread else 0.0,
        "accuracy": _ratio(sum(hits), total),
    }


def _one_class(rows: Sequence[Sequence[int]]) -> bool:
    """Whether a confusion matrix has cases of one class at most."""
    return sum(map(any, rows)) < 2


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
