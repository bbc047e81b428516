from __future__ import annotations

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.catalogue import architecture, architecture_names, build_backbone, demo_weights
from monai_fedlora.networks.cinema import SIZES, ConvViT
from monai_fedlora.networks.vit import VisionTransformer

# Parameters of the published models without their classifiers, counted from their configurations:
# patch embedding, class token, positions, blocks of 12 D^2 + 13 D (and 2 D for a layer scale), norms.
PUBLISHED = {
    "vit_small_16": 21_665_664,
    "vit_base_16": 85_798_656,
    "vit_large_16": 303_301_632,
    "dinov2_small_14": 21_628_800,  # at 224 pixels; 22,056,576 with 518-pixel positions and the mask token
    "dinov2_base_14": 85_724_928,
    "clip_base_32": 87_456_000,
    "clip_base_16": 85_799_424,
    "clip_large_14": 303_179_776,
}


@pytest.mark.parametrize("name", architecture_names())
def test_every_architecture_can_be_built_and_takes_its_images(name: str) -> None:
    entry = architecture(name)
    assert entry.name == name
    with torch.device("meta"):
        network = build_backbone(name, out_chans=5)
        channels = 2 if entry.modality == "cine" else 3
        assert network(torch.empty(1, channels, *entry.image_size)).shape == (1, 5)
    assert isinstance(network, {"convvit": ConvViT, "vit": VisionTransformer}[entry.family])


@pytest.mark.parametrize("name", architecture_names())
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


def test_names_come_by_modality() -> None:
    assert architecture_names("cine") == list(SIZES)
    assert set(architecture_names("cine")).isdisjoint(architecture_names("image"))
    assert architecture_names() == architecture_names("cine") + architecture_names("image")


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
    with pytest.raises(ConfigError, match=r"'vit_giant'; choose from tiny, small, .*, vit_demo"):
        find("vit_giant")


def test_demo_weights_are_of_some_architectures() -> None:
    shipped = {name: path for name in architecture_names() if (path := demo_weights(name))}
    assert set(shipped) == {"small", "vit_demo", "clip_demo"}
    assert all(path.stat().st_size < 5e6 for path in shipped.values())
    assert {path.name for path in shipped["clip_demo"].parent.iterdir()} == {
        "demo_clip.safetensors",
        "vocab.json",
        "merges.txt",
    }
