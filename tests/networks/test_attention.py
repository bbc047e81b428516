from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from monai_fedlora.networks import attention
from monai_fedlora.networks.attention import dot_product_attention

FUSED = "_scaled_dot_product_flash_attention_for_cpu"


def make(dtype: torch.dtype, *, seed: int = 0, queries: int = 50, tokens: int = 50) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 3, queries, 8), (2, 3, tokens, 8), (2, 3, tokens, 8))
    return [torch.randn(*shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def gradients(parts: list[torch.Tensor], *, causal: bool = False) -> list[torch.Tensor]:
    out = dot_product_attention(*parts, causal=causal)
    out.float().square().sum().backward()
    return [out.float(), *(part.grad.float() for part in parts if part.grad is not None)]


def operations(parts: list[torch.Tensor], *, causal: bool = False) -> set[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        dot_product_attention(*parts, causal=causal)
    return {event.key.removeprefix("aten::") for event in profile.key_averages()}


def test_float32_is_torchs_fused_attention_to_the_bit() -> None:
    parts = make(torch.float32)
    assert torch.equal(dot_product_attention(*parts), functional.scaled_dot_product_attention(*parts))
    assert FUSED in operations(parts)


@pytest.mark.parametrize(("queries", "tokens"), [(50, 50), (1, 50), (7, 33)])
def test_bfloat16_agrees_with_double_precision(queries: int, tokens: int) -> None:
    parts = make(torch.bfloat16, queries=queries, tokens=tokens)
    precise = [part.detach().double().requires_grad_() for part in parts]
    with sdpa_kernel(SDPBackend.MATH):
        out = functional.scaled_dot_product_attention(*precise)
    out.square().sum().backward()
    expected = [out, *(part.grad for part in precise if part.grad is not None)]
    for found, wanted in zip(gradients(parts), expected, strict=True):
        assert found.shape == wanted.shape
        assert (found - wanted).norm() < 0.015 * wanted.norm()


def test_bfloat16_is_nearly_as_close_to_the_truth_as_the_fused_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    precise = [part.detach().double() for part in make(torch.bfloat16)]
    truth = functional.scaled_dot_product_attention(*precise)
    plain = dot_product_attention(*make(torch.bfloat16))
    monkeypatch.setattr(attention, "LARGEST_ATTENTION", 0)
    fused = dot_product_attention(*make(torch.bfloat16))
    assert not torch.equal(plain, fused)
    assert (plain - truth).norm() < 3 * (fused - truth).norm() < 0.02 * truth.norm()


def test_bfloat16_with_many_pairs_keeps_no_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make(torch.bfloat16)
    assert FUSED not in operations(parts)
    monkeypatch.setattr(attention, "LARGEST_ATTENTION", 2 * 2 * 3 * 50 * 50 - 1)
    assert FUSED in operations(parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_tokens_do_not_see_what_follows(dtype: torch.dtype) -> None:
    parts = make(dtype)
    changed = [parts[0], *(torch.cat([part[:, :, :-1], part[:, :, -1:] + 1], dim=2) for part in parts[1:])]
    before, after = (dot_product_attention(*some, causal=True) for some in (parts, changed))
    assert torch.equal(before[:, :, :-1], after[:, :, :-1])
    assert not torch.equal(before[:, :, -1], after[:, :, -1])
