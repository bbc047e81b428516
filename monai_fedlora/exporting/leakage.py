"""Membership inference attacks that need no training: can an attacker tell whether a patient was used for a model?

The attacker has the bundle with all its numbers, a patient's image and label, and cases that were not used. Each number
was computed from certain cases, its members: the weights from the training split, the temperature from the validation
split. An attack that fails does not prove that none can succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import Attack, judge
from monai_fedlora.exporting.published_means import (
    closeness,
    cross_scored,
    inner_product,
    likelihood_ratio,
    temperature_pull,
)
from monai_fedlora.files import read_json, sha256

TRAINING, VALIDATION, TEST, OUTSIDE = "training", "validation", "test", "outside"
"""Groups of cases: a site's splits, and cases of the same kind that were not part of the run."""

WEIGHTS = "weights"
FORMAT = 1
RUN = "run"
"""Entry of an audit's file with what the model's run has told beside it."""
AUDIT_NAME = "audit.json"
"""File beside a site's final model with the result of ``monai-fedlora audit``. It never leaves the site."""


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Outputs of a model for some cases.

    Attributes:
        logits: (N, C) of the exported model.
        labels: (N,) class indices.
        units: (N,) number of the patient.
        features: (N, D) inputs of the classification heads; None if unknown.
        distances: (N,) from the reference; None if there is none.
    """

    logits: Tensor
    labels: Tensor
    units: Tensor
    features: Tensor | None = None
    distances: Tensor | None = None

    @property
    def losses(self) -> Tensor:
        """(N,) negative log-likelihood of the label."""
        return torch.nn.functional.cross_entropy(self.logits.double(), self.labels.long(), reduction="none")


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over cases that a bundle contains.

    Attributes:
        name: of the mean.
        members: the splits that it was computed from.
        value: (K,).
        count: number of cases.
        of: function from cases to the values (N, K) that are averaged.
    """

    name: str
    members: tuple[str, ...]
    value: Tensor
    count: int
    of: Callable[[Cases], Tensor]


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """The numbers that a bundle contains besides the weights.

    Attributes:
        vectors: means of the inputs of the classification heads.
        means: other means, of the model's outputs.
        temperature: fitted to the validation cases; None if none was fitted.
        threshold: of the distance; None if there is none.
        reference_of: the splits that the distance is measured from.
        threshold_of: the splits that the threshold was computed from.
        unknown: numbers that no attack here uses, by name, and the reason.
    """

    vectors: tuple[Mean, ...] = ()
    means: tuple[Mean, ...] = ()
    temperature: float | None = None
    threshold: float | None = None
    reference_of: tuple[str, ...] = (TRAINING,)
    threshold_of: tuple[str, ...] = (TRAINING, VALIDATION)
    unknown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """The results of all attacks.

    Attributes:
        attacks: the strongest first.
        not_measured: by attack or number, why there is no result.
        warnings: remarks for the reader of the results.
    """

    attacks: tuple[Attack, ...]
    not_measured: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def upper_bound(self) -> float:
        """The largest upper limit of any attack's interval; 1 if nothing was measured."""
        return max((attack.interval_95[1] for attack in self.attacks), default=1.0)

    def to_json(self) -> dict[str, Any]:
        """As JSON that :meth:`from_json` reads."""
        return {
            "format": FORMAT,
            "attacks": [attack.to_json() for attack in self.attacks],
            "not_measured": dict(self.not_measured),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, value: Any) -> Leakage:
        """Read the JSON of :meth:`to_json`; further entries are ignored.

        Raises:
            ExportError: it has another form.
        """
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r}")
            return cls(
                attacks=strongest_first(Attack.from_json(entry) for entry in value["attacks"]),
                not_measured={str(name): str(why) for name, why in value["not_measured"].items()},
                warnings=tuple(map(str, value["warnings"])),
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise ExportError(f"these are no figures of an audit ({error})") from error


def read_audit(final: Path) -> Leakage | None:
    """Read the audit beside a final model; None if there is none, or if it belongs to another model.

    Raises:
        ExportError, FedLoraError: the file is damaged; the message names it.
    """
    return _kept(final, lambda value: value)


def read_run_audit(final: Path) -> Leakage | None:
    """Read what the audit beside a final model has found of its run; None also if it did not look.

    Raises:
        ExportError, FedLoraError: the file is damaged; the message names it.
    """
    return _kept(final, lambda value: value.get(RUN))


def _kept(final: Path, part: Callable[[Any], Any]) -> Leakage | None:
    path = final.with_name(AUDIT_NAME)
    if not path.is_file():
        return None
    value = read_json(path)
    try:
        whole, chosen = Leakage.from_json(value), part(value)
        found = whole if chosen is value else None if chosen is None else Leakage.from_json(chosen)
    except ExportError as error:
        raise ExportError(f"{path}: {error}; remove it, or run monai-fedlora audit again") from error
    return found if value.get("final_sha256") == sha256(final) else None


def strongest_first(attacks: Any) -> tuple[Attack, ...]:
    """Sort attacks by falling AUC."""
    return tuple(sorted(attacks, key=lambda attack: (-attack.auc, attack.name)))


def measure(groups: Mapping[str, Cases], shipped: Shipped) -> Leakage:
    """Run every attack for which there are cases.

    Args:
        groups: cases by group, see :data:`TRAINING`; groups without cases are absent.
        shipped: the numbers besides the weights.
    """
    found, missing = [], dict(shipped.unknown)
    for name, target, members, attack in _attacks(shipped):
        try:
            inside, outside = _joined(groups, members), _joined(groups, _others(members, groups))
            if inside is None or outside is None:
                raise ExportError(_lacking(members, inside is None))
            scores, others = attack(inside, outside)
            found.append(
                judge(
                    name,
                    target=target,
                    members=members,
                    member_scores=scores,
                    member_units=inside.units,
                    other_scores=others,
                    other_units=outside.units,
                )
            )
        except ExportError as error:
            missing[f"{name} on {target}"] = str(error)
    return Leakage(attacks=strongest_first(found), not_measured=missing, warnings=tuple(_warnings(groups)))


_Scored = Callable[[Cases, Cases], tuple[Tensor, Tensor]]


def _attacks(shipped: Shipped) -> Iterator[tuple[str, str, tuple[str, ...], _Scored]]:
    yield "loss", WEIGHTS, (TRAINING,), _alone(lambda cases: -cases.losses)
    yield "confidence", WEIGHTS, (TRAINING,), _alone(lambda cases: cases.logits.double().softmax(1).amax(1))
    yield "entropy", WEIGHTS, (TRAINING,), _alone(_negative_entropy)
    if shipped.threshold is not None:
        limit = shipped.threshold
        yield "distance", "reference", shipped.reference_of, _alone(lambda cases: -_distances(cases))
        yield "closeness", "threshold", shipped.threshold_of, _alone(lambda cases: -(_distances(cases) - limit).abs())
    for mean in (*shipped.vectors, *shipped.means):
        yield "tracing", mean.name, mean.members, _traced(mean, partial(inner_product, mean.value))
    for mean in shipped.vectors:
        score = partial(likelihood_ratio, mean.value, mean.count)
        yield "likelihood ratio", mean.name, mean.members, _traced(mean, score)
        yield "closeness", mean.name, mean.members, _traced(mean, partial(closeness, mean.value))
    if shipped.temperature is not None:
        temperature = shipped.temperature
        pull = partial(temperature_pull, temperature)

        def pulled(inside: Cases, outside: Cases) -> tuple[Tensor, Tensor]:
            first, second = (_raw_with_label(cases, temperature) for cases in (inside, outside))
            return cross_scored(pull, first, second, outside.units)

        yield "pull", "temperature", (VALIDATION,), pulled


def _alone(score: Callable[[Cases], Tensor]) -> _Scored:
    """An attack whose score of a case does not depend on other cases."""
    return lambda inside, outside: (score(inside), score(outside))


def _traced(mean: Mean, score: Callable[[Tensor, Tensor], Tensor]) -> _Scored:
    return lambda inside, outside: cross_scored(score, mean.of(inside), mean.of(outside), outside.units)


def _negative_entropy(cases: Cases) -> Tensor:
    """Minus the entropy of the probabilities: (N,)."""
    logs = cases.logits.double().log_softmax(dim=1)
    return (logs.exp() * logs).sum(dim=1)


def _distances(cases: Cases) -> Tensor:
    if cases.distances is None:
        raise ExportError("the distances of the cases are not known")
    return cases.distances.double()


def _raw_with_label(cases: Cases, temperature: float) -> Tensor:
    """(N, C + 1): logits before the temperature, and the label."""
    return torch.cat([cases.logits.double() * temperature, cases.labels.double()[:, None]], dim=1)


def _others(members: Sequence[str], groups: Mapping[str, Cases]) -> tuple[str, ...]:
    """The groups that a number was not computed from: the test split and cases from outside."""
    return tuple(name for name in (TEST, OUTSIDE) if name in groups and name not in members)


def _lacking(members: Sequence[str], inside: bool) -> str:
    if inside:
        return f"the cases of the split {' and '.join(members)} are not known"
    return "there are no cases that had no part in it" + ("; give some with --outside" if TEST in members else "")


def _joined(groups: Mapping[str, Cases], names: Sequence[str]) -> Cases | None:
    """Several groups as one; their patients get different numbers."""
    parts = [groups[name] for name in names if name in groups and len(groups[name].labels)]
    if not parts:
        return None
    units, start = [], 0
    for part in parts:
        numbers = part.units.unique(return_inverse=True)[1]
        units.append(numbers + start)
        start += int(numbers.max()) + 1
    return Cases(
        logits=torch.cat([part.logits for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        units=torch.cat(units),
        features=_all([part.features for part in parts]),
        distances=_all([part.distances for part in parts]),
    )


def _all(tensors: Sequence[Tensor | None]) -> Tensor | None:
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(known) if len(known) == len(tensors) else None


def _warnings(groups: Mapping[str, Cases]) -> Iterator[str]:
    """Warn if the model distinguishes the site's own test cases from those outside, which biases the comparison."""
    test, outside = _joined(groups, (TEST,)), _joined(groups, (OUTSIDE,))
    if test is None or outside is None:
        return
    for name, score in {"loss": lambda cases: -cases.losses, "distance": lambda cases: -_distances(cases)}.items():
        try:
            told = judge(
                name,
                target="",
                members=(TEST,),
                member_scores=score(test),
                member_units=test.units,
                other_scores=score(outside),
                other_units=outside.units,
            )
        except ExportError:
            continue
        low, high = told.interval_95
        if not low <= 0.5 <= high:
            yield (
                f"the {name} tells the site's own test cases from those outside (AUC {told.auc:.2f}, {low:.2f} to "
                f"{high:.2f}): they are not of the same kind, and the figures mix that difference with membership"
            )
