"""What a site may say about a round beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.errors import PrivacyError

_COUNTS = ("round", "cases")
_NUMBERS = ("seconds", "train_loss")
_METRIC_GROUPS = ("validation", "test")
_METRIC_VIEWS = ("private_on", "private_off")
_METRICS = ("balanced_accuracy", "sensitivity", "specificity", "auroc", "mcc", "ece", "accuracy")
_LARGEST_COUNT = 2**31 - 1
_MOST_CLASSES = 32


def check_report(report: Any) -> None:
    """Accept what a site says about a round beside its tensors: a few named numbers and nothing else.

    Allowed are the counts ``round`` and ``cases``, the numbers ``seconds`` and ``train_loss``, and the metrics of
    ``{validation, test} x {private_on, private_off}``: in [-1, 1], or null where undefined, with the number of
    cases ``n`` and a square confusion matrix of counts for at most 32 classes. No text can pass, so no file name
    or path can; neither can text or an image spelt as one long number or a large matrix.

    Raises:
        PrivacyError: an entry is undeclared or not such a number.
    """
    if not isinstance(report, Mapping):
        raise PrivacyError(f"the report is a {type(report).__name__}, not a mapping")
    for key, value in report.items():
        if key in _COUNTS:
            _check_count(key, value)
        elif key in _NUMBERS:
            _check_number(key, value)
        elif key in _METRIC_GROUPS:
            _check_metrics(key, value)
        else:
            raise PrivacyError(f"undeclared report entry {key!r}")


def _check_count(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
        raise PrivacyError(f"report entry {name!r} must be a whole number from 0 to {_LARGEST_COUNT}")


def _check_number(name: str, value: Any, *, largest: float = _LARGEST_COUNT) -> None:
    if type(value) not in (int, float) or not -largest <= value <= largest:
        raise PrivacyError(f"report entry {name!r} must be a finite number from {-largest} to {largest}")


def _check_metrics(group: str, views: Any) -> None:
    if not isinstance(views, Mapping) or set(views) - set(_METRIC_VIEWS):
        raise PrivacyError(f"report entry {group!r} may only hold {', '.join(_METRIC_VIEWS)}")
    for view, metrics in views.items():
        if not isinstance(metrics, Mapping):
            raise PrivacyError(f"report entry {group}.{view} is not a mapping of metrics")
        for name, value in metrics.items():
            if name == "confusion_matrix":
                _check_confusion(f"{group}.{view}.{name}", value)
            elif name == "n":
                _check_count(f"{group}.{view}.{name}", value)
            elif name not in _METRICS:
                raise PrivacyError(f"undeclared metric {group}.{view}.{name!r}")
            elif value is not None:
                _check_number(f"{group}.{view}.{name}", value, largest=1)


def _check_confusion(name: str, rows: Any) -> None:
    square = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(rows) for row in rows)
    if not square or not 1 <= len(rows) <= _MOST_CLASSES:
        raise PrivacyError(f"report entry {name!r} must be a square list of lists for at most {_MOST_CLASSES} classes")
    for cell in (cell for row in rows for cell in row):
        _check_count(name, cell)
