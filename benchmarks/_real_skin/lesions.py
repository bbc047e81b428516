"""A probe of frozen features on photographs of lesions, of which several show the same one.

All photographs of a lesion are on one side of every fold, inner folds among them, and intervals draw lesions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _real_hearts.probing import Figure, balanced_accuracy, class_weighted_log_loss, compact
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline

FOLDS, RESAMPLES = 5, 1000
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths among which the inner folds choose (ours)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """Photographs of one centre.

    Attributes:
        rows: (N,) their places among the photographs of all centres.
        labels: (N,) whole numbers from 0.
        lesions: (N,) whole numbers, equal for photographs of one lesion.
        classes: names of the labels.
    """

    rows: np.ndarray
    labels: np.ndarray
    lesions: np.ndarray
    classes: tuple[str, ...]


def centre_of(rows: Sequence[int], groups: Sequence[str], units: Sequence[str], *, least: int = 2 * FOLDS) -> Centre:
    """A centre with those of its classes that have at least so many lesions; the others cannot be cross-validated."""
    lesions = np.unique(np.asarray(units), return_inverse=True)[1]
    names = np.asarray(groups)
    kept = [name for name in sorted(set(groups)) if len(np.unique(lesions[names == name])) >= least]
    chosen = np.isin(names, kept)
    labels = np.array([kept.index(name) for name in names[chosen]], int)
    return Centre(rows=np.asarray(rows)[chosen], labels=labels, lesions=lesions[chosen], classes=tuple(kept))


def fitted(features: np.ndarray, labels: np.ndarray, lesions: np.ndarray, *, seed: int) -> Pipeline:
    """Standardisation and logistic regression, its penalty chosen by inner folds of lesions."""
    inner = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    probe = LogisticRegressionCV(
        Cs=list(PENALTIES),
        cv=list(inner.split(features, labels, lesions)),
        l1_ratios=(0.0,),
        scoring=class_weighted_log_loss,
        class_weight="balanced",
        max_iter=300,
        use_legacy_attributes=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the weakest penalties, which are seldom chosen
        return make_pipeline(compact(), probe).fit(features, labels)


def out_of_fold(features: np.ndarray, centre: Centre, *, seed: int = 0) -> np.ndarray:
    """Chances of the classes (N, C) by models that have not seen the lesion; ``features`` (N, D) are the centre's."""
    chances = np.zeros((len(centre.labels), len(centre.classes)))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(features, centre.labels, centre.lesions):
        model = fitted(features[train], centre.labels[train], centre.lesions[train], seed=seed)
        chances[test] = model.predict_proba(features[test])
    return chances


def by_lesion(centre: Centre) -> list[list[np.ndarray]]:
    """For each class, the places of the photographs of each of its lesions."""
    found = []
    for label in np.unique(centre.labels):
        of_class = np.flatnonzero(centre.labels == label)
        order = of_class[np.argsort(centre.lesions[of_class], kind="stable")]
        found.append(np.split(order, np.flatnonzero(np.diff(centre.lesions[order])) + 1))
    return found


def drawn(lesions: Sequence[Sequence[np.ndarray]], random: np.random.Generator) -> np.ndarray:
    """Places of photographs of lesions that are drawn with replacement within their class; see :func:`by_lesion`."""
    return np.concatenate([some[number] for some in lesions for number in random.integers(len(some), size=len(some))])


def figures(found: Mapping[str, Mapping[str, np.ndarray]], centres: Mapping[str, Centre], *, against: str) -> Any:
    """Balanced accuracies by encoder and centre, their mean over centres, and differences of the means.

    Args:
        found: by encoder and centre, the chances of :func:`out_of_fold`.
        centres: by name.
        against: the encoder that the others are compared with, on the same draws of lesions.

    Returns:
        By encoder and centre, ``mean`` among them, a figure in its JSON form; and by encoder ``minus_<against>``.
    """
    random = np.random.default_rng(0)
    lesions = {name: by_lesion(centre) for name, centre in centres.items()}
    draws = [{name: drawn(some, random) for name, some in lesions.items()} for _ in range(RESAMPLES)]
    everything = {name: np.arange(len(centre.labels)) for name, centre in centres.items()}

    def row(encoder: str, chosen: Mapping[str, np.ndarray]) -> list[float]:
        each = [
            balanced_accuracy(found[encoder][name][chosen[name]], centre.labels[chosen[name]])
            for name, centre in centres.items()
        ]
        return [*each, float(np.mean(each))]

    names = [*centres, "mean"]
    result: dict[str, Any] = {}
    values = {encoder: np.array([row(encoder, everything), *(row(encoder, one) for one in draws)]) for encoder in found}
    for encoder, table in values.items():
        result[encoder] = {name: _figure(table[:, place]) for place, name in enumerate(names)}
        if encoder != against:
            result[encoder][f"minus_{against}"] = _figure(table[:, -1] - values[against][:, -1])
    return result


def _figure(values: np.ndarray) -> dict[str, float]:
    """The first value, and the interval of the others."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Figure(value=float(values[0]), low=float(low), high=float(high)).to_json()
