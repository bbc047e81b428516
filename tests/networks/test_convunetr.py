"""ConvUNetR against the original implementation's outputs, and against PyTorch's own layers put together here.

`convunetr_reference.safetensors` holds, per configuration, the settings, the state-dict keys and the logits that the
original implementation gives in float64 for weights and an image made by the closed form `noise` below.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.files import save_tensors
from monai_fedlora.networks.backbone import Features, is_backbone
from monai_fedlora.networks.cinema import SIZES, ConvViT, convunetr, convvit
from monai_fedlora.networks.convunetr import ConvUNetR
from monai_fedlora.networks.read_once import read_backbone, reading_once
from monai_fedlora.networks.up_decoder import DecoderSettings, ResBlock
from monai_fedlora.networks.weights import load_backbone

REFERENCE = Path(__file__).parent / "convunetr_reference.safetensors"
CONFIGURATIONS = ["as_released", "every_stage_with_a_map"]
SETTINGS: dict[str, Any] = {
    "image_size": (16, 12, 3),
    "n_frames": 2,
    "out_chans": 4,
    "patch_size": (2, 3, 1),
    "scale_factor": (2, 1, 1),
    "conv_chans": (4, 6),
    "conv_n_blocks": 1,
    "embed_dim": 20,
    "depth": 3,
    "n_heads": 2,
    "decoder": DecoderSettings(chans=(4, 6, 8), patch_size=(2, 3, 1), scale_factor=(2, 1, 1), kernel_size=(3, 3, 1)),
}


def noise(count: int, seed: int) -> torch.Tensor:
    """Values in [-0.5, 0.5) in float64."""
    value = torch.sin(torch.arange(count, dtype=torch.float64) * 12.9898 + seed * 78.233) * 43758.5453
    return value - value.floor() - 0.5


def fill(network: nn.Module) -> None:
    """Overwrite all weights, key by key in the order of their names; positions stay."""
    with torch.no_grad():
        for seed, (key, value) in enumerate(sorted(network.state_dict().items())):
            new = noise(value.numel(), seed).reshape(value.shape)
            if key.endswith("pos_embed"):
                continue
            if value.ndim > 1:
                new *= 3 / math.sqrt(value[0].numel())
            elif "norm" in key and key.endswith("weight"):
                new += 1
            value.copy_(new)


def build(**changes: Any) -> ConvUNetR:
    """A small network in which every parameter is random."""
    network = ConvUNetR(**{**SETTINGS, **changes}).eval()
    fill(network)
    return network


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


# ---- the original implementation -----------------------------------------------------------------------


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_keys_and_logits_are_those_of_the_original_implementation(name: str) -> None:
    with safe_open(REFERENCE, "pt") as file:
        described, expected = json.loads(file.metadata()[name]), file.get_tensor(name)
    settings = described["settings"]
    decoder = DecoderSettings(
        chans=tuple(settings.pop("chans")),
        patch_size=tuple(settings.pop("dec_patch")),
        scale_factor=tuple(settings.pop("dec_scale")),
    )
    frames = settings["n_frames"]
    settings["out_chans"] //= frames
    network = ConvUNetR(**settings, decoder=decoder).eval()
    fill(network)
    assert sorted(network.state_dict()) == described["keys"]
    shape = (1, frames, *settings["image_size"])
    image = (noise(math.prod(shape), 1000).float() + 0.5).reshape(shape)
    with torch.no_grad():
        logits = network.double()(image.double())
    torch.testing.assert_close(logits.flatten(1, 2), expected.double(), rtol=0, atol=1e-5)


def test_the_defaults_are_the_released_decoder() -> None:
    with torch.device("meta"):
        network = convunetr("base", out_chans=4, n_frames=1)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    stages = network.decoder_dict["sax"].blocks
    assert [stage.up.in_channels for stage in stages] == [512, 256, 128, 64, 32]
    assert shapes["dec_down_blocks_dict.sax.0.weight"] == (768, 768, 2, 2, 1)
    assert shapes["dec_conv_blocks_dict.sax.0.conv1.weight"] == (64, 64, 3, 3, 3)
    assert shapes["dec_conv_blocks_dict.sax.3.shortcut.weight"] == (512, 768, 1, 1, 1)
    assert shapes["pred_head_dict.sax.weight"] == (4, 32, 1, 1, 1)


# ---- a second implementation ---------------------------------------------------------------------------


def layer_norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-6).sqrt()
    shape = (1, -1, 1, 1, 1)
    return scaled * norm.weight.reshape(shape) + norm.bias.reshape(shape)


def convolve(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """A convolution as a sum over the places of its kernel of matrix products with shifted images."""
    sizes = layer.weight.shape[2:]
    padded = functional.pad(x, [n // 2 for n in sizes[::-1] for _ in range(2)])
    total = layer.bias.reshape(1, -1, 1, 1, 1)
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            for k in range(sizes[2]):
                shifted = padded[:, :, i : i + x.shape[2], j : j + x.shape[3], k : k + x.shape[4]]
                total = total + torch.einsum("bcxyz,oc->boxyz", shifted, layer.weight[:, :, i, j, k])
    return total


def residual(x: torch.Tensor, block: ResBlock) -> torch.Tensor:
    hidden = convolve(functional.gelu(layer_norm(x, block.norm1)), block.conv1)
    hidden = convolve(functional.gelu(layer_norm(hidden, block.norm2)), block.conv2)
    return hidden + (x if isinstance(block.shortcut, nn.Identity) else convolve(x, block.shortcut))


def up(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    batch, _, a, b, c = x.shape
    p, q, r = layer.weight.shape[2:]
    spread = torch.einsum("bcxyz,copqr->boxpyqzr", x, layer.weight)
    return spread.reshape(batch, -1, a * p, b * q, c * r) + layer.bias.reshape(1, -1, 1, 1, 1)


def convvit_of(network: ConvUNetR) -> Any:
    """A classifier that has the segmenter's encoder."""
    settings = {key: value for key, value in SETTINGS.items() if key != "decoder"}
    classifier = ConvViT(**settings).double()
    classifier.enc_down_dict, classifier.encoder = network.enc_down_dict, network.encoder
    return classifier


@torch.no_grad()
def test_logits_match_the_second_implementation() -> None:
    network = build().double()
    classifier = convvit_of(network)
    x = images(2, 2, 16, 12, 3).double()
    tokens, maps = classifier.stem(x, (2, 4, 3))
    hidden = classifier.encoder.prepend(tokens)
    for block in classifier.blocks:
        hidden = block(hidden)
    volume = classifier.encoder.norm(hidden)[:, 1:].transpose(1, 2).reshape(2, 20, 2, 4, 3)
    first, second, third = network.dec_conv_blocks_dict["sax"]
    coarse, middle, fine = network.decoder_dict["sax"].blocks
    y = residual(volume, third)
    for stage, skip in (
        (coarse, residual(maps[1], second)),
        (middle, residual(maps[0], first)),
        (fine, residual(x, network.dec_image_conv_block_dict["sax"])),
    ):
        y = up(y, stage.up) + skip
        for block in stage.conv:
            y = residual(y, block)
    expected = convolve(y, network.pred_head_dict["sax"]).reshape(2, 2, 4, 16, 12, 3)
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-5)


# ---- the protocol --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(SETTINGS["depth"] + 1))
@pytest.mark.parametrize("size", [(16, 12, 3), (24, 12, 2)])
@torch.no_grad()
def test_prefix_then_suffix_is_the_network(block: int, size: tuple[int, ...]) -> None:
    network = build()
    x = images(2, 2, *size)
    logits = network(x)
    assert logits.shape == (2, 2, 4, *size)
    torch.testing.assert_close(network.suffix(network.prefix(x, block), block), logits, rtol=0, atol=0)


@torch.no_grad()
def test_features_of_half_precision_give_nearly_the_same_logits() -> None:
    network = build()
    x = images(1, 2, 16, 12, 3)
    tokens, addend = (part.half().float() for part in network.prefix(x, 3))
    difference = (network.suffix(Features(tokens, addend), 3) - network(x)).abs().mean()
    assert difference < 0.01


def test_the_network_is_a_backbone_whose_decoder_is_its_head() -> None:
    network = build()
    assert is_backbone(network)
    for index, block in enumerate(network.blocks):
        assert network.get_submodule(network.block_name(index)) is block
    outside = {key.split(".")[0] for key in network.state_dict() if not key.startswith(network.head_prefixes)}
    assert outside == {"enc_down_dict", "encoder"}


@pytest.mark.slow
def test_an_exported_program_equals_the_network() -> None:
    network = build()
    x = images(2, 2, 16, 12, 3)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))


@pytest.mark.slow
@torch.no_grad()
def test_a_trace_equals_the_network_for_any_batch() -> None:
    network = build()
    traced = torch.jit.trace(network, images(1, 2, 16, 12, 3))
    x = images(3, 2, 16, 12, 3)
    torch.testing.assert_close(traced(x), network(x))


# ---- dropping the skips --------------------------------------------------------------------------------


@torch.no_grad()
def test_without_skips_a_sample_is_decoded_from_its_tokens_alone() -> None:
    network = build(skip_drop=0.5).train()
    tokens, addend = network.prefix(images(1, 2, 16, 12, 3), 3)
    tokens, addend = tokens.expand(64, -1, -1), torch.cat([addend, torch.zeros_like(addend)]).repeat(32, 1, 1, 1, 1)
    torch.manual_seed(0)
    logits = network.suffix(Features(tokens, addend), 3).flatten(1)
    of_image, of_zeros = logits[::2], logits[1::2]
    alone = [row for row in of_image if (of_zeros == row).all(1).any()]
    assert 8 <= len(alone) <= 24, "about half of the samples are decoded alike whatever their skips hold"
    assert all(torch.equal(row, alone[0]) for row in alone)
    plain = network.eval().suffix(Features(tokens, addend), 3).flatten(1)
    assert not any(torch.equal(row, alone[0]) for row in plain)


@torch.no_grad()
def test_skips_stay_by_default() -> None:
    network = build()
    x = images(2, 2, 16, 12, 3)
    torch.testing.assert_close(network.train()(x), network.eval()(x), rtol=0, atol=0)


# ---- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [size for size in SIZES if size != "large"])
def test_every_size_can_be_built_on_the_encoder_of_its_classifier(size: str) -> None:
    with torch.device("meta"):
        network, classifier = convunetr(size, out_chans=4), convvit(size, out_chans=5)
        logits = network(torch.empty(1, 2, *SIZES[size].image_size))
    assert logits.shape == (1, 2, 4, *SIZES[size].image_size)
    encoder = {key: value.shape for key, value in network.state_dict().items() if key.startswith("enc")}
    assert encoder.items() <= {key: value.shape for key, value in classifier.state_dict().items()}.items()


@pytest.mark.parametrize("size", ["small", "fine"])
def test_encoder_and_decoder_of_a_laptops_sizes_take_less_than_five_megabytes(size: str) -> None:
    both = {**convvit(size, out_chans=1).state_dict(), **convunetr(size, out_chans=4).state_dict()}
    assert sum(value.numel() * 4 for value in both.values()) < 5e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out_chans": 0}, "out_chans must be at least 1"),
        ({"skip_drop": 1.0}, "skip_drop must be a probability"),
        ({"n_heads": 3}, "multiple of n_heads"),
        ({"decoder": DecoderSettings(chans=(4, 6))}, "the stem has maps at"),
        ({"decoder": DecoderSettings(chans=(4, 6, 8, 10), patch_size=(1, 3, 1), scale_factor=(2, 1, 1))}, None),
        (
            {
                "decoder": DecoderSettings(chans=(4, 6, 8, 8), patch_size=(2, 3, 1), scale_factor=(2, 1, 1)),
                "image_size": (24, 12, 3),
            },
            "coarsest",
        ),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(changes: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert ConvUNetR(**{**SETTINGS, **changes}).n_plain == 1
        return
    with pytest.raises(ConfigError, match=message):
        ConvUNetR(**{**SETTINGS, **changes})


@pytest.mark.parametrize("changes", [{"chans": ()}, {"kernel_size": (3, 3, 2)}, {"patch_size": (2, 0, 1)}])
def test_a_decoder_without_a_shape_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="a decoder's"):
        DecoderSettings(**changes)


# ---- files ---------------------------------------------------------------------------------------------

LAST = {"pred_head_dict.sax.weight", "pred_head_dict.sax.bias"}


def both_states(**changes: Any) -> dict[str, torch.Tensor]:
    """A file with a classifier's encoder and fusion, and a segmentation decoder."""
    segmenter = build(**changes)
    classifier = convvit_of(segmenter).float()
    state = {key: v for key, v in classifier.state_dict().items() if not key.startswith(classifier.head_prefixes)}
    return {**state, **segmenter.state_dict()}


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    save_tensors(path, {key: value.contiguous() for key, value in state.items()})
    return path


def fresh(**changes: Any) -> ConvUNetR:
    torch.manual_seed(9)
    return ConvUNetR(**{**SETTINGS, **changes})


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_segmentation_file_is_loaded_whole(tmp_path: Path) -> None:
    source, network = build(), fresh()
    info = load_backbone(network, write(tmp_path / "b.safetensors", source.state_dict()))
    assert equal(network.state_dict(), source.state_dict())
    assert (info.layout, info.heads, info.own_heads, info.skipped) == ("segmentation", True, (), ())


def test_one_file_serves_the_classifier_and_the_segmentation_network(tmp_path: Path) -> None:
    state = both_states()
    path = write(tmp_path / "b.safetensors", state)
    network = fresh()
    info = load_backbone(network, path)
    assert equal(network.state_dict(), {key: state[key] for key in network.state_dict()})
    assert info.heads and all(key.startswith("enc_fusion_dict.") for key in info.skipped)
    classifier = ConvViT(**{key: value for key, value in SETTINGS.items() if key != "decoder"})
    heads = {k: v.clone() for k, v in classifier.state_dict().items() if k.startswith("pred_head_dict.")}
    info = load_backbone(classifier, path)
    assert not info.heads and info.own_heads == classifier.head_prefixes
    assert set(info.skipped) == {key for key in state if key.startswith(ConvUNetR.head_prefixes)}
    loaded = classifier.state_dict()
    assert equal(loaded, {**{key: state[key] for key in loaded if key not in heads}, **heads})


def test_a_decoder_for_other_structures_is_loaded_without_its_last_layer(tmp_path: Path) -> None:
    source, network = build(out_chans=2), fresh()
    last = {key: network.state_dict()[key].clone() for key in LAST}
    info = load_backbone(network, write(tmp_path / "b.safetensors", source.state_dict()))
    assert (info.heads, info.own_heads, set(info.skipped)) == (False, ("pred_head_dict.",), LAST)
    assert equal(network.state_dict(), {**source.state_dict(), **last})


def test_a_decoder_that_is_not_wanted_is_kept_and_reported(tmp_path: Path) -> None:
    source, network = build(), fresh()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    info = load_backbone(network, write(tmp_path / "b.safetensors", source.state_dict()), heads=False)
    assert info.own_heads == network.head_prefixes and not info.heads
    for key, value in network.state_dict().items():
        assert torch.equal(value, (before if key.startswith(network.head_prefixes) else source.state_dict())[key])


@pytest.mark.parametrize("kind", ["classifier", "pretrained"])
def test_of_a_file_without_a_decoder_the_encoder_is_loaded(kind: str, tmp_path: Path) -> None:
    classifier, network = convvit_of(build()).float(), fresh()
    state = classifier.state_dict()
    first = "enc_down_dict.sax.conv_blocks.0.patch_embed.conv.weight"
    if kind == "pretrained":
        state = {key: value for key, value in state.items() if not key.startswith("pred_head_dict.")}
        state[first] = state[first][:, :1].clone()
        state |= {"decoder.blocks.0.norm1.weight": torch.ones(4), "dec_linear.weight": torch.ones(4, 4)}
    before = {key: value.clone() for key, value in network.state_dict().items()}
    info = load_backbone(network, write(tmp_path / "b.safetensors", state))
    assert (info.layout, info.heads, info.own_heads) == (kind, False, network.head_prefixes)
    for key, value in network.state_dict().items():
        expected = (before if key.startswith(network.head_prefixes) else state)[key]
        assert torch.equal(value, expected.expand_as(value)), key


@pytest.mark.parametrize(
    ("changes", "lost", "message"),
    [
        ({"embed_dim": 24}, (), r"b\.safetensors does not fit the network.*is \(24.*instead of \(20"),
        (
            {"decoder": dataclasses.replace(SETTINGS["decoder"], chans=(4, 6, 10))},
            (),
            r"b\.safetensors does not fit.*dec_conv_blocks_dict.*\(10.*instead of \(8",
        ),
        ({"n_frames": 1}, (), "another number of frames"),
        ({}, ("decoder_dict.",), r"b\.safetensors does not fit the network: it lacks decoder_dict\.sax"),
        ({}, ("dec_conv_blocks_dict.sax.2.",), r"it lacks dec_conv_blocks_dict\.sax\.2"),
    ],
)
def test_a_file_of_another_size_or_without_a_part_is_refused(
    changes: dict[str, Any], lost: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    state = {key: value for key, value in build(**changes).state_dict().items() if not (lost and key.startswith(lost))}
    network = fresh()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_backbone(network, write(tmp_path / "b.safetensors", state))
    assert equal(network.state_dict(), before)


def test_a_segmentation_file_without_the_fusion_is_no_classifiers(tmp_path: Path) -> None:
    classifier = ConvViT(**{key: value for key, value in SETTINGS.items() if key != "decoder"})
    with pytest.raises(WeightsError, match=r"it lacks enc_fusion_dict\.sax"):
        load_backbone(classifier, write(tmp_path / "b.safetensors", build().state_dict()))


def test_later_networks_of_a_process_get_the_decoder_too_but_not_a_last_layer_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "b.safetensors", build(out_chans=2).state_dict())
    with reading_once():
        networks = [fresh().requires_grad_(False) for _ in range(2)]
        for network in networks:
            read_backbone(network, path, sha256=None, kind="k")
            with torch.no_grad():
                network.pred_head_dict["sax"].bias.fill_(3.0)
    states = [network.state_dict() for network in networks]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
