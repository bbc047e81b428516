"""Read a finished run's private outputs for its site's cases: logits, labels and inputs of the classification heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    """Outputs for the cases of each split ("training", "validation", "test"); a split without cases is absent.

    Attributes:
        logits: (N, C) of the personal model.
        shared_logits: (N, C) of the shared model, for the test split.
        labels: (N,) class indices.
        features: (N, D) inputs of the classification heads.
        units: (N,) number of the patient, or of the lesion or photograph if the site's list has no patients.
        noise_key: secret seed of the noise of released statistics, the same in every copy of a run; None for a run of
            an earlier version.
        missing: why nothing was kept; None if something was.
    """

    logits: Mapping[str, Tensor] = field(default_factory=dict)
    shared_logits: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, Tensor] = field(default_factory=dict)
    features: Mapping[str, Tensor] = field(default_factory=dict)
    units: Mapping[str, Tensor] = field(default_factory=dict)
    noise_key: str | None = field(default=None, repr=False)
    missing: str | None = None


def no_evidence(reason: str = NOT_KEPT) -> Evidence:
    """Empty evidence with a reason."""
    return Evidence(missing=reason)


def read_evidence(final: Path) -> Evidence:
    """Read the outputs that are stored beside a site's final model.

    Args:
        final: the model's file.

    Returns:
        Empty evidence with a reason for a run of an earlier version, or if the file belongs to another model.

    Raises:
        WeightsError: the file is damaged.
    """
    path = final.with_name(EVIDENCE_NAME)
    if not path.is_file():
        return no_evidence()
    tensors, metadata = load_tensors(path)
    if metadata.get("final_sha256") != sha256(final):
        return no_evidence(OTHER_MODEL)
    parts: dict[str, Any] = {kind: {} for kind in ("logits", "shared_logits", "labels", "features", "units")}
    for key, value in tensors.items():
        split, _, kind = key.partition("/")
        if not bool(torch.isfinite(value).all()):
            return no_evidence(NOT_FINITE)
        if kind in parts:
            parts[kind][split] = value
    return Evidence(**parts, noise_key=metadata.get(NOISE_KEY))
