from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.files import save_tensors
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.vit import VisionTransformer


def bits(network: torch.nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


@pytest.mark.parametrize(("size", "kind"), [("small", ConvViT), ("vit_demo", VisionTransformer)])
def test_a_size_of_any_family_is_built_and_adapted(size: str, kind: type) -> None:
    network = build_network(size=size, out_chans=3, backbone="untrained", method_args={"rank": 2})
    assert isinstance(network, kind)
    trains = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    last = f"{network.block_name(len(network.blocks) - 1)}.attn"
    assert f"{last}.q.lora_A.shared.weight" in trains
    assert all("lora_" in key or key.startswith(network.head_prefixes) for key in trains)


@pytest.mark.parametrize("size", ["vit_base_16", "dinov2_small_14", "clip_base_16", "monai_vit_base_16", "base"])
def test_names_and_shapes_can_be_had_without_memory(size: str) -> None:
    with torch.device("meta"):
        network = build_network(size=size, out_chans=2, backbone="untrained")
    assert {value.device.type for value in network.state_dict().values()} == {"meta"}
    assert any("lora_" in key for key in network.state_dict())


@pytest.mark.parametrize("size", ["small", "vit_demo"])
def test_the_demo_weights_are_those_of_the_size(size: str) -> None:
    network = build_network(size=size, out_chans=2, backbone="demo", method="fedavg")
    explicit = build_network(size=size, out_chans=2, backbone=str(demo_weights(size)), method="fedavg")
    assert bits(network) == bits(explicit)
    untrained = build_network(size=size, out_chans=2, backbone="untrained", method="fedavg")
    assert bits(network).keys() == bits(untrained).keys()
    assert bits(network) != bits(untrained)


def test_a_size_without_demo_weights_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(
        ConfigError, match=r"are of size 'small' and 'vit_demo', not 'base'; give the path of a base backbone"
    ):
        build_network(size="base", out_chans=2, backbone="demo")


def test_an_unknown_size_is_refused() -> None:
    for backbone in ("demo", "untrained"):
        with pytest.raises(ConfigError, match="no network size 'smal'"):
            build_network(size="smal", out_chans=2, backbone=backbone)


def test_the_seed_alone_decides_what_is_drawn() -> None:
    state = torch.get_rng_state()
    one, same, other = (build_network(size="vit_demo", out_chans=2, backbone="untrained", seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert bits(one) == bits(same)
    assert bits(one)["head.weight"] != bits(other)["head.weight"]


def test_the_pin_is_held_for_images_too(tmp_path: Path) -> None:
    network = build_backbone("vit_demo", out_chans=2)
    path = tmp_path / "vit.safetensors"
    save_tensors(path, {key: value for key, value in network.state_dict().items() if not key.startswith("head.")})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = build_network(
        size="vit_demo", out_chans=2, backbone=str(path), backbone_sha256=digest, method="fedavg", seed=5
    )
    assert bits(loaded)["blocks.3.attn.q.weight"] == bits(network)["blocks.3.attn.q.weight"]
    with pytest.raises(WeightsError, match="not the pinned"):
        build_network(size="vit_demo", out_chans=2, backbone=str(path), backbone_sha256="0" * 64)
