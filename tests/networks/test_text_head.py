"""A head made of texts gives CLIP's zero-shot logits, everywhere a network goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import TextAnchors, text_anchors
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.text_head import CosineHead, put_head
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.networks.clip import SIZE, TEXTS, photographs, shapes
from tests.networks.conftest import Checkpoint


def zero_shot(checkpoint: Checkpoint) -> VisionTransformer:
    network = build_backbone(SIZE, out_chans=len(TEXTS)).eval()
    assert isinstance(network, VisionTransformer)
    load_backbone(network, checkpoint.folder)
    anchors = text_anchors(checkpoint.folder, size=SIZE, classes=TEXTS, prompts=Prompts(templates=("{class}",)))
    put_head(network, CosineHead.of(anchors))
    return network


@torch.no_grad()
def test_images_and_logits_are_those_of_transformers(checkpoint: Checkpoint) -> None:
    network, x = zero_shot(checkpoint), photographs()
    ids = read_tokens(find_tokens(checkpoint.folder)).rows({"": TEXTS}, context=shapes()[0].context)
    theirs = checkpoint.model(input_ids=ids, pixel_values=x)
    pooled = network.pool(network.prefix(x, 6))
    assert isinstance(network.head, CosineHead)
    torch.testing.assert_close(network.head.embed(pooled), theirs.image_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network.head.text, theirs.text_embeds, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network(x), theirs.logits_per_image, rtol=1e-5, atol=1e-5)


def test_nothing_of_it_trains_and_all_of_it_is_in_the_state(checkpoint: Checkpoint) -> None:
    network = zero_shot(checkpoint)
    assert list(network.head.parameters()) == []
    own = {key for key in network.state_dict() if key.startswith("head.")}
    assert own == {"head.text", "head.projection", "head.logit_scale"}
    empty = build_backbone(SIZE, out_chans=len(TEXTS))
    assert isinstance(empty, VisionTransformer)
    put_head(empty, CosineHead(n_classes=len(TEXTS), embed_dim=64, dim=96))
    empty.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(empty.eval()(photographs()), network(photographs()), rtol=0, atol=0)


def test_logits_and_gradients_are_those_of_scaled_cosines(checkpoint: Checkpoint) -> None:
    head = zero_shot(checkpoint).head
    assert isinstance(head, CosineHead)
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.randn(5, len(TEXTS), generator=torch.Generator().manual_seed(1))
    expected = head.logit_scale.exp() * torch.cosine_similarity((x @ head.projection.T)[:, None], head.text, dim=-1)
    torch.testing.assert_close(head(x), expected, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad((logits * weights).sum(), x)[0] for logits in (head(x), expected)]
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_trace_keeps_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    network, x = zero_shot(checkpoint), photographs()
    traced = torch.jit.trace(network, x)
    traced.save(str(tmp_path / "model.ts"))
    loaded = torch.jit.load(str(tmp_path / "model.ts"))
    for images in (x, photographs(5)):
        torch.testing.assert_close(loaded(images), network(images))


@torch.no_grad()
def test_logits_keep_their_digits_under_autocast(checkpoint: Checkpoint) -> None:
    head, pooled = zero_shot(checkpoint).head, torch.randn(4, 96)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.bfloat16
        low = head(pooled)
    torch.testing.assert_close(low, head(pooled), rtol=0, atol=0)


def test_a_new_head_gives_zeros_on_any_device() -> None:
    head = CosineHead(n_classes=3, embed_dim=4, dim=5)
    assert torch.equal(head(torch.randn(2, 5)), torch.zeros(2, 3))
    with torch.device("meta"):
        assert CosineHead(n_classes=3, embed_dim=4, dim=5)(torch.empty(2, 5)).shape == (2, 3)


def test_a_head_of_another_image_tower_is_refused() -> None:
    anchors = TextAnchors(features=torch.ones(2, 4), projection=torch.ones(4, 80), logit_scale=1.0, digest="")
    network = build_backbone(SIZE, out_chans=2)
    with pytest.raises(ConfigError, match="of width 80, and this image tower's are 96 wide"):
        put_head(network, CosineHead.of(anchors))
    with pytest.raises(ConfigError, match="a ConvViT has two heads"):
        put_head(build_backbone("tiny", out_chans=2), CosineHead.of(anchors))
