"""Counting the floating-point operations of a training step, attention on a processor included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: Any, **kwargs: Any) -> int:
    count: int = sdpa_flop_count(query, key, value)
    return count


def _attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: Any, **kwargs: Any
) -> int:
    count: int = sdpa_backward_flop_count(gradient, query, key, value)
    return count


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which knows attention on GPUs alone, with attention on a processor."""
    operations = {
        _ATTENTION: _attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    return FlopCounterMode(display=False, custom_mapping=operations)


@contextmanager
def textbook() -> Iterator[None]:
    """Compute as the equations stand: keys and values of all tokens, adapters beside the weights they adapt."""
    from monai_fedlora.adapters import side
    from monai_fedlora.networks import vit

    kept = vit.attend, side.merged_linear
    vit.attend, side.merged_linear = _all_keys_and_values, lambda layer, x: layer(x)
    try:
        yield
    finally:
        vit.attend, side.merged_linear = kept


def _all_keys_and_values(x: Any, query: Any, key: Any, value: Any, *, n_heads: int) -> Any:
    heads = [part.unflatten(2, (n_heads, -1)).transpose(1, 2) for part in (query.unsqueeze(1), key(x), value(x))]
    return functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(1)
