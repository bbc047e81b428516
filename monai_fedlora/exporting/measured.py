"""Run the membership inference attacks of an export, on the outputs that the run has kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.leakage import (
    TRAINING,
    VALIDATION,
    Cases,
    Leakage,
    Mean,
    Shipped,
    measure,
    strongest_first,
)
from monai_fedlora.exporting.leakage_means import described_means, feature_mean
from monai_fedlora.exporting.reference import Place

NO_MEANING = "no attack here knows what it is a statistic of"


def measured_leakage(evidence: Evidence, reference: Place | str, metadata: Mapping[str, Any]) -> Leakage:
    """Run the attacks that need no training on a site's own cases.

    Args:
        evidence: kept outputs of the model; a run of an earlier version kept too few.
        reference: that of the export, or why there is none.
        metadata: content of the bundle's ``metadata.json``.
    """
    if evidence.missing:
        return Leakage(attacks=(), not_measured={"everything": evidence.missing})
    if TRAINING not in evidence.logits:
        return Leakage(attacks=(), not_measured={"everything": "the run kept no predictions of its training cases"})
    tensors = {} if isinstance(reference, str) else {"directions": reference.directions, "location": reference.location}
    temperature = float(metadata["calibration"]["temperature"])
    groups = {}
    for split, logits in evidence.logits.items():
        features = evidence.features.get(split)
        known = features is not None and not isinstance(reference, str)
        groups[split] = Cases(
            logits=logits / temperature,
            labels=evidence.labels[split],
            units=evidence.units.get(split, torch.arange(len(logits))),
            features=features,
            distances=reference.distances(features) if known else None,  # type: ignore
        )
    return measure(groups, shipped_numbers(metadata, tensors))


def with_audit(leakage: Leakage, audited: Leakage | None) -> Leakage:
    """Add the further attacks of an audit of the same model: those that need training, or cases from outside."""
    if audited is None:
        return leakage
    known = {(attack.name, attack.target) for attack in leakage.attacks}
    further = [attack for attack in audited.attacks if (attack.name, attack.target) not in known]
    found = {f"{attack.name} on {attack.target}" for attack in further}
    return Leakage(
        attacks=strongest_first([*leakage.attacks, *further]),
        not_measured={name: why for name, why in leakage.not_measured.items() if name not in found},
        warnings=tuple(dict.fromkeys([*leakage.warnings, *audited.warnings])),
    )


def shipped_numbers(metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Shipped:
    """Everything besides the weights that a bundle contains.

    Args:
        metadata: content of its ``metadata.json``.
        tensors: further tensors of the model by name.

    Raises:
        KeyError, TypeError, ValueError: the metadata are not what an export writes.
    """
    calibration, reference = metadata["calibration"], metadata["out_of_distribution"]
    of_members = "public_cases" not in reference
    available = bool(reference["available"]) and of_members
    count, members = 0, (TRAINING,)  # type: tuple[int, tuple[str, ...]]
    if available:  # bundles without a form hold the exact mean of the training cases
        count = int(reference["patients" if "form" in reference else "training_cases"])
        members = (TRAINING, VALIDATION) if "form" in reference else members
    vectors, unknown = reference_means(tensors, count, members) if of_members else ([], {})
    return Shipped(
        vectors=tuple(vectors),
        means=tuple(described_means(metadata)),
        temperature=float(calibration["temperature"]) if calibration["fitted"] else None,
        threshold=float(reference["threshold"]) if available else None,
        reference_of=members,
        unknown=unknown,
    )


def reference_means(
    tensors: Mapping[str, Tensor], count: int, members: tuple[str, ...] = (TRAINING,)
) -> tuple[list[Mean], dict[str, str]]:
    """Identify the tensors besides the weights by their shapes.

    A vector (K,) is a mean of the inputs of the classification heads, or of their projection if there is a matrix (D,
    K) or (K, D). A square matrix is a metric, which is used through the distance.

    Args:
        tensors: by name.
        count: number of members.
        members: the splits that the vectors were computed from.

    Returns:
        The means, and the unidentified tensors by name with the reason.
    """
    matrices = {name: value for name, value in tensors.items() if value.ndim == 2}
    means, unknown = [], {}
    for name, value in tensors.items():
        if value.ndim == 1 and len(value) > 1:
            narrow = [m for m in matrices.values() if m.shape[0] != m.shape[1] and len(value) in m.shape]
            project = None
            if narrow:
                project = narrow[0] if narrow[0].shape[1] == len(value) else narrow[0].T
            means.append(feature_mean(name, value, count, project, members))
        elif value.ndim != 2:
            unknown[name] = NO_MEANING
    return means, unknown
