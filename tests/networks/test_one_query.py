"""Attention of one query against the attention of all, of which only the first output is read."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from monai_fedlora.adapters.lora import SHARED, LoraSettings, add_adapters
from monai_fedlora.networks.one_query import attend

DIM, HEADS, TOKENS, BATCH = 24, 3, 17, 4


class Projections(nn.Module):
    """Queries, keys and values of a block."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(DIM, DIM, bias=bias) for _ in range(3))

    def usual(self, x: torch.Tensor) -> torch.Tensor:
        """The first token's output of PyTorch's own attention on all tokens."""
        heads = (layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)[:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return attend(x, self.q(x[:, 0]), self.k, self.v, n_heads=HEADS)


def adapted(projections: Projections, *layers: str, dropout: float = 0.0) -> Projections:
    add_adapters(projections, layers, LoraSettings(rank=2, alpha=4.0, dropout=dropout), (SHARED,))
    projections.requires_grad_(True)
    with torch.no_grad():
        for name, parameter in projections.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    return projections


CASES = {
    "bias": lambda: Projections(bias=True),
    "no_bias": lambda: Projections(bias=False),
    "adapted_value": lambda: adapted(Projections(bias=True), "q", "v"),
    "adapted_key": lambda: adapted(Projections(bias=True), "k"),
    "dropout_at_rest": lambda: adapted(Projections(bias=True), "v", dropout=0.5).eval(),
}


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_the_usual_attention(case: str) -> None:
    torch.manual_seed(0)
    projections = CASES[case]().double()
    x = torch.randn(BATCH, TOKENS, DIM, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(BATCH, DIM, dtype=torch.float64)
    leaves = [x, *projections.parameters()]
    found, expected = projections(x), projections.usual(x)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad((expected * weights).sum(), leaves)
    for gradient, other in zip(torch.autograd.grad((found * weights).sum(), leaves), wanted, strict=True):
        torch.testing.assert_close(gradient, other)


def test_dropout_of_values_falls_on_every_token() -> None:
    """Averaging first would drop the same entries of all tokens at once."""
    torch.manual_seed(0)
    projections = adapted(Projections(bias=True), "v", dropout=0.5)
    x = torch.randn(BATCH, TOKENS, DIM)
    seen: list[tuple[int, ...]] = []
    projections.v.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    projections(x)
    assert seen == [(BATCH, TOKENS, DIM)]


def test_keys_and_values_of_all_tokens_are_never_made() -> None:
    projections = Projections(bias=True)
    seen: list[int] = []
    for layer in (projections.k, projections.v):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[1]))
    projections(torch.randn(BATCH, TOKENS, DIM))
    assert seen == [HEADS]
