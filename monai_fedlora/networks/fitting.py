"""Which sizes of the catalogue published weights fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.vit import ViTSettings


def fitting_sizes(said: Mapping[str, Any]) -> list[str]:
    """The names of this package's vision transformers that agree with all that is said.

    Args:
        said: settings of :class:`~monai_fedlora.networks.vit.ViTSettings` by name.
    """
    return [
        name
        for name, row in IMAGE_SIZES.items()
        if isinstance(row.shape, ViTSettings) and all(getattr(row.shape, key) == value for key, value in said.items())
    ]
