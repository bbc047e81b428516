"""Where a run's shared tensors start: from a seed, or from a stored file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from monai_fedlora.errors import WeightsError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import load_tensors, save_tensors
from monai_fedlora.scope import Manifest, Role


def build_shared(plan: Plan, *, backbone: str | None = None) -> tuple[Manifest, dict[str, np.ndarray]]:
    """Derive the manifest and the initial shared tensors of a plan.

    The backbone's weights are needed only where the method shares them.

    Args:
        plan: the experiment.
        backbone: path of the backbone file; None builds the architecture alone.

    Raises:
        WeightsError: the method shares backbone weights and no backbone was given.
    """
    from monai_fedlora.methods.build import UNTRAINED, build_network

    network = build_network(
        size=plan.size,
        out_chans=len(plan.classes),
        backbone=backbone or UNTRAINED,
        backbone_sha256=plan.backbone_sha256 if backbone else None,
        method=plan.method,
        method_args=plan.method_args,
        seed=plan.seed,
    )
    scope = plan.build_method().scope(network)
    return scope.manifest, scope.shared_payload(network)


def needs_backbone(plan: Plan) -> bool:
    """Whether initial shared tensors include backbone weights, so that the server needs the backbone file."""
    from monai_fedlora.methods.build import UNTRAINED, build_network

    network = build_network(
        size=plan.size, out_chans=len(plan.classes), backbone=UNTRAINED, method=plan.method, method_args=plan.method_args
    )
    shared = plan.build_method().scope(network).keys(Role.SHARED)
    return any("lora_" not in key and not key.startswith(network.head_prefixes) for key in shared)


def save_shared(path: Path, payload: dict[str, np.ndarray], *, plan: Plan, round_number: int, **extra: Any) -> None:
    """Store shared tensors after ``round_number`` with what is needed to resume from them."""
    import torch

    metadata = {"plan": json.dumps(plan.to_json()), "fingerprint": plan.fingerprint, "round": str(round_number)}
    metadata |= {key: json.dumps(value) for key, value in extra.items()}
    save_tensors(path, {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in payload.items()}, metadata)


def load_shared(path: Path, *, manifest: Manifest) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read stored shared tensors and check them against the manifest.

    Raises:
        WeightsError: the file is damaged.
        PrivacyError: its tensors are not what the manifest declares.
    """
    tensors, metadata = load_tensors(path)
    payload = {key: value.numpy() for key, value in tensors.items()}
    try:
        manifest.check(payload)
    except Exception as error:
        raise WeightsError(f"{path} does not fit this run: {error}") from error
    return payload, metadata
