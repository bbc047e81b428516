"""Attacks on published means: was a case x part of the mean s, for an attacker who owns other cases of the same kind?

After Dwork, Smith, Steinke, Ullman and Vadhan, "Robust Traceability from Trace Amounts", FOCS 2015, doi
10.1109/FOCS.2015.46: a member pulls the mean towards itself, so that (x - m)'(s - m) is larger for members, where m is
the mean of the attacker's own cases. Here the inner product uses the inverse of their covariance; for normally
distributed cases this is the log-likelihood ratio up to a term that depends on x alone (Sankararaman et al., Nature
Genetics 2009, doi 10.1038/ng.436).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError

FOLDS = 5
"""Parts of the attacker's cases; those of one part are scored with the others (ours)."""

FEWEST_OWN = 10
"""Fewest cases of the attacker (ours)."""

Score = Callable[[Tensor, Tensor], Tensor]
"""Maps values (N, K) and the attacker's own (M, K) to scores (N,), higher for a likelier member."""


def cross_scored(score: Score, members: Tensor, others: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of members and others by an attacker who owns some of the others.

    No case is scored with its own images: the patients of the others are divided into :data:`FOLDS` parts, and those of
    one part, with every fifth member, are scored with the other parts.

    Args:
        score: the attack.
        members: values (N, K) of members.
        others: values (M, K) of others.
        units: (M,) patients of the others.

    Returns:
        Scores (N,) and (M,).

    Raises:
        ExportError: there are too few others.
    """
    fold_of = units.unique(return_inverse=True)[1] % FOLDS
    if int((fold_of != 0).sum()) < FEWEST_OWN or int(fold_of.max()) < FOLDS - 1:
        raise ExportError(f"{len(others)} cases of others are too few to know their kind")
    first, second = torch.zeros(len(members), dtype=torch.float64), torch.zeros(len(others), dtype=torch.float64)
    for fold in range(FOLDS):
        mine = torch.arange(len(members)) % FOLDS == fold
        own = others[fold_of != fold].double()
        first[mine] = score(members[mine].double(), own)
        second[fold_of == fold] = score(others[fold_of == fold].double(), own)
    return first, second


def inner_product(value: Tensor, cases: Tensor, own: Tensor) -> Tensor:
    """(x - m)'C(s - m) of a published mean s (K,); m is the mean, C the inverse shrunk covariance of the own cases."""
    mean, metric = own.mean(dim=0), _metric(own)
    return (cases - mean) @ metric @ (value.double() - mean)


def likelihood_ratio(value: Tensor, count: int, cases: Tensor, own: Tensor) -> Tensor:
    """The log-likelihood ratio (x - m)'C(s - m) - (x - m)'C(x - m) / 2n, with m and C as in :func:`inner_product`.

    Args:
        value: published mean (K,) of n cases.
        count: n.
        cases: values (N, K).
        own: the attacker's values (M, K).
    """
    mean, metric = own.mean(dim=0), _metric(own)
    centred = cases - mean
    return centred @ metric @ (value.double() - mean) - ((centred @ metric) * centred).sum(dim=1) / (2 * count)


def closeness(value: Tensor, cases: Tensor, own: Tensor) -> Tensor:
    """Minus the squared Mahalanobis distance from a published mean (K,), by the covariance of the attacker's cases."""
    centred = cases - value.double()
    return -((centred @ _metric(own)) * centred).sum(dim=1)


def temperature_pull(temperature: float, cases: Tensor, own: Tensor) -> Tensor:
    """How much a case moves the fitted temperature towards the published one.

    This is the derivative of its log-likelihood at the best temperature of the attacker's cases. Values are logits with
    the label in the last column: (N, C + 1).

    Args:
        temperature: the published one.
        cases: values (N, C + 1).
        own: the attacker's values (M, C + 1).
    """
    inverse = _best_inverse(own)
    return -_slope(cases, inverse) * (1 / temperature - inverse)


def _slope(cases: Tensor, inverse: float) -> Tensor:
    """Derivative of each case's negative log-likelihood by the inverse temperature."""
    logits, labels = cases[:, :-1], cases[:, -1].long()
    expected = (logits.mul(inverse).softmax(dim=1) * logits).sum(dim=1)
    return expected - logits.gather(1, labels[:, None])[:, 0]


def _best_inverse(cases: Tensor) -> float:
    """The inverse temperature from 0.01 to 100 that minimises the negative log-likelihood, by bisection."""
    low, high = -4.605170185988091, 4.605170185988091
    for _ in range(40):
        middle = (low + high) / 2
        at = float(torch.tensor(middle).exp())
        low, high = (middle, high) if float(_slope(cases, at).mean()) < 0 else (low, middle)
    return float(torch.tensor((low + high) / 2).exp())


def _metric(own: Tensor) -> Tensor:
    """Inverse of the shrunk covariance (Ledoit and Wolf 2004) of the attacker's cases."""
    from sklearn.covariance import ledoit_wolf

    if own.shape[1] == 1:
        return 1 / own.var(dim=0, unbiased=False).clamp(min=1e-12).reshape(1, 1)
    covariance = torch.from_numpy(ledoit_wolf(own.numpy())[0])
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if int(failed):
        raise ExportError("the others' cases do not differ, so that no case can be traced")
    return torch.cholesky_inverse(factor)
