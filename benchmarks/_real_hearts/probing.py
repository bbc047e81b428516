"""A linear probe whose penalty is chosen without the patients on whom it is tested, and an interval of its figures.

Repeated stratified folds. In each of them the training part alone gives the standardisation and, by folds of its own,
the penalty (nested cross-validation). Every patient is thus predicted once per repeat by a model that has not seen
them; figures are means over the repeats. The interval draws patients with replacement within their class, each with
the predictions of all repeats: it says what other patients would have changed, not what other training patients would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from _auroc import auroc_of
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

PENALTIES = tuple(float(value) for value in 10.0 ** np.arange(-4.0, 2.01))
"""Inverse strengths among which the inner folds choose (ours)."""
FOLDS, REPEATS, RESAMPLES = 5, 5, 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """The attributes, rounded."""
        return {name: round(number, 3) for name, number in asdict(self).items()}

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def class_weighted_log_loss(model: Any, features: np.ndarray, labels: np.ndarray) -> float:
    """Minus the mean over the classes of the mean log loss of their cases: what the inner folds choose by."""
    chances = model.predict_proba(features)
    losses = -np.log(np.clip(chances[np.arange(len(labels)), np.searchsorted(model.classes_, labels)], 1e-12, 1))
    return -float(np.mean([losses[labels == label].mean() for label in np.unique(labels)]))


def fitted(features: np.ndarray, labels: np.ndarray, *, seed: int) -> Pipeline:
    """Standardisation and logistic regression, its penalty chosen by inner folds.

    Args:
        features: (N, D).
        labels: (N,) whole numbers, at least two of each.
        seed: of the inner folds.
    """
    smallest = int(np.bincount(labels)[np.unique(labels)].min())
    inner = StratifiedKFold(min(FOLDS, smallest), shuffle=True, random_state=seed)
    probe = LogisticRegressionCV(
        Cs=list(PENALTIES),
        cv=inner,
        l1_ratios=(0.0,),
        scoring=class_weighted_log_loss,
        class_weight="balanced",
        max_iter=2000,
        use_legacy_attributes=False,
    )
    return make_pipeline(compact(), probe).fit(features, labels)


def compact() -> StandardScaler:
    """A step that standardises and turns features, see :class:`_Compact`."""
    return _Compact()


class _Compact(StandardScaler):
    """Standardise, then turn the axes so that as many remain as there are cases: the same model in less time.

    A penalty on the sum of squares does not change when the features are turned, and no weight grows in a direction
    that no training case has.
    """

    def fit(self, X: np.ndarray, y: Any = None, sample_weight: Any = None) -> _Compact:
        """Learn means, deviations and axes."""
        super().fit(X)
        turned = np.linalg.svd(super().transform(X), full_matrices=False)
        self.axes_ = turned.Vh
        return self

    def transform(self, X: np.ndarray, copy: bool | None = None) -> np.ndarray:
        """(N, D) -> (N, min(D, cases))."""
        return super().transform(X) @ self.axes_.T


def out_of_fold(features: np.ndarray, labels: np.ndarray, *, repeats: int = REPEATS) -> np.ndarray:
    """Chances of the classes by models that have not seen the case, (repeats, N, C).

    Args:
        features: (N, D).
        labels: (N,) whole numbers from 0, all classes present.
        repeats: how often the folds are drawn.
    """
    chances = np.zeros((repeats, len(labels), int(labels.max()) + 1))
    for repeat in range(repeats):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
        for train, test in folds.split(features, labels):
            chances[repeat, test] = fitted(features[train], labels[train], seed=repeat).predict_proba(features[test])
    return chances


def balanced_accuracy(chances: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur of the share of their cases whose likeliest class is the right one."""
    hits = chances.argmax(axis=1) == labels
    return float(np.mean([hits[labels == label].mean() for label in np.unique(labels)]))


def auroc(scores: np.ndarray, ill: np.ndarray) -> float:
    """Area under the ROC curve of scores (N,) for ``ill`` (N,) true."""
    return auroc_of(scores[ill], scores[~ill])


def with_interval(
    figure: Callable[[np.ndarray, np.ndarray], float], predicted: np.ndarray, labels: np.ndarray, *, seed: int = 0
) -> Figure:
    """The mean of a figure over repeats, and its interval over patients.

    Args:
        figure: of predictions (N, ...) and labels (N,).
        predicted: (repeats, N, ...).
        labels: (N,); patients are drawn within each of its values.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def over_repeats(chosen: np.ndarray) -> float:
        return float(np.mean([figure(repeat[chosen], labels[chosen]) for repeat in predicted]))

    drawn = [
        over_repeats(np.concatenate([random.choice(group, len(group)) for group in groups])) for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(value=over_repeats(np.arange(len(labels))), low=float(low), high=float(high))


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """Figures of a probe.

    Attributes:
        balanced_accuracy: over the classes.
        auroc: normal against any disease, by a probe of its own with these two classes.
        auroc_of_classes: the same by one minus the chance that the probe with all classes gives to normal.
    """

    balanced_accuracy: Figure
    auroc: Figure
    auroc_of_classes: Figure

    def told(self) -> str:
        """The figures in one line."""
        return (
            f"balanced accuracy {self.balanced_accuracy}, AUROC {self.auroc}, of the classes' probe "
            f"{self.auroc_of_classes}"
        )

    def to_json(self) -> dict[str, dict[str, float]]:
        """The figures by name."""
        return {name: getattr(self, name).to_json() for name in ("balanced_accuracy", "auroc", "auroc_of_classes")}


def probe(features: np.ndarray, labels: np.ndarray, *, repeats: int = REPEATS) -> Probed:
    """Cross-validate on patients (N, D) with labels (N,), 0 normal."""
    two = (labels > 0).astype(int)
    return _probed(out_of_fold(features, labels, repeats=repeats), out_of_fold(features, two, repeats=repeats), labels)


def transfer(features: np.ndarray, labels: np.ndarray, others: np.ndarray, other_labels: np.ndarray) -> Probed:
    """Train on all of one collection, test on another; a class that the other lacks counts as wrong when predicted."""
    classes = fitted(features, labels, seed=0).predict_proba(others)
    two = fitted(features, (labels > 0).astype(int), seed=0).predict_proba(others)
    return _probed(classes[None], two[None], other_labels)


def _probed(classes: np.ndarray, two: np.ndarray, labels: np.ndarray) -> Probed:
    def ill(scores: np.ndarray, labels: np.ndarray) -> float:
        return auroc(scores, labels > 0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Probed(
            balanced_accuracy=with_interval(balanced_accuracy, classes, labels),
            auroc=with_interval(ill, two[..., 1], labels),
            auroc_of_classes=with_interval(ill, 1 - classes[..., 0], labels),
        )
