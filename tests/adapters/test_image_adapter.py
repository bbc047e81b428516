"""Adapters on image features: their equations, CLIP before training, and where they have no place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from monai_fedlora.adapters.image_adapter import ImageAdapterSettings, attach_image_adapter
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.text_head import CosineHead
from tests.helpers import randomise, tiny_clip, tiny_network, tiny_photographs, tiny_vit

FORMS: dict[str, dict[str, Any]] = {
    "attention": {"form": "attention"},
    "residual": {"form": "residual", "reduction": 3, "ratio": 0.3},
}


def adapted(form: str) -> Any:
    network = tiny_clip()
    attach_image_adapter(network, ImageAdapterSettings(**FORMS[form]))
    return network


def pooled(count: int = 4) -> torch.Tensor:
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_before_training_the_logits_are_clips_to_the_bit(form: str) -> None:
    assert torch.equal(adapted(form)(tiny_photographs(5)), tiny_clip()(tiny_photographs(5)))


@torch.no_grad()
@pytest.mark.parametrize("embed_dim", [64, 100, 512, 768, 1000])
def test_equal_weights_leave_any_feature_as_it_is(embed_dim: int) -> None:
    network, x = tiny_clip(), torch.randn(3, embed_dim)
    network.head = CosineHead(n_classes=2, embed_dim=embed_dim, dim=24)
    attach_image_adapter(network, ImageAdapterSettings())
    torch.testing.assert_close(network.head.adapter(x), x, rtol=1e-6, atol=0)


@torch.no_grad()
def test_attention_is_fedclips_equation() -> None:
    """Features times the softmax of two layers with a tanh between them, normalised, as the paper has it."""
    network = adapted("attention")
    randomise(network, "adapter")
    head, layers = network.head, network.head.adapter
    image = pooled() @ head.projection.T
    weights = torch.softmax(
        torch.tanh(image @ layers.first.weight.T + layers.first.bias) @ layers.second.weight.T + layers.second.bias,
        dim=1,
    )
    expected = torch.exp(head.logit_scale) * functional.cosine_similarity((weights * image)[:, None], head.text, dim=-1)
    torch.testing.assert_close(head(pooled()), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, tiny_clip().head(pooled()), atol=1e-2)


@torch.no_grad()
def test_residual_is_clip_adapters_equation() -> None:
    """0.3 times the bottleneck's output and 0.7 times the features, normalised."""
    network = adapted("residual")
    randomise(network, "adapter")
    head, layers = network.head, network.head.adapter
    image = pooled() @ head.projection.T
    bottleneck = (image @ layers.first.weight.T).clamp(min=0) @ layers.second.weight.T
    mixed = 0.3 * bottleneck + 0.7 * image
    expected = torch.exp(head.logit_scale) * functional.cosine_similarity(mixed[:, None], head.text, dim=-1)
    torch.testing.assert_close(head(pooled()), expected, rtol=1e-5, atol=1e-5)
    assert layers.first.weight.shape == (4, 10)


@pytest.mark.parametrize("form", FORMS)
def test_the_adapter_alone_trains_and_its_last_layer_has_a_gradient_at_once(form: str) -> None:
    network = adapted(form)
    functional.cross_entropy(network(tiny_photographs(4)), torch.tensor([0, 1, 0, 1])).backward()
    trains = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert trains == {key for key, _ in network.named_parameters() if key.startswith("head.adapter.")}
    assert network.head.adapter.second.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_it_computes_in_full_precision_under_autocast() -> None:
    network = adapted("attention")
    randomise(network, "adapter")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = network.head(pooled())
    assert torch.equal(low, network.head(pooled()))


@pytest.mark.parametrize("build", [tiny_vit, tiny_network])
def test_a_head_without_texts_is_refused(build: Any) -> None:
    with pytest.raises(ConfigError, match="choose a CLIP size"):
        attach_image_adapter(build(), ImageAdapterSettings())
