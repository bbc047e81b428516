"""Helpers for tracing the networks."""

from __future__ import annotations

import warnings

import torch


def fixed_shape(x: torch.Tensor) -> tuple[int, ...]:
    """The shape as plain numbers, also while tracing: a trace holds for one image size by design."""
    if not torch.jit.is_tracing():
        return tuple(x.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(size) for size in x.shape)
