"""The area under a ROC curve, from the scores of both sides."""

from __future__ import annotations

import numpy as np


def auroc_of(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often one of the scores (P,) is above one of the others (N,), ties counting half."""
    apart = positive[:, None] - negative
    return float(((apart > 0) + 0.5 * (apart == 0)).mean())
