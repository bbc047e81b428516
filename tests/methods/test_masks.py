"""Methods train a segmentation network as a classifier: adapters in encoder blocks, the decoder as the head."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.errors import ConfigError
from monai_fedlora.methods.base import get_method
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks import cinema
from monai_fedlora.networks.up_decoder import DecoderSettings
from monai_fedlora.scope import Role


@pytest.fixture(scope="module", autouse=True)
def micro() -> Iterator[None]:
    shape = dataclasses.replace(
        cinema.SIZES["small"], image_size=(16, 16, 2), embed_dim=16, depth=3, n_heads=2, conv_chans=(4, 8)
    )
    shape = dataclasses.replace(shape, conv_n_blocks=1, decoder=DecoderSettings(chans=(4, 6, 8), kernel_size=(3, 3, 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cinema.SIZES, "micro_masks", shape)
        yield


def build(method: str, **settings: Any) -> Any:
    return build_network(
        size="micro_masks", out_chans=4, backbone="untrained", method=method, method_args=settings, masks=True
    )


@pytest.mark.parametrize("method", ["dual_lora", "fedopal", "fedsa_lora", "linear_probe", "fedper"])
def test_what_is_frozen_can_be_kept_and_the_decoder_trains(method: str) -> None:
    network = build(method).train()
    x = torch.rand(2, 2, 16, 16, 2, generator=torch.Generator().manual_seed(0))
    logits = network(x)
    assert logits.shape == (2, 2, 4, 16, 16, 2)
    part = frozen_part(network)
    assert part is not None
    torch.testing.assert_close(part.logits(part.compute(x), network), logits)
    logits.square().mean().backward()
    decoder = {name for name, _ in network.named_parameters() if name.startswith(network.head_prefixes)}
    trained = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert decoder <= trained
    assert not any(name.startswith("enc_down_dict.") for name in trained)


@pytest.mark.parametrize(("head", "role"), [("shared", Role.SHARED), ("private", Role.PRIVATE)])
def test_the_decoder_is_shared_or_private_by_the_heads_option(head: str, role: Role) -> None:
    network = build("dual_lora", head=head)
    keys = set(get_method("dual_lora", {"head": head}).scope(network).keys(role))
    assert {name for name, _ in network.named_parameters() if name.startswith(network.head_prefixes)} <= keys


def test_methods_that_read_texts_are_refused() -> None:
    with pytest.raises(ConfigError, match="gives no masks"):
        build("clip_adapter")
