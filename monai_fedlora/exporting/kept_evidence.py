"""What a finished run has kept of its site's cases, privately: logits, labels and the vectors the heads read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from monai_fedlora.federated.site_state import EVIDENCE_NAME, NOISE_KEY
from monai_fedlora.files import load_tensors, sha256

NOT_KEPT = "the run kept no predictions of this model's cases"
SHARED_MODEL = "a shared model is of no site's cases"
OTHER_MODEL = f"{EVIDENCE_NAME} beside the model is of another one"
NOT_FINITE = f"{EVIDENCE_NAME} holds values that are not finite"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """By split ("training", "validation", "test"); a split without cases is absent.

    Attributes:
        logits: (N, C) of the personal model.
        shared_logits: (N, C) of the model without its private part, of the test split.
        labels: (N,) class indices.
        features: (N, D) what its heads read.
        units: (N,) a number per patient, or per lesion or photograph where the site's list tells no patients.
        noise_key: secret that the noise of released statistics is drawn from, the same in every copy of a run; None for
            a run of an earlier version.
        missing: why there is nothing at all; None where there is something.
    """

    logits: Mapping[str, Tensor] = field(default_factory=dict)
    shared_logits: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)
    units: Mapping[str, Tensor] = field(default_factory=dict)
    noise_key: str | None = field(default=None, repr=False)
    missing: str | None = None


def no_evidence(reason: str = NOT_KEPT) -> Evidence:
    """Nothing, and why."""
    return Evidence(missing=reason)


def read_evidence(final: Path) -> Evidence:
    """Read what lies beside a site's final model.

    Args:
        final: the model's file.

    Returns:
        Nothing, with the reason, for a run of an earlier version, or where the file is of another model.

    Raises:
        WeightsError: the file is damaged.
    """
    path = final.with_name(EVIDENCE_NAME)
    if not path.is_file():
        return no_evidence()
    tensors, metadata = load_tensors(path)
    if metadata.get("final_sha256") != sha256(final):
        return no_evidence(OTHER_MODEL)
    kinds = ("logits", "shared_logits", "labels", "features", "units")
    parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    for key, value in tensors.items():
        split, _, kind = key.partition("/")
        if not bool(torch.isfinite(value).all()):
            return no_evidence(NOT_FINITE)
        if kind in parts:
            parts[kind][split] = value
    return Evidence(
        logits=parts["logits"],
        shared_logits=parts["shared_logits"],
        labels=parts["labels"],
        features=parts["features"],
        units=parts["units"],
        noise_key=metadata.get(NOISE_KEY),
    )
