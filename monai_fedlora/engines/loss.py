"""Cross entropy with class weights from the training labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from monai_fedlora.errors import ConfigError, DataError


def balanced_weights(labels: Sequence[int], num_classes: int) -> list[float]:
    """Weight each class by n / (K * n_c) over the K classes present; an absent class keeps weight 1 (ours).

    Raises:
        DataError: there is no label, or one lies outside [0, num_classes).
    """
    if not labels or min(labels) < 0 or max(labels) >= num_classes:
        raise DataError(f"class weights need training labels in [0, {num_classes}); got {sorted(set(labels))[:8]}")
    counts = [labels.count(c) for c in range(num_classes)]
    present = sum(count > 0 for count in counts)
    return [len(labels) / (present * count) if count else 1.0 for count in counts]


def cross_entropy(
    *,
    num_classes: int,
    cases: Sequence[Mapping[str, Any]] = (),
    class_weights: Literal["balanced"] | Sequence[float] | None = None,
    label_smoothing: float = 0.1,
    device: torch.device | str = "cpu",
) -> nn.CrossEntropyLoss:
    """Build the training loss on logits (B, C) and class indices (B,).

    Args:
        num_classes: C.
        cases: training cases with a ``label`` each; needed for ``"balanced"``.
        class_weights: None for equal weights, ``"balanced"`` (:func:`balanced_weights`), or C positive
            numbers.
        label_smoothing: in [0, 1); 0.1 by default (ours).
        device: where the weights live.

    Raises:
        ConfigError: a setting is out of range.
        DataError: the labels cannot give balanced weights.
    """
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing is {label_smoothing}; it must lie in [0, 1)")
    weights: list[float] | None
    if class_weights == "balanced":
        weights = balanced_weights([int(case["label"]) for case in cases], num_classes)
    elif isinstance(class_weights, str):
        raise ConfigError(f"class_weights is {class_weights!r}; give null, 'balanced' or {num_classes} numbers")
    else:
        weights = None if class_weights is None else [float(w) for w in class_weights]
    if weights is not None and (len(weights) != num_classes or not all(w > 0 for w in weights)):
        raise ConfigError(f"class_weights is {weights}; it must be {num_classes} positive numbers")
    tensor = None if weights is None else torch.tensor(weights, device=device)
    return nn.CrossEntropyLoss(weight=tensor, label_smoothing=label_smoothing)
