"""Figures of merit of membership inference: how well a score separates training patients (members) from others.

A higher score means that the attacker believes more in membership. Patients are counted, not images: the score of a
patient is the mean over the patient's images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.intervals import Interval, area, wilson

FEWEST_PATIENTS = 5
"""Fewest members, and fewest others, for an attack to be measured (ours)."""

ENOUGH_OTHERS = 300
"""With this many others or more, the true-positive rate is that at :data:`LOW_RATE`; else at one false positive."""

LOW_RATE = 0.01
"""False-positive rate at which Carlini et al. (arXiv 2112.03570) compare attacks."""

_DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Attack:
    """The result of one attack.

    Attributes:
        name: name of the score; with "reversed" if members have lower scores.
        target: what is attacked: "weights", or a statistic that the bundle contains.
        members: the splits that the target was computed from.
        n_members, n_others: numbers of patients.
        auc: probability that a member's score is above another patient's; 0.5 is chance.
        interval_95: of the AUC (Newcombe 2006, see :func:`monai_fedlora.exporting.intervals.area`).
        tpr: true-positive rate: share of the members above a limit that the share ``fpr`` of the others exceeds.
        tpr_interval_95: of the true-positive rate (Wilson).
        fpr: false-positive rate.
    """

    name: str
    target: str
    members: tuple[str, ...]
    n_members: int
    n_others: int
    auc: float
    interval_95: Interval
    tpr: float
    tpr_interval_95: Interval
    fpr: float

    def to_json(self) -> dict[str, Any]:
        """As JSON, rounded to three decimals (the false-positive rate to six)."""
        return {
            "name": self.name,
            "target": self.target,
            "members": list(self.members),
            "n_members": self.n_members,
            "n_others": self.n_others,
            "auc": round(self.auc, _DIGITS),
            "interval_95": [round(limit, _DIGITS) for limit in self.interval_95],
            "tpr": round(self.tpr, _DIGITS),
            "tpr_interval_95": [round(limit, _DIGITS) for limit in self.tpr_interval_95],
            "fpr": round(self.fpr, 2 * _DIGITS),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Attack:
        """Read :meth:`to_json`'s form.

        Raises:
            KeyError, TypeError, ValueError: an entry is missing or of another kind.
        """
        low, high = (float(limit) for limit in value["interval_95"])
        tpr_low, tpr_high = (float(limit) for limit in value["tpr_interval_95"])
        return cls(
            name=str(value["name"]),
            target=str(value["target"]),
            members=tuple(map(str, value["members"])),
            n_members=int(value["n_members"]),
            n_others=int(value["n_others"]),
            auc=float(value["auc"]),
            interval_95=(low, high),
            tpr=float(value["tpr"]),
            tpr_interval_95=(tpr_low, tpr_high),
            fpr=float(value["fpr"]),
        )


def judge(
    name: str,
    *,
    target: str,
    members: Sequence[str],
    member_scores: Tensor,
    member_units: Tensor,
    other_scores: Tensor,
    other_units: Tensor,
) -> Attack:
    """Measure how well a score separates members from others.

    If members have reliably lower scores (the whole interval of the AUC is below 0.5), the score is reversed.

    Args:
        name, target, members: see :class:`Attack`.
        member_scores: (N,) of the members' images, higher for a likelier member.
        member_units: (N,) number of the patient.
        other_scores, other_units: the same for others.

    Raises:
        ExportError: there are too few patients, or a score is not finite.
    """
    inside, outside = by_patient(member_scores, member_units), by_patient(other_scores, other_units)
    if min(len(inside), len(outside)) < FEWEST_PATIENTS:
        raise ExportError(
            f"there are {len(inside)} members and {len(outside)} others, and it takes {FEWEST_PATIENTS} of each"
        )
    if not bool(torch.isfinite(inside).all() and torch.isfinite(outside).all()):
        raise ExportError("a score is not finite")
    auc = roc_area(inside, outside)
    interval = area(auc, len(inside), len(outside))
    if interval[1] < 0.5:
        name, inside, outside, auc = f"{name}, reversed", -inside, -outside, 1 - auc
        interval = (1 - interval[1], 1 - interval[0])
    found, rate = rate_at_low_error(inside, outside)
    return Attack(
        name=name,
        target=target,
        members=tuple(members),
        n_members=len(inside),
        n_others=len(outside),
        auc=auc,
        interval_95=interval,
        tpr=found / len(inside),
        tpr_interval_95=wilson(found, len(inside)),
        fpr=rate,
    )


def by_patient(scores: Tensor, units: Tensor) -> Tensor:
    """Mean score of every patient, in order of the patients' numbers: (P,) float64 from (N,)."""
    _, places, counts = units.unique(return_inverse=True, return_counts=True)
    return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, places, scores.double()) / counts


def roc_area(members: Tensor, others: Tensor) -> float:
    """Area under the ROC curve: the share of (member, other) pairs in which the member's score is higher, ties half."""
    ordered = others.sort().values
    below = torch.searchsorted(ordered, members, right=False)
    to = torch.searchsorted(ordered, members, right=True)
    return float((below + to).double().mean() / (2 * len(others)))


def rate_at_low_error(members: Tensor, others: Tensor) -> tuple[int, float]:
    """True positives at a low false-positive rate.

    Returns:
        The number of members above the limit, and the false-positive rate: :data:`LOW_RATE` with
        :data:`ENOUGH_OTHERS` others or more, else one of the others.
    """
    passed = int(LOW_RATE * len(others)) if len(others) >= ENOUGH_OTHERS else 1
    limit = others.sort(descending=True).values[passed] if passed < len(others) else others.min() - 1
    return int((members > limit).sum()), passed / len(others)
