"""Where a pre-training stands, in a file beside its output, so that one that was stopped goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, WeightsError

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class PretrainingState:
    """A safetensors file of the weights, AdamW's moments, the random generator and the losses after each epoch.

    Attributes:
        path: the file; it is written after every epoch and removed by :meth:`remove`.
        settings: what determines the result, such as the size and the seed; a file of other settings is refused.
    """

    path: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def save(
        self,
        losses: Sequence[float],
        parameters: Sequence[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        """Write the state after ``len(losses)`` epochs."""
        tensors = {"generator": generator.get_state()}
        for number, parameter in enumerate(parameters):
            tensors[f"weight.{number}"] = parameter.detach()
            tensors |= {f"{name}.{number}": optimizer.state[parameter][name] for name in _moments(optimizer, parameter)}
        settings = dict(self.settings)
        files.save_tensors(
            self.path, tensors, {"settings": json.dumps(settings, sort_keys=True), "losses": json.dumps(list(losses))}
        )

    def load(
        self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> list[float]:
        """Bring everything to where the file left it.

        Returns:
            The losses of the finished epochs; none without a file.

        Raises:
            ConfigError: the file belongs to a pre-training with other settings.
            WeightsError: it is damaged, or holds another network.
        """
        if not self.path.exists():
            return []
        tensors, metadata = files.load_tensors(self.path)
        try:
            stored, losses = json.loads(metadata["settings"]), [float(loss) for loss in json.loads(metadata["losses"])]
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(
                f"{self.path} is no state of a pre-training ({error}); remove it to begin anew"
            ) from None
        if other := [name for name, value in self.settings.items() if stored.get(name) != value]:
            raise ConfigError(
                f"{self.path} is the state of a pre-training with {other[0]} {stored.get(other[0])}, and this one has "
                f"{self.settings[other[0]]}: give the same settings to go on, or remove the file to begin anew"
            )
        wrong = [n for n, p in enumerate(parameters) if _shape(tensors, f"weight.{n}") != p.shape]
        if wrong or f"weight.{len(parameters)}" in tensors or "generator" not in tensors:
            raise WeightsError(f"{self.path} holds the weights of another network; remove it to begin anew")
        with torch.no_grad():
            for number, parameter in enumerate(parameters):
                parameter.copy_(tensors[f"weight.{number}"])
                moments = {name: tensors[f"{name}.{number}"] for name in _MOMENTS if f"{name}.{number}" in tensors}
                optimizer.state[parameter] = {
                    name: value if name == "step" else value.to(parameter.device) for name, value in moments.items()
                }
        generator.set_state(tensors["generator"])
        return losses

    def remove(self) -> None:
        """Remove the file; the pre-training has ended."""
        self.path.unlink(missing_ok=True)


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> list[str]:
    return [name for name in _MOMENTS if name in optimizer.state.get(parameter, {})]


def _shape(tensors: Mapping[str, Any], key: str) -> torch.Size | None:
    return tensors[key].shape if key in tensors else None
