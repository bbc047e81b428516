"""The network inside an exported model: the finished network with calibrated logits, or with numbers in their units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_fedlora.exporting.reference import Place, distances
from monai_fedlora.networks.head_inputs import head_inputs, joined


class ExportedNetwork(nn.Module):
    """A plain network with its logits divided by a temperature, or its numbers brought into their units.

    Args:
        network: maps prepared images to logits or numbers (B, C).
        temperature: above 0; 1 leaves the logits as they are.
        scale: that the network gives numbers on, a usual value and a usual distance from it for each; empty for logits,
            and for numbers that are in their units already.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, network: nn.Module, *, temperature: float = 1.0, scale: Sequence[tuple[float, float]] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.scaled = bool(scale)
        if scale:
            centre, spread = torch.tensor([list(pair) for pair in scale]).unbind(dim=1)
            self.register_buffer("centre", centre.clone())
            self.register_buffer("spread", spread.clone())

    def finished(self, outputs: Tensor) -> Tensor:
        """The answers (B, C) that follow from the plain network's outputs (B, C)."""
        return outputs * self.spread + self.centre if self.scaled else outputs / self.temperature

    def forward(self, image: Tensor) -> Tensor:
        """Calibrated logits, or values, (B, C)."""
        return self.finished(self.network(image))


class AssessingNetwork(ExportedNetwork):
    """An :class:`ExportedNetwork` that can also measure how far an image lies from ordinary ones.

    Args:
        network: a backbone, see :func:`monai_fedlora.networks.head_inputs.head_inputs`.
        reference: where ordinary images lie.
        finished: of :class:`ExportedNetwork`.
    """

    directions: Tensor
    location: Tensor

    def __init__(self, network: nn.Module, *, reference: Place, **finished: Any) -> None:
        super().__init__(network, **finished)
        self.register_buffer("directions", reference.directions)
        self.register_buffer("location", reference.location)

    def assess(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Answers (B, C) and distances (B)."""
        with head_inputs(self.network) as inputs:
            answers = self.finished(self.network(image))
        return answers, distances(joined(inputs), self.directions, self.location)

    def assess_together(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean answer (1, C) to several images of one patient, and the distance (1) of their mean."""
        with head_inputs(self.network) as inputs:
            answers = self.finished(self.network(images))
        features = joined(inputs).mean(dim=0, keepdim=True)
        return answers.mean(dim=0, keepdim=True), distances(features, self.directions, self.location)
