"""Methods whose server adds what the factors cannot hold to the adapted layers themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_fedlora.adapters.dense import DELTA, shift_layers
from monai_fedlora.adapters.lora import SHARED
from monai_fedlora.methods.low_rank import LoraMethod
from monai_fedlora.methods.rules import Payload, Updates, add_products, average, factor_keys
from monai_fedlora.scope import DOWN, Manifest


@dataclass(frozen=True, kw_only=True)
class DenselyUpdated(LoraMethod):
    """One adapter beside a dense update D of the layer, which does not train and comes from the server.

        site:  (W0 + D) x + s B A x

    The sum D of all rounds travels, not what one round adds to it: a site that misses a round or joins late is right
    with nothing but the last message. It has the size of the layer, and in float16 on the wire it is rounded once per
    round.
    """

    adapters = (SHARED,)

    @property
    def needs_matrices(self) -> bool:
        """Products are added to the layer's weight."""
        return True

    def adapt(self, network: Any, layers: Sequence[str]) -> None:
        """Add the dense update, zero, and the adapter."""
        shift_layers(network, layers)
        super().adapt(network, layers)

    def travels(self, key: str, network: Any) -> str | None:
        """The dense update comes down."""
        return DOWN if key.endswith(f".{DELTA}") else None

    def added(self, updates: Updates, averaged: Payload) -> Updates:
        """The weighted factors whose products the server adds to the layer.

        Args:
            updates: of the round.
            averaged: what else goes down to the sites, in the type in which it is sent.
        """
        return updates

    def aggregate(self, updates: Updates, reference: Payload, manifest: Manifest) -> dict[str, np.ndarray]:
        """Average what goes both ways, and add the products to the dense updates."""
        down = manifest.down.entries
        combined = average(updates, (key for key in down if not key.endswith(f".{DELTA}")))
        sent = {key: np.array(value, dtype=down[key].dtype) for key, value in combined.items()}
        added = self.added(updates, sent)
        for pair in factor_keys(manifest.entries):
            key = f"{pair[0].partition('.lora_A.')[0]}.base_layer.{DELTA}"
            combined[key] = add_products(added, reference[key], pair=pair, scale=self.lora.scale)
        return combined
