from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.files import save_tensors
from monai_fedlora.methods import Method, base, register
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.scope import Role
from tests.networks.clip import SIZE, clip_model, photographs, write_clip


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


@pytest.mark.parametrize("size", ["small", "vit_demo", "clip_demo"])
def test_the_demo_weights_are_those_of_the_size(size: str) -> None:
    network = build_network(size=size, out_chans=2, backbone="demo", method="fedavg")
    explicit = build_network(size=size, out_chans=2, backbone=str(demo_weights(size)), method="fedavg")
    assert bits(network) == bits(explicit)
    untrained = build_network(size=size, out_chans=2, backbone="untrained", method="fedavg")
    assert bits(network).keys() == bits(untrained).keys()
    assert bits(network) != bits(untrained)


def test_a_size_without_demo_weights_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(
        ConfigError,
        match=r"sizes 'small', 'tall', 'fine', 'vit_demo', 'clip_demo', not 'base'; give the path of a base backbone",
    ):
        build_network(size="base", out_chans=2, backbone="demo")


def test_an_unknown_size_is_refused() -> None:
    for backbone in ("demo", "untrained"):
        with pytest.raises(ConfigError, match="no network size is called 'smal'"):
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


@dataclass(frozen=True, kw_only=True)
class Reader(Method):
    """Compares images with texts and trains the last norm."""

    name = "reader"
    summary = "for the tests"
    source = "ours"

    @property
    def reads_text(self) -> bool:
        return True

    def attach(self, network: Any) -> None:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name.startswith("norm."))

    def is_shared(self, key: str, network: Any) -> bool:
        return True


@pytest.fixture
def reader() -> Iterator[str]:
    before = dict(base._REGISTRY)
    register(Reader)
    yield Reader.name
    base._REGISTRY.clear()
    base._REGISTRY.update(before)


CLASSES = ("NV", "MEL", "VASC")
PROMPTS = Prompts(class_texts={"NV": "a mole", "MEL": "melanoma", "VASC": "an angioma"})


@pytest.mark.slow
@torch.no_grad()
def test_a_method_that_reads_texts_starts_as_zero_shot_clip(tmp_path: Path, reader: str) -> None:
    model = clip_model()
    folder, x = write_clip(tmp_path / "clip", model), photographs()
    network = build_network(
        size=SIZE,
        out_chans=3,
        backbone=str(folder),
        method=reader,
        classes=CLASSES,
        prompts=PROMPTS,
        text_cache=tmp_path / "texts",
    ).eval()
    ids = read_tokens(find_tokens(folder)).rows({"": [texts[0] for texts in PROMPTS.texts(CLASSES)]}, context=32)
    theirs = model(input_ids=ids, pixel_values=x)
    torch.testing.assert_close(network(x), theirs.logits_per_image, rtol=1e-5, atol=1e-5)
    assert len(list((tmp_path / "texts").iterdir())) == 1


def test_a_server_builds_the_head_without_reading_a_file(tmp_path: Path, reader: str) -> None:
    network = build_network(size=SIZE, out_chans=3, backbone="untrained", method=reader)
    site = build_network(
        size=SIZE, out_chans=3, backbone=str(write_clip(tmp_path, clip_model())), method=reader, classes=CLASSES
    )
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (network, site)]
    assert shapes[0] == shapes[1]
    assert not any(network.state_dict()[key].any() for key in ("head.text", "head.projection", "head.logit_scale"))
    scope = Reader().scope(network)
    assert scope.keys(Role.SHARED) == ["norm.bias", "norm.weight"]
    assert {key for key in scope.keys(Role.FROZEN) if key.startswith("head.")} == {
        "head.text",
        "head.projection",
        "head.logit_scale",
    }


@pytest.mark.parametrize("size", ["clip_base_32", "clip_base_16", "clip_large_14", "clip_demo"])
def test_the_head_of_every_clip_can_be_had_without_memory(size: str, reader: str) -> None:
    with torch.device("meta"):
        network = build_network(size=size, out_chans=2, backbone="untrained", method=reader)
    embed = {"clip_large_14": 768, "clip_demo": 64}.get(size, 512)
    assert network.state_dict()["head.projection"].shape == (embed, network.settings.dim)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"size": "vit_demo"},
            "reader compares images with texts: a vit_demo network cannot read texts; choose a size that can",
        ),
        ({"size": "small"}, "a small network cannot read texts"),
        ({"size": "vit_demo", "backbone": "untrained"}, "a vit_demo network cannot read texts"),
        ({"classes": ()}, "needs the names of all 3 classes, not 0"),
        ({"classes": ("NV", "MEL")}, "needs the names of all 3 classes, not 2"),
        ({"prompts": Prompts(class_texts={"NV": "a mole"})}, "class_texts has no text for class 'MEL'"),
        ({"prompts": Prompts(templates=("x-" * 20 + "{class}",))}, "the text of class 'NV' is too long"),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, reader: str, settings: dict[str, Any], message: str) -> None:
    source = write_clip(tmp_path, clip_model())
    defaults = {"size": SIZE, "out_chans": 3, "backbone": str(source), "method": reader, "classes": CLASSES}
    with pytest.raises(ConfigError, match=message):
        build_network(**(defaults | settings))


def test_the_pin_is_held_for_both_towers(tmp_path: Path, reader: str) -> None:
    source = write_clip(tmp_path, clip_model())
    with pytest.raises(WeightsError, match="not the pinned"):
        build_network(
            size=SIZE, out_chans=3, backbone=str(source), backbone_sha256="0" * 64, method=reader, classes=CLASSES
        )


def test_other_methods_leave_the_texts_alone() -> None:
    plain = build_network(size=SIZE, out_chans=3, backbone="untrained", method="fedavg")
    named = build_network(
        size=SIZE, out_chans=3, backbone="untrained", method="fedavg", classes=CLASSES, prompts=PROMPTS
    )
    assert bits(plain) == bits(named)
