"""Cutting networks that were not written for it: the two parts are the whole, or the cut is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_fedlora.engines.dataset import CaseDataset
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import Features, is_backbone
from monai_fedlora.networks.blocked import BlockedNetwork
from tests.own_networks import OWN, Masking, Own, Skipping, TimmVit, monai_vit

BLOCKED = {name: own for name, own in OWN.items() if own.blocks}


def opened(own: Own) -> BlockedNetwork:
    return BlockedNetwork(own.network(), head=[own.head], blocks=str(own.blocks)).eval()


@torch.no_grad()
@pytest.mark.parametrize("own", BLOCKED.values(), ids=BLOCKED)
def test_two_parts_are_the_whole_wherever_it_is_cut(own: Own) -> None:
    network, images = opened(own), own.images(3)
    whole = network(images)
    for block in range(4):
        features = network.prefix(images, block)
        assert features.tokens.shape == (3, 5, 12)
        assert features.addend.shape == (3, 0, 3, 16, 16)
        torch.testing.assert_close(network.suffix(features, block), whole, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(network(features, block), whole, rtol=1e-6, atol=1e-6)
    assert torch.equal(network(images), whole)


@torch.no_grad()
def test_the_second_part_needs_nothing_of_the_first() -> None:
    """As in a process that reads what another one kept."""
    own = OWN["monai-vit"]
    features = opened(own).prefix(own.images(), 2)
    fresh = opened(own)
    broken = {name: torch.full_like(value, float("nan")) for name, value in fresh.module.blocks[0].state_dict().items()}
    expected = fresh(own.images())
    assert torch.equal(fresh.suffix(features, 2), expected)
    fresh.module.blocks[0].load_state_dict(broken)
    assert torch.equal(fresh.suffix(features, 2), expected)


@torch.no_grad()
def test_every_block_runs_once_in_the_part_it_belongs_to() -> None:
    own = OWN["timm-vit"]
    network, images = opened(own), own.images()
    network.suffix(network.prefix(images, 1), 1)
    ran: list[int] = []
    for number, block in enumerate(network.blocks):
        block.attn.register_forward_hook(lambda *_, number=number: ran.append(number))
    features = network.prefix(images, 1)
    assert ran == [0]
    network.suffix(features, 1)
    assert ran == [0, 1, 2]


@pytest.mark.parametrize("own", BLOCKED.values(), ids=BLOCKED)
def test_a_network_with_named_blocks_is_a_backbone(own: Own) -> None:
    network = opened(own)
    assert is_backbone(network)
    assert [network.get_submodule(network.block_name(index)) for index in range(3)] == list(network.blocks)
    network.requires_grad_(False)
    network.blocks[2].requires_grad_(True)
    part = frozen_part(network)
    assert part is not None
    assert list(part.blocks_behind()) == [2]
    assert part.prefixes_behind == (f"module.{own.blocks}.2.", f"module.{own.head}.", "side.")
    parts = part.compute(own.images())
    assert torch.equal(part.logits(parts, network), network(own.images()))


@pytest.mark.parametrize("own", BLOCKED.values(), ids=BLOCKED)
def test_what_frozen_blocks_give_is_kept(own: Own) -> None:
    network, images = opened(own), own.images(3)
    network.requires_grad_(False)
    network.blocks[2].requires_grad_(True)
    cases = CaseDataset([{"image": image, "label": 0} for image in images], [])
    views = [cases.view(index) for index in range(3)]
    inferer = FrozenInferer(dtype="float32")
    ran: list[int] = []
    next(iter(network.blocks[0].children())).register_forward_hook(lambda *_: ran.append(0))
    first = inferer(views, network)
    before = len(ran)
    assert before >= 3
    again = inferer(views[::-1], network)
    assert len(ran) == before
    torch.testing.assert_close(first, network(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again.flip(0), first, rtol=1e-5, atol=1e-6)


def test_what_a_class_of_ones_own_gives_is_never_found_by_others() -> None:
    """Its code may change while its name and its weights stay."""
    for own in (OWN["timm-vit"], OWN["transformers-vit"]):
        part = frozen_part(opened(own).requires_grad_(False))
        assert part is not None
        assert part.digest is None


@torch.no_grad()
def test_the_inputs_of_all_blocks_are_tapped() -> None:
    own = OWN["timm-vit-tuples"]
    network, images = opened(own), own.images()
    hidden, addend = network.taps(images)
    assert [torch.equal(tokens, network.prefix(images, block).tokens) for block, tokens in enumerate(hidden)] == [
        True
    ] * 3
    assert torch.equal(network.suffix(Features(hidden[-1], addend), 2), network(images))


def test_the_gradient_reaches_the_tokens_of_the_cut() -> None:
    own = OWN["monai-vit"]
    network = opened(own).requires_grad_(False)
    features = network.prefix(own.images(), 2)
    tokens = features.tokens.requires_grad_(True)
    network.suffix(Features(tokens, features.addend), 2).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.any()


@pytest.mark.parametrize(
    ("build", "reason"),
    [(Skipping, "skip connection"), (Masking, "depends on the image")],
    ids=["skip", "mask"],
)
def test_a_network_whose_blocks_do_not_carry_everything_is_refused(build: Any, reason: str) -> None:
    torch.manual_seed(0)
    network = BlockedNetwork(build(), head=["head"], blocks="blocks").eval()
    images = torch.randn(2, 3, 16, 16)
    assert network(images).shape == (2, 2)
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"before block 1 of 'blocks'.*{reason}.*[Ll]eave blocks"):
            network.prefix(images, 1)


class Twice(TimmVit):
    """Runs its blocks two times."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(self.blocks(tokens))).mean(dim=1))


def test_blocks_that_run_more_than_once_are_refused() -> None:
    network = BlockedNetwork(Twice(), head=["head"], blocks="blocks").eval()
    with pytest.raises(ConfigError, match=re.escape("[0, 1, 2, 0, 1, 2]")):
        network.prefix(torch.randn(2, 3, 16, 16), 1)


def test_a_failed_cut_leaves_the_module_as_it_was() -> None:
    network = BlockedNetwork(Skipping(), head=["head"], blocks="blocks").train()
    with pytest.raises(ConfigError):
        network.prefix(torch.randn(2, 3, 16, 16), 1)
    assert not any("forward" in vars(module) for module in network.modules())
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize(
    ("blocks", "message"),
    [("block", "nearest are blocks"), ("norm", "a LayerNorm; name an nn.ModuleList.*blocks"), ("", "no such module")],
)
def test_what_is_no_list_of_blocks_is_an_error(blocks: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BlockedNetwork(monai_vit(), blocks=blocks)


def test_a_cut_behind_the_last_block_or_before_the_first_is_the_last_there_is() -> None:
    own = OWN["timm-vit"]
    for block in (-1, 4):
        with pytest.raises(ConfigError, match=r"outside 0..3"):
            opened(own).prefix(own.images(), block)


def test_roles_are_found_in_a_block() -> None:
    found = {name: opened(own).target_names for name, own in BLOCKED.items()}
    qkv = dict.fromkeys("qkv", "attn.qkv")
    assert found["monai-vit"] == {**qkv, "proj": "attn.out_proj", "fc1": "mlp.linear1", "fc2": "mlp.linear2"}
    assert found["timm-vit"] == {**qkv, "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    assert found["transformers-vit"] == {
        **{role: f"attention.{role}_proj" for role in "qkv"},
        "proj": "attention.o_proj",
        "fc1": "mlp.fc1",
        "fc2": "mlp.fc2",
    }


class Sizes(nn.Module):
    """Blocks of one class that are no blocks of tokens: each returns a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Size() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :2] * sum(layer(x) for layer in self.layers)


class _Size(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> int:
        return x.shape[1]


def test_blocks_that_give_no_tensor_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"layers.0 makes a int of a Tensor"):
        BlockedNetwork(Sizes(), blocks="layers").prefix(torch.randn(2, 3, 16, 16), 0)
