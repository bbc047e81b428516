"""The median of the sites' values, which one site alone cannot move far (Yin et al., ICML 2018)."""

from __future__ import annotations

import numpy as np

from monai_fedlora.methods.rules import Payload, Rule, Updates
from monai_fedlora.scope import Manifest


def median(updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
    """Of each value on its own; every site counts the same, however many cases it has.

    The last update is no site's, but what was sent, where a change was cut short; it counts like a site.
    """
    return {
        key: np.median(np.stack([tensors[key].astype(np.float64) for _, tensors in updates]), axis=0)
        for key in manifest.down.entries
    }


MEDIAN = Rule(combine=median)
"""In the setting ``averaging`` of methods that have it."""
