"""A pooling by a learned query takes batches of any length, also where it was traced with another one."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.networks.attention_pool import AttentionPool
from monai_fedlora.networks.vit import ViTSettings

SETTINGS = ViTSettings(image_size=(32, 32), patch=8, dim=16, depth=1, n_heads=2, activation="gelu_tanh")


@torch.no_grad()
def pool() -> tuple[AttentionPool, torch.Tensor]:
    torch.manual_seed(0)
    return AttentionPool(SETTINGS).eval().requires_grad_(False), torch.randn(5, 9, 16)


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning", "ignore::DeprecationWarning:torch")
def test_a_trace_of_one_image_takes_several() -> None:
    module, tokens = pool()
    traced = torch.jit.trace(module, tokens[:1])
    torch.testing.assert_close(traced(tokens), module(tokens))
    torch.testing.assert_close(module(tokens), torch.cat([module(each[None]) for each in tokens]))


@pytest.mark.slow
def test_a_program_of_two_images_takes_several() -> None:
    module, tokens = pool()
    program = torch.export.export(module, (tokens[:2],), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.testing.assert_close(program.module()(tokens), module(tokens))
