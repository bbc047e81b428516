"""What a bundle's model answers with, by its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.exporting.mask_answer import SEGMENTATION_FORMAT
from monai_fedlora.exporting.value_answer import VALUES_FORMAT


def gives_masks(metadata: Mapping[str, Any]) -> bool:
    """Whether it is masks."""
    return _format(metadata) == SEGMENTATION_FORMAT


def gives_values(metadata: Mapping[str, Any]) -> bool:
    """Whether it is numbers."""
    return _format(metadata) == VALUES_FORMAT


def _format(metadata: Mapping[str, Any]) -> Any:
    found: Any = metadata
    for key in ("network_data_format", "outputs", "pred", "format"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
