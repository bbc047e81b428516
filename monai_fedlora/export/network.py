"""The network inside of an exported model: a finished one whose probabilities are calibrated."""

from __future__ import annotations

from torch import Tensor, nn


class ExportedNetwork(nn.Module):
    """A plain network with its logits divided by a temperature.

    Args:
        network: maps what the preprocessing gives to logits (B, C).
        temperature: above 0; 1 leaves the logits as they are.
    """

    def __init__(self, network: nn.Module, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """Calibrated logits (B, C)."""
        return self.network(image) / self.temperature
