"""ConvViT against a second implementation in numpy, written for clarity from the paper's description."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import erf

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.cinema import SIZES, ConvViT, convvit
from monai_fedlora.networks.conv_stem import patchify

Array = NDArray[np.float64]

REFERENCE = os.environ.get("MONAI_FEDLORA_REFERENCE")

# Every axis differs in size, stride and token count, so that no axis can be mistaken for another.
SETTINGS = {
    "image_size": (16, 12, 3),
    "n_frames": 2,
    "out_chans": 3,
    "patch_size": (2, 3, 1),
    "scale_factor": (2, 1, 1),
    "conv_chans": (4, 6),
    "conv_n_blocks": 2,
    "embed_dim": 20,
    "depth": 3,
    "n_heads": 2,
}


def build(**changes) -> ConvViT:
    """A small network whose every parameter, norms and biases included, is random."""
    torch.manual_seed(0)
    network = ConvViT(**{**SETTINGS, **changes}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# ---- the second implementation -------------------------------------------------------------------------


class Naive:
    """The classifier on one image, in float64 loops; ``state`` holds the parameters by name."""

    def __init__(self, network: ConvViT, settings: dict) -> None:
        self.state = {key: value.double().numpy() for key, value in network.state_dict().items()}
        self.settings = settings

    def linear(self, x: Array, name: str) -> Array:
        weight = self.state[f"{name}.weight"]
        return x @ weight.reshape(weight.shape[0], -1).T + self.state[f"{name}.bias"]

    def norm(self, x: Array, name: str, eps: float) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    @staticmethod
    def gelu(x: Array) -> Array:
        return x * (1 + erf(x / math.sqrt(2))) / 2

    def mlp(self, x: Array, name: str) -> Array:
        return self.linear(self.gelu(self.linear(x, f"{name}.fc1")), f"{name}.fc2")

    def strided_conv(self, x: Array, name: str) -> Array:
        """x is (X, Y, Z, C); every output voxel is one dot product with the kernel."""
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        p, q, r = weight.shape[2:]
        out = np.zeros((x.shape[0] // p, x.shape[1] // q, x.shape[2] // r, len(weight)))
        for i, j, k in np.ndindex(*out.shape[:3]):
            patch = x[i * p : (i + 1) * p, j * q : (j + 1) * q, k * r : (k + 1) * r]
            out[i, j, k] = np.einsum("pqrc,ocpqr->o", patch, weight) + bias
        return out

    def depthwise_conv(self, x: Array, name: str) -> Array:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        padded = np.pad(x, [(2, 2)] * 3 + [(0, 0)])
        out = np.zeros_like(x)
        for i, j, k in np.ndindex(*x.shape[:3]):
            out[i, j, k] = np.einsum("pqrc,cpqr->c", padded[i : i + 5, j : j + 5, k : k + 5], weight[:, 0]) + bias
        return out

    def attention(self, x: Array, name: str) -> Array:
        heads = self.settings["n_heads"]
        width = x.shape[1] // heads
        query, key_value = self.linear(x, f"{name}.q"), self.linear(x, f"{name}.kv")
        out = np.zeros_like(x)
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            keys = key_value[:, : x.shape[1]][:, part]
            values = key_value[:, x.shape[1] :][:, part]
            scores = np.exp(query[:, part] @ keys.T / math.sqrt(width))
            out[:, part] = scores / scores.sum(1, keepdims=True) @ values
        return self.linear(out, f"{name}.proj")

    def tokens_of(self, x: Array) -> Array:
        """Cut (X, Y, Z, C) into patches in x, y, z order with the channel fastest."""
        p, q, r = self.settings["scale_factor"]
        tokens = []
        for i in range(0, x.shape[0], p):
            for j in range(0, x.shape[1], q):
                for k in range(0, x.shape[2], r):
                    tokens.append(
                        [
                            x[i + a, j + b, k + c, channel]
                            for a in range(p)
                            for b in range(q)
                            for c in range(r)
                            for channel in range(x.shape[3])
                        ]
                    )
        return np.array(tokens)

    def logits(self, image: Array) -> Array:
        x = np.moveaxis(image, 0, -1)
        fused = 0.0
        for stage in range(len(self.settings["conv_chans"])):
            name = f"enc_down_dict.sax.conv_blocks.{stage}"
            x = self.strided_conv(x, f"{name}.patch_embed.conv")
            x = self.gelu(self.norm(x, f"{name}.patch_embed.norm", 1e-6))
            for block in range(self.settings["conv_n_blocks"]):
                inner = f"{name}.conv.{block}"
                hidden = self.linear(self.norm(x, f"{inner}.norm1", 1e-6), f"{inner}.conv1")
                x = x + self.linear(self.depthwise_conv(hidden, f"{inner}.dw_conv"), f"{inner}.conv2")
                x = x + self.mlp(self.norm(x, f"{inner}.norm2", 1e-6), f"{inner}.mlp")
            down = self.strided_conv(x, f"enc_fusion_dict.sax.down_convs.{stage}")
            fused = fused + down.reshape(-1, down.shape[-1])
        tokens = self.linear(self.tokens_of(x), "enc_down_dict.sax.patch_embed.proj")
        tokens = self.linear(tokens, "enc_down_dict.sax.linear") + self.state["enc_down_dict.sax.pos_embed"][0]
        tokens = np.concatenate([self.state["encoder.cls_token"][0], tokens])
        for block in range(self.settings["depth"]):
            name = f"encoder.blocks.{block}"
            tokens = tokens + self.attention(self.norm(tokens, f"{name}.norm1", 1e-5), f"{name}.attn")
            tokens = tokens + self.mlp(self.norm(tokens, f"{name}.norm2", 1e-5), f"{name}.mlp")
        tokens = self.norm(tokens, "encoder.norm", 1e-5)
        patches = self.norm(tokens[1:] + fused, "enc_fusion_dict.sax.norm", 1e-5)
        by_patches = self.linear(patches.mean(0), "pred_head_dict.sax")
        by_class_token = self.linear(tokens[0], "pred_head_dict.cls")
        readout = self.settings.get("readout", "cls_patch")
        return {"cls_patch": (by_patches + by_class_token) / 2, "patch": by_patches, "cls": by_class_token}[readout]


@pytest.mark.parametrize("readout", ["cls_patch", "patch", "cls"])
def test_logits_match_the_second_implementation(readout: str) -> None:
    network = build(readout=readout)
    naive = Naive(network, {**SETTINGS, "readout": readout})
    x = images(2, 2, 16, 12, 3)
    expected = np.stack([naive.logits(image.double().numpy()) for image in x])
    np.testing.assert_allclose(network(x).detach().numpy(), expected, atol=1e-5)


def test_patches_are_in_x_y_z_order_with_the_channel_fastest() -> None:
    x = torch.arange(2 * 4 * 6 * 2).reshape(1, 2, 4, 6, 2)
    patches = patchify(x, (2, 3, 1))
    assert patches.shape == (1, 8, 12)
    assert patches[0, 1].tolist() == [
        int(x[0, channel, a, b, 1]) for a in range(2) for b in range(3) for channel in range(2)
    ]


# ---- the protocol --------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(SETTINGS["depth"] + 1))
def test_prefix_then_suffix_is_the_network(block: int) -> None:
    network = build()
    x = images(2, 2, 16, 12, 3)
    features = network.prefix(x, block)
    assert features.tokens.shape == (2, 1 + 2 * 4 * 3, 20)
    assert features.addend.shape == (2, 2 * 4 * 3, 20)
    torch.testing.assert_close(network.suffix(features, block), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("block", [-1, SETTINGS["depth"] + 1])
def test_a_block_outside_the_network_is_refused(block: int) -> None:
    network = build()
    with pytest.raises(ConfigError, match=r"0\.\.3"):
        network.prefix(images(1, 2, 16, 12, 3), block)


def test_the_network_is_a_backbone_and_names_its_blocks_and_heads() -> None:
    network = build()
    assert is_backbone(network)
    for index, block in enumerate(network.blocks):
        assert network.get_submodule(network.block_name(index)) is block
    heads = [key for key in network.state_dict() if key.startswith(network.head_prefixes)]
    assert heads == [f"pred_head_dict.{name}.{kind}" for name in ("sax", "cls") for kind in ("weight", "bias")]


# ---- image sizes, export, sizes ------------------------------------------------------------------------


def test_a_larger_image_equals_a_network_built_with_the_resized_positions() -> None:
    network = build()
    larger = build(image_size=(24, 12, 5))
    key = "enc_down_dict.sax.pos_embed"
    position = network.state_dict()[key].reshape(1, 2, 4, 3, 20).permute(0, 4, 1, 2, 3)
    position = torch.nn.functional.interpolate(position, size=(3, 4, 5), mode="trilinear")
    state = {**network.state_dict(), key: position.flatten(2).transpose(1, 2)}
    larger.load_state_dict(state)
    x = images(1, 2, 24, 12, 5)
    torch.testing.assert_close(network(x), larger(x))


def test_positions_are_saved_but_never_trained() -> None:
    network = build().requires_grad_(True)
    assert "enc_down_dict.sax.pos_embed" in network.state_dict()
    assert "enc_down_dict.sax.pos_embed" not in dict(network.named_parameters())


@pytest.mark.slow
def test_a_trace_equals_the_network_for_any_batch() -> None:
    network = build()
    traced = torch.jit.trace(network, images(1, 2, 16, 12, 3))
    x = images(3, 2, 16, 12, 3)
    torch.testing.assert_close(traced(x), network(x))


@pytest.mark.slow
def test_an_exported_program_equals_the_network() -> None:
    network = build()
    x = images(2, 2, 16, 12, 3)
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))


def test_base_has_the_published_number_of_values() -> None:
    with torch.device("meta"):
        network = convvit("base", out_chans=2)
    assert sum(value.numel() for value in network.state_dict().values()) == 89_494_212
    assert sum(value.numel() for value in network.parameters()) == 87_724_740
    assert sum(value.numel() for value in network.encoder.parameters()) == 85_056_768
    assert network.stem.grid == (12, 12, 16)


@pytest.mark.parametrize("size", SIZES)
def test_every_size_can_be_built(size: str) -> None:
    with torch.device("meta"):
        network = convvit(size, out_chans=5)
        logits = network(torch.empty(1, 2, *SIZES[size].image_size))
    assert logits.shape == (1, 5)
    assert len(network.blocks) == SIZES[size].depth


def test_small_takes_less_than_five_megabytes() -> None:
    network = convvit("small", out_chans=2)
    assert sum(value.numel() * 4 for value in network.state_dict().values()) < 5e6
    assert network(images(2, 2, 48, 48, 8)).shape == (2, 2)


def test_the_same_seed_gives_the_same_network() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(convvit("tiny", out_chans=2, image_size=(32, 32, 2)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (15, 12, 3)}, "multiple of the token size"),
        ({"image_size": (16, 12)}, "image_size must be three positive"),
        ({"patch_size": (2, 0, 1)}, "patch_size must be three positive"),
        ({"embed_dim": 21}, "multiple of n_heads"),
        ({"embed_dim": 4}, "at least 6"),
        ({"n_heads": 0}, "n_heads must be at least 1"),
        ({"out_chans": 0}, "out_chans must be at least 1"),
        ({"conv_chans": ()}, "conv_chans must be at least 1"),
        ({"readout": "mean"}, "readout 'mean' is unknown"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ConvViT(**{**SETTINGS, **changes})


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of tiny, small, tall, fine, base, large"):
        convvit("giant", out_chans=2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 2, 17, 12, 3), "multiple"), ((1, 1, 16, 12, 3), "2, X"), ((2, 16, 12, 3), "2, X")],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()(torch.zeros(shape))


# ---- the original implementation's outputs -------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.skipif(REFERENCE is None, reason="set MONAI_FEDLORA_REFERENCE to a folder with reference outputs")
def test_every_stage_equals_the_original_implementation() -> None:
    from safetensors.torch import load_file

    folder = Path(str(REFERENCE))
    network = ConvViT(**json.loads((folder / "cinema_reference.json").read_text())).eval()
    weights = load_file(folder / "cinema_reference.safetensors")
    key = "enc_down_dict.sax.pos_embed"
    torch.testing.assert_close(network.state_dict()[key], weights[key], rtol=0, atol=1e-6)
    network.load_state_dict(weights)
    expected = {key: torch.from_numpy(value) for key, value in np.load(folder / "cinema_reference_io.npz").items()}

    def check(actual: torch.Tensor, name: str) -> None:
        torch.testing.assert_close(actual, expected[name], rtol=0, atol=1e-5)

    with torch.no_grad():
        embedded = network.embed(expected["x"])
        check(embedded.tokens[:, 1:], "tokens")
        hidden = [network.prefix(expected["x"], block).tokens for block in range(len(network.blocks) + 1)]
        check(torch.stack(hidden), "hidden")
        normalised = network.encoder.norm(hidden[-1])
        check(normalised[:, :1], "cls")
        check(network.fusion(normalised[:, 1:], embedded.addend), "sax")
        check(network(expected["x"]), "logits")
        check(network(expected["x_larger"]), "logits_larger")
