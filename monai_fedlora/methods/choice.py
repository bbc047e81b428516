"""A method, and where in a network of one's own it goes."""

from __future__ import annotations

from dataclasses import dataclass

from monai_fedlora.methods.base import Method
from monai_fedlora.networks.layers import Layers


@dataclass(frozen=True)
class MethodChoice:
    """What :func:`monai_fedlora.method` gives.

    Attributes:
        method: the method with its settings.
        layers: where in a network of one's own; None where nothing was named, as for the networks of the catalogue.
    """

    method: Method
    layers: Layers | None = None
