"""The vision transformer by itself; its numbers are compared with every published family in ``test_vit_weights``."""

from __future__ import annotations

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.backbone import is_backbone
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings

DEPTH = 3
CLIP_LIKE = {"activation": "quick_gelu", "pre_norm": True, "patch_bias": False}
VARIANTS = {
    "plain": {},
    "clip": CLIP_LIKE,
    "dinov2": {"layer_scale": True},
    "dinov3": {"positions": "rotary", "registers": 2, "key_bias": False, "gated": True, "dim": 24},
    "mean": {"readout": "mean"},
    "no_qkv_bias": {"qkv_bias": False},
}


def settings(**changes) -> ViTSettings:
    """Height and width differ, so that neither can be mistaken for the other."""
    return ViTSettings(**{"image_size": (16, 24), "patch": 4, "dim": 20, "depth": DEPTH, "n_heads": 2, **changes})


def build(*, out_chans: int = 3, **changes) -> VisionTransformer:
    """A small network whose every parameter, norms and biases included, is random."""
    torch.manual_seed(0)
    network = VisionTransformer(settings(**changes), out_chans=out_chans).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# ---- the protocol --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("block", range(DEPTH + 1))
def test_prefix_then_suffix_is_the_network(variant: str, block: int) -> None:
    network, x = build(**VARIANTS[variant]), images(2, 3, 16, 24)
    features = network.prefix(x, block)
    alone = block == DEPTH and network.reads_class_token_alone
    shape = network.settings
    assert features.tokens.shape == (2, 1 if alone else shape.n_prefix + 4 * 6, shape.dim)
    assert features.addend.shape == (2, 0, shape.dim)
    torch.testing.assert_close(network.suffix(features, block), network(x), rtol=0, atol=0)


def test_features_of_single_images_make_a_batch() -> None:
    network, x = build(), images(3, 3, 16, 24)
    rows = [network.prefix(image.unsqueeze(0), 1) for image in x]
    tokens, addend = (torch.cat(parts) for parts in zip(*rows, strict=True))
    torch.testing.assert_close(network.suffix(type(rows[0])(tokens, addend), 1), network(x))


@pytest.mark.parametrize("block", [-1, DEPTH + 1])
def test_a_block_outside_the_network_is_refused(block: int) -> None:
    with pytest.raises(ConfigError, match=r"0\.\.3"):
        build().prefix(images(1, 3, 16, 24), block)


def test_the_network_is_a_backbone_and_names_its_blocks_heads_and_layers() -> None:
    network = build()
    assert is_backbone(network)
    for index, block in enumerate(network.blocks):
        assert network.get_submodule(network.block_name(index)) is block
    heads = [key for key in network.state_dict() if key.startswith(network.head_prefixes)]
    assert heads == ["head.weight", "head.bias"]
    linears = {name for name, module in network.blocks[0].named_modules() if isinstance(module, torch.nn.Linear)}
    assert set(network.target_names.values()) == linears
    assert set(network.target_names) == {"q", "k", "v", "proj", "fc1", "fc2"}


def test_keys_are_ours() -> None:
    """They travel between hospitals and are stored: a change breaks every stored model."""
    block = {
        f"blocks.0.{name}.{kind}"
        for name in ("norm1", "attn.q", "attn.k", "attn.v", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    }
    outside = {"embed.cls", "embed.position"} | {
        f"{name}.{kind}" for name in ("embed.patch", "norm", "head") for kind in ("weight", "bias")
    }
    assert set(build(depth=1).state_dict()) == block | outside
    assert set(build(depth=1, layer_scale=True).state_dict()) - block - outside == {
        "blocks.0.ls1.gamma",
        "blocks.0.ls2.gamma",
    }
    assert set(build(depth=1, pre_norm=True).state_dict()) - block - outside == {"embed.norm.weight", "embed.norm.bias"}
    assert block - set(build(depth=1, qkv_bias=False).state_dict()) == {f"blocks.0.attn.{n}.bias" for n in "qkv"}


# ---- what the options do -------------------------------------------------------------------------------


def test_the_class_readout_ignores_the_last_patch_tokens_and_the_mean_readout_the_class_token() -> None:
    x = images(1, 3, 16, 24)
    for readout, ignored, used in (("cls", slice(1, None), slice(1)), ("mean", slice(1), slice(1, None))):
        network = build(readout=readout)
        features = network.prefix(x, DEPTH)
        expected = network.readout(features)
        spoilt = features.tokens.clone()
        spoilt[:, ignored] += 1.5 * images(1, *spoilt[:, ignored].shape[1:])
        torch.testing.assert_close(network.readout(features._replace(tokens=spoilt)), expected, rtol=0, atol=0)
        spoilt[:, used] += images(1, *spoilt[:, used].shape[1:])
        assert (network.readout(features._replace(tokens=spoilt)) - expected).abs().max() > 1e-3


def test_the_mean_is_taken_before_the_norm() -> None:
    network = build(readout="mean")
    features = network.prefix(images(2, 3, 16, 24), DEPTH)
    mean = features.tokens[:, 1:].mean(dim=1)
    expected = torch.nn.functional.layer_norm(mean, (20,), network.norm.weight, network.norm.bias, eps=1e-6)
    torch.testing.assert_close(network.pool(features), expected)


def test_tokens_are_patches_row_by_row() -> None:
    network, x = build(), images(1, 3, 16, 24)
    tokens = network.embed.patches(x)
    weight, bias = network.embed.patch.weight.reshape(20, -1), network.embed.patch.bias
    for index in (0, 5, 6, 23):
        row, column = divmod(index, 6)
        patch = x[0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].reshape(-1)
        torch.testing.assert_close(tokens[0, index], weight @ patch + bias + network.embed.position[0, index])


def test_new_positions_change_along_one_axis_each() -> None:
    torch.manual_seed(0)
    position = VisionTransformer(settings(), out_chans=2).embed.position[0].reshape(4, 6, 20)
    by_column, by_row = position[..., :10], position[..., 10:20]
    torch.testing.assert_close(by_row, by_row[:, :1].expand(-1, 6, -1), rtol=0, atol=0)
    torch.testing.assert_close(by_column, by_column[:1].expand(4, -1, -1), rtol=0, atol=0)
    assert len(position.reshape(-1, 20).unique(dim=0)) == 24


def test_a_new_head_is_small_and_its_biases_are_zero() -> None:
    torch.manual_seed(0)
    network = VisionTransformer(settings(dim=200), out_chans=50)
    assert network.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not network.head.bias.any()


# ---- image sizes and export ----------------------------------------------------------------------------


def test_a_larger_image_equals_a_network_built_with_the_resized_positions() -> None:
    network, larger = build(), build(image_size=(24, 40))
    position = network.embed.position.detach().reshape(1, 4, 6, 20).permute(0, 3, 1, 2)
    position = torch.nn.functional.interpolate(position, size=(6, 10), mode="bicubic", antialias=True)
    larger.load_state_dict({**network.state_dict(), "embed.position": position.flatten(2).transpose(1, 2)})
    x = images(1, 3, 24, 40)
    torch.testing.assert_close(network(x), larger(x))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trace_equals_the_network_for_any_batch(variant: str) -> None:
    network = build(**VARIANTS[variant])
    traced = torch.jit.trace(network, images(1, 3, 16, 24))
    x = images(3, 3, 16, 24)
    torch.testing.assert_close(traced(x), network(x))


@pytest.mark.slow
def test_an_exported_program_equals_the_network() -> None:
    network, x = build(), images(2, 3, 16, 24)
    torch.testing.assert_close(torch.export.export(network, (x,)).module()(x), network(x))


def test_every_parameter_but_unread_tokens_gets_a_gradient() -> None:
    network = build(layer_scale=True, pre_norm=True)
    network(images(2, 3, 16, 24)).sum().backward()
    assert [key for key, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (15, 24)}, "no multiple of the patch"),
        ({"image_size": (16,)}, "image_size must be two positive"),
        ({"image_size": (16, 0)}, "image_size must be two positive"),
        ({"patch": 0}, "patch must be at least 1"),
        ({"dim": 21}, "multiple of n_heads"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"activation": "relu"}, "activation 'relu' is unknown; choose one of gelu, gelu_tanh, quick_gelu"),
        ({"readout": "patch"}, "readout 'patch' is unknown; choose one of cls, mean"),
        ({"out_chans": 0}, "out_chans must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**changes)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 3, 17, 24), "multiple"), ((1, 1, 16, 24), "3, H, W"), ((3, 16, 24), "3, H, W"), ((1, 3, 0, 24), "multiple")],
)
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()(torch.zeros(shape))
