"""What no implementation can do with less: multiply-adds, bytes to send, bytes to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _frameworks.systems import System


def training_flops(system: System, *, size: str, classes: int) -> dict[str, int]:
    """Floating-point operations for a picture's forward and backward pass, and parameters by role.

    Counted on a network without weights. Where the frozen part's outputs are kept, only what comes behind it counts.
    """
    import torch
    from _flops import flop_counter

    from monai_fedlora.engines.frozen import frozen_part
    from monai_fedlora.methods import get_method
    from monai_fedlora.methods.build import UNTRAINED, build_network
    from monai_fedlora.networks.catalogue import architecture
    from monai_fedlora.scope import Role

    with torch.device("meta"):
        network: Any = build_network(
            size=size, out_chans=classes, backbone=UNTRAINED, method=system.method, method_args=system.method_args
        )
        image = torch.rand(1, 3, *architecture(size).image_size)
        part = frozen_part(network) if system.cached else None
        parts = part.compute(image) if part else ()
        with flop_counter() as counter:
            (part.logits(parts, network) if part else network(image)).sum().backward()
    scope = get_method(system.method, system.method_args).scope(network, wire_dtype="float32")
    state = network.state_dict()
    return {
        "flop_per_picture": counter.get_total_flops(),
        "shared_parameters": sum(state[key].numel() for key in scope.keys(Role.SHARED)),
        "private_parameters": sum(state[key].numel() for key in scope.keys(Role.PRIVATE)),
    }


def floor_of(counted: dict[str, int], *, cases: int, rate: float, wire_bytes: int) -> dict[str, float]:
    """Seconds of a local epoch at a measured rate, and bytes that a site sends per round.

    Args:
        counted: see :func:`training_flops`.
        cases: pictures of a site.
        rate: floating-point operations per second.
        wire_bytes: of a value.
    """
    return {
        "epoch_seconds": cases * counted["flop_per_picture"] / rate,
        "payload_bytes": counted["shared_parameters"] * wire_bytes,
    }


def data_bytes(folder: Path) -> int:
    """Mean size of a site's picture files together."""
    sites = [path for path in folder.iterdir() if path.is_dir()]
    return sum(file.stat().st_size for site in sites for file in (site / "images").iterdir()) // len(sites)


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Least squares: how much y grows with x; None for fewer than two different x."""
    if len({x for x, _ in points}) < 2:
        return None
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
