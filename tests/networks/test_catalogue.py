from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.engines.frozen import frozen_part
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.files import save_tensors, sha256
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks.catalogue import (
    BACKBONES,
    BUILT_IN,
    Architecture,
    architecture,
    build_backbone,
    demo_weights,
)
from monai_fedlora.networks.cinema import ConvViT
from monai_fedlora.networks.vit import VisionTransformer
from monai_fedlora.networks.weights import load_backbone
from tests.helpers import make_plan
from tests.plugin_packages import Install

# Parameters of the published models without their classifiers, counted from their configurations:
# patch embedding, class token, positions, blocks of 12 D^2 + 13 D (and 2 D for a layer scale), norms.
PUBLISHED = {
    "vit_small_16": 21_665_664,
    "vit_base_16": 85_798_656,
    "vit_large_16": 303_301_632,
    "dinov2_small_14": 21_628_800,  # at 224 pixels; 22,056,576 with 518-pixel positions and the mask token
    "dinov2_base_14": 85_724_928,
    "dinov2_giant_14": 1_134_769_664,  # 1,136,480,768 with 518-pixel positions and the mask token
    "uni_large_16": 303_350_784,
    "deit_tiny_16": 5_524_416,  # 5,717,416 with the head
    "clip_base_32": 87_456_000,
    "clip_base_16": 85_799_424,
    "clip_large_14": 303_179_776,
    "open_clip_huge_14": 630_766_080,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_every_architecture_can_be_built_and_takes_its_images(name: str) -> None:
    entry = architecture(name)
    assert entry.name == name
    with torch.device("meta"):
        network = build_backbone(name, out_chans=5)
        channels = 2 if entry.modality == "cine" else 3
        assert network(torch.empty(1, channels, *entry.image_size)).shape == (1, 5)
    assert isinstance(network, ConvViT if entry.modality == "cine" else VisionTransformer)


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_entry_says_what_its_images_need(name: str) -> None:
    entry = architecture(name)
    cine, image = entry.spacing, (entry.mean, entry.std)
    assert (cine is None, None in image) == ((False, True) if entry.modality == "cine" else (True, False))
    assert len(entry.image_size) == (3 if entry.modality == "cine" else 2)
    if entry.std is not None:
        assert all(0 < value < 1 for value in (*entry.std, *entry.mean))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_architectures_have_the_published_number_of_parameters(name: str) -> None:
    with torch.device("meta"):
        network = build_backbone(name, out_chans=2)
    found = sum(p.numel() for key, p in network.named_parameters() if not key.startswith(network.head_prefixes))
    position_of_the_class = network.settings.dim  # added to the class token here, a row of the table there
    assert found + position_of_the_class == PUBLISHED[name]


def test_frames_are_for_cine_only() -> None:
    with torch.device("meta"):
        assert build_backbone("small", out_chans=2, n_frames=3).n_frames == 3
        assert build_backbone("vit_demo", out_chans=2, n_frames=3)(torch.empty(1, 3, 64, 64)).shape == (1, 2)


def test_a_convvit_of_the_catalogue_is_the_convvit_of_its_module() -> None:
    from monai_fedlora.networks.cinema import convvit

    torch.manual_seed(0)
    one = build_backbone("small", out_chans=2).state_dict()
    torch.manual_seed(0)
    other = convvit("small", out_chans=2).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one.keys() | other.keys())


@pytest.mark.parametrize("find", [architecture, demo_weights, lambda name: build_backbone(name, out_chans=2)])
def test_an_unknown_name_is_refused_with_the_known_ones(find) -> None:
    with pytest.raises(ConfigError, match=r"'no_such_size'; choose from base, biomedclip_base_16, .*, vit_demo"):
        find("no_such_size")


def test_demo_weights_are_of_some_architectures() -> None:
    shipped = {name: path for name in BUILT_IN if (path := demo_weights(name))}
    assert set(shipped) == {"small", "tall", "fine", "vit_demo", "clip_demo"}
    assert all(path.stat().st_size < 5e6 for path in shipped.values())
    assert {path.name for path in shipped["clip_demo"].parent.iterdir()} == {
        "demo_clip.safetensors",
        "vocab.json",
        "merges.txt",
    }


OWN = """
from torch import nn
from monai_fedlora.networks.catalogue import Architecture
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings

class Net(nn.Module):
    def __init__(self, out_chans):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3)))
        self.head = nn.Linear(8, out_chans)

    def forward(self, x):
        return self.head(self.blocks(self.norm(self.stem(x)).flatten(2).transpose(1, 2)).mean(1))

def build(*, out_chans, n_frames):
    return Net(out_chans)

def transformer(*, out_chans, n_frames):
    return VisionTransformer(ViTSettings(image_size=(8, 8), patch=4, dim=8, depth=2, n_heads=2), out_chans=out_chans)

def fails(*, out_chans, n_frames):
    raise RuntimeError("no such luck")

def entry(name, build, **more):
    images = dict(image_size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3, source="a test")
    return Architecture(name=name, build=build, **images, **more)

WHOLE = entry("own_whole", build, head=("head",))
CUT = entry("own_cut", build, head=("head",), blocks="blocks")
PROTOCOL = entry("own_protocol", transformer)
FAILS = entry("own_fails", fails)
OTHER = entry("another", build)
MISNAMED = entry("own_misnamed", build, head=("haed",))
"""


@pytest.fixture
def own(install: Install) -> None:
    names = ("whole", "cut", "protocol", "fails", "other", "misnamed")
    entries = {f"backbones:own_{name}": f"own_backbones:{name.upper()}" for name in names}
    install("own", entries, {"own_backbones": OWN})


def test_a_backbone_of_another_package_takes_methods_and_its_own_weights(own: None, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 8, 8)
    for name, can_be_cut in (("own_whole", False), ("own_cut", True), ("own_protocol", True)):
        network = build_network(size=name, out_chans=2, backbone="untrained", method="linear_probe")
        assert (frozen_part(network) is not None) == can_be_cut
        assert {key for key, p in network.named_parameters() if p.requires_grad} == {
            key for key in network.state_dict() if key.startswith(network.head_prefixes)
        }
        prefix = "" if name == "own_protocol" else "module."
        state = {key.removeprefix(prefix): torch.rand_like(v.float()).to(v) for key, v in network.state_dict().items()}
        save_tensors(tmp_path / "all.safetensors", state)
        fresh = build_backbone(name, out_chans=2).eval()
        assert load_backbone(fresh, tmp_path / "all.safetensors").heads
        assert all(torch.equal(state[key.removeprefix(prefix)], value) for key, value in fresh.state_dict().items())
        three = build_backbone(name, out_chans=3).eval()
        info = load_backbone(three, tmp_path / "all.safetensors", sha256=sha256(tmp_path / "all.safetensors"))
        assert (info.heads, set(info.skipped)) == (False, {"head.weight", "head.bias"})
        assert three(images).shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: state.pop("stem.weight"), "it lacks stem.weight"),
        (lambda state: state.update(more=torch.ones(1)), "the network has no more"),
        (lambda state: state.update({"stem.bias": torch.ones(9)}), r"stem.bias is \(9,\) instead of \(8,\)"),
        (lambda state: state.update({"stem.bias": torch.full((8,), torch.nan)}), "stem.bias holds NaN"),
        (lambda state: state.update({"norm.num_batches_tracked": torch.ones(())}), "num_batches_tracked holds"),
    ],
)
def test_weights_of_another_network_are_refused(own: None, tmp_path: Path, change: Any, why: str) -> None:
    network = build_backbone("own_cut", out_chans=2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = {key.removeprefix("module."): value.clone() for key, value in before.items()}
    change(state)
    save_tensors(tmp_path / "own.safetensors", state)
    with pytest.raises(WeightsError, match=why):
        load_backbone(network, tmp_path / "own.safetensors")
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    with pytest.raises(WeightsError, match="not the pinned"):
        load_backbone(network, tmp_path / "own.safetensors", sha256="0" * 64)


def test_a_backbone_that_cannot_be_used_says_of_which_package_it_is(own: None) -> None:
    for name, why in (
        ("own_fails", r"own_fails of own 1.0 .*RuntimeError: no such luck"),
        ("own_other", r"own 1.0 .* calls itself 'another'"),
        ("own_misnamed", "head is 'haed'.*nearest.* head"),
    ):
        with pytest.raises(ConfigError, match=why):
            build_backbone(name, out_chans=2)
    with pytest.raises(ConfigError, match="'own_cot'; did you mean 'own_cut'"):
        architecture("own_cot")
    assert make_plan(size="own_cut").plugins == {"own": "1.0"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"build": None}, "neither a shape nor a function"),
        ({"image_size": (8,)}, "2 whole numbers"),
        ({"spacing": (1.0, 1.0, 1.0), "mean": None, "std": None}, "3 whole numbers"),
        ({"std": None}, "mean and std"),
        ({"mean": None, "std": None}, "a spacing, for cines"),
    ],
)
def test_an_architecture_has_to_describe_its_images(changes: dict[str, Any], why: str) -> None:
    settings = {"image_size": (8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, "build": torch.nn.Identity}
    with pytest.raises(ConfigError, match=why):
        Architecture(name="own", source="a test", **{**settings, **changes})


def test_a_vision_transformer_takes_square_images_of_other_sizes_by_name() -> None:
    plain, larger = architecture("dinov2_small_14"), architecture("dinov2_small_14-518")
    assert larger == replace(plain, name="dinov2_small_14-518", shape=replace(plain.shape, image_size=(518, 518)))
    assert larger.image_size == (518, 518)
    with torch.device("meta"):
        assert build_backbone("dinov2_small_14-518", out_chans=2).embed.grid == (37, 37)
    assert "dinov2_small_14-518" in BACKBONES and "dinov2_small_14-518" not in set(BACKBONES)
    assert demo_weights("vit_demo-96") == demo_weights("vit_demo")
    with pytest.raises(ConfigError, match="take dinov2_small_14-504 or dinov2_small_14-518"):
        architecture("dinov2_small_14-512")
    for name in ("small-64", "dinov2_small_14-0", "dinov2_small_14-518-518", "unknown-224"):
        with pytest.raises(ConfigError, match="no network size is called"):
            architecture(name)


DINOV3 = {
    "dinov3_small_16": (384, 12, 6, 1536, False),
    "dinov3_small_plus_16": (384, 12, 6, 1536, True),
    "dinov3_base_16": (768, 12, 12, 3072, False),
    "dinov3_large_16": (1024, 24, 16, 4096, False),
    "dinov3_sat_large_16": (1024, 24, 16, 4096, False),
    "dinov3_huge_plus_16": (1280, 32, 20, 5120, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DINOV3)
def test_a_published_dinov3_has_the_parameters_of_the_family_in_its_own_library(name: str) -> None:
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "use_gated_mlp")
    config = DINOv3ViTConfig(num_register_tokens=4, **dict(zip(names, DINOV3[name], strict=True)))
    with torch.device("meta"):
        theirs, ours = DINOv3ViTModel(config), build_backbone(name, out_chans=2)
    own = sum(value.numel() for key, value in ours.state_dict().items() if not key.startswith("head."))
    assert own + config.hidden_size == sum(value.numel() for value in theirs.state_dict().values())  # a mask token
    assert ours.settings.n_heads == config.num_attention_heads and ours.settings.norm_eps == config.layer_norm_eps
