from __future__ import annotations

import torch
from torch.nn import functional

from monai_fedlora.networks.conv_stem import DepthwiseConv


def grouped(batch: torch.Tensor) -> torch.Tensor:
    return batch.contiguous(memory_format=torch.channels_last_3d)


def test_the_gradient_of_a_depthwise_weight_is_exact_under_autocast_on_a_processor() -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(32)
    x, upstream = grouped(torch.randn(4, 32, 4, 4, 2).bfloat16()), grouped(torch.randn(4, 32, 4, 4, 2))
    weight = layer.weight.detach().clone().requires_grad_()
    bias = layer.bias.detach()
    functional.conv3d(x.float(), weight, bias, padding=2, groups=32).backward(upstream)
    for _ in range(20):
        del [torch.full((n,), torch.nan) for n in (1000, 4000, 9000, 33000, 70000, 150000)][:]  # in memory that is free
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(x)
        out.backward(upstream.to(out.dtype))
        torch.testing.assert_close(layer.weight.grad, weight.grad)


def test_a_frozen_depthwise_convolution_computes_in_bfloat16_under_autocast() -> None:
    layer = DepthwiseConv(4).requires_grad_(False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(1, 4, 3, 3, 3)).dtype is torch.bfloat16
    assert layer(torch.ones(1, 4, 3, 3, 3)).dtype is torch.float32
