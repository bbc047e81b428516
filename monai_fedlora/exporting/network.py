"""The network inside an exported model: the finished network with calibrated logits."""

from __future__ import annotations

from torch import Tensor, nn

from monai_fedlora.exporting.reference import Place, distances
from monai_fedlora.networks.head_inputs import head_inputs, joined


class ExportedNetwork(nn.Module):
    """A plain network with its logits divided by a temperature.

    Args:
        network: maps prepared images to logits (B, C).
        temperature: above 0; 1 leaves the logits as they are.
    """

    def __init__(self, network: nn.Module, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """Calibrated logits (B, C)."""
        return self.network(image) / self.temperature


class AssessingNetwork(ExportedNetwork):
    """An :class:`ExportedNetwork` that can also measure how far an image lies from ordinary ones.

    Args:
        network: a backbone, see :func:`monai_fedlora.networks.head_inputs.head_inputs`.
        temperature: above 0.
        reference: where ordinary images lie.
    """

    directions: Tensor
    location: Tensor

    def __init__(self, network: nn.Module, *, temperature: float, reference: Place) -> None:
        super().__init__(network, temperature=temperature)
        self.register_buffer("directions", reference.directions)
        self.register_buffer("location", reference.location)

    def assess(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Calibrated logits (B, C) and distances (B)."""
        with head_inputs(self.network) as inputs:
            logits = self.network(image) / self.temperature
        return logits, distances(joined(inputs), self.directions, self.location)

    def assess_together(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean calibrated logits (1, C) of several images of one patient, and the distance (1) of their mean."""
        with head_inputs(self.network) as inputs:
            logits = self.network(images) / self.temperature
        features = joined(inputs).mean(dim=0, keepdim=True)
        return logits.mean(dim=0, keepdim=True), distances(features, self.directions, self.location)
