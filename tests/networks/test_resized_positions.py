"""Positions of other image sizes: as transformers' own classes have them, and as the rules of other owners' code say.

Of owners whose libraries are not installed the rules are written out here as matrices, from what their code asks
PyTorch for: timm's ``resample_abs_pos_embed`` and OpenCLIP's ``resize_pos_embed`` an antialiased bicubic, MAE's and
RETFound's ``interpolate_pos_embed`` and DeiT's ``main.py`` a plain one, DINO's and DINOv2's
``interpolate_pos_encoding`` a plain one by a scale factor of 0.1 more tokens (DINOv2 with registers: antialiased,
without them), torchvision's ``interpolate_embeddings`` one that aligns corners.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.position import Resizing, resize_image_position
from monai_fedlora.networks.read_once import read_backbone, reading_once
from monai_fedlora.networks.vit import VisionTransformer, ViTSettings
from monai_fedlora.networks.weights import load_backbone
from tests.networks import test_published_layouts as layouts
from tests.networks.published import CLIP, DIM, PATCH, SIDE, network_of, randomised, tensors_file
from tests.networks.test_other_families import TOKENS, clipseg, one, pair
from tests.networks.test_published_layouts import SCALED, State, stored
from tests.networks.towers import biomedclip, open_clip, open_siglip, siglip

GRID = (SIDE // PATCH, SIDE // PATCH)
SIZES = ((24, 24), (72, 72), (24, 56))
"""Heights and widths of smaller, larger and oblong images."""

Samples = Callable[[int, int], Tensor]


# ---- one axis, as a matrix (new, old) ------------------------------------------------------------------


def cubic(x: float, a: float) -> float:
    """Keys' kernel."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def sampled(old: int, centres: list[float]) -> Tensor:
    """Four neighbours of each place, those beyond the edge taken from it."""
    matrix = torch.zeros(len(centres), old, dtype=torch.float64)
    for row, centre in enumerate(centres):
        first = math.floor(centre) - 1
        for place in range(first, first + 4):
            matrix[row, min(max(place, 0), old - 1)] += cubic(centre - place, -0.75)
    return matrix


def plain(old: int, new: int) -> Tensor:
    return sampled(old, [(i + 0.5) * old / new - 0.5 for i in range(new)])


def with_offset(old: int, new: int) -> Tensor:
    return sampled(old, [(i + 0.5) * old / (new + 0.1) - 0.5 for i in range(new)])


def by_corners(old: int, new: int) -> Tensor:
    return sampled(old, [i * (old - 1) / (new - 1) for i in range(new)])


def antialiased(old: int, new: int) -> Tensor:
    """A kernel as wide as the coarser grid's tokens, cut off at the edge and made to sum to one."""
    width = max(old / new, 1.0)
    rows = []
    for i in range(new):
        centre = (i + 0.5) * old / new - 0.5
        weights = torch.tensor([cubic((place - centre) / width, -0.5) for place in range(old)], dtype=torch.float64)
        rows.append(weights / weights.sum())
    return torch.stack(rows)


def resampled(table: Tensor, new: tuple[int, int], samples: Samples) -> Tensor:
    """A table (1, N, D) of the released grid for another, (1, N', D)."""
    rows, columns = (samples(old, size) for old, size in zip(GRID, new, strict=True))
    square = table.double().reshape(*GRID, -1)
    return torch.einsum("ih,jw,hwd->ijd", rows, columns, square).reshape(1, -1, table.shape[-1]).float()


RULES: dict[Resizing, Samples] = {
    "plain": plain,
    "smoothed": antialiased,
    "offset": with_offset,
    "corners": by_corners,
}


@pytest.mark.parametrize("new", [(2, 3), (9, 9), (3, 7)])
@pytest.mark.parametrize("resizing", RULES)
def test_every_rule_is_a_matrix_along_each_axis(resizing: Resizing, new: tuple[int, int]) -> None:
    table = torch.randn(1, 16, 6, generator=torch.Generator().manual_seed(0))
    expected = resampled(table, new, RULES[resizing])
    torch.testing.assert_close(
        resize_image_position(table, GRID, new, resizing=resizing), expected, rtol=1e-5, atol=1e-5
    )


# ---- transformers' own classes -------------------------------------------------------------------------


def images(size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def embedded(model: Any, x: Tensor) -> Tensor:
    return model(x, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[0]


def embedded_always(model: Any, x: Tensor) -> Tensor:
    return model(x, output_hidden_states=True).hidden_states[0]


def embedded_in_order(model: Any, x: Tensor) -> Tensor:
    """The auto-encoder shuffles its tokens, which noise in order undoes."""
    noise = torch.linspace(0, 1, x.shape[-2] * x.shape[-1] // PATCH**2).expand(len(x), -1)
    return model(x, noise=noise, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states[0]


def of_clip(model: Any, x: Tensor) -> Tensor:
    return embedded(model.vision_model, x)


def of_clipseg(model: Any, x: Tensor) -> Tensor:
    return of_clip(model.clip, x)


POOLED = {"class_token": False, "readout": "map", "activation": "gelu_tanh", "mlp_ratio": 60 / DIM, "depth": 2}
CLASSES: dict[str, tuple[Callable[[], Any], dict[str, Any], Callable[[Any, Tensor], Tensor]]] = {
    "ViT": (layouts.vit, {"norm_eps": 1e-12}, embedded),
    "ViT-MAE": (lambda: one("ViTMAE", mask_ratio=0.0), {"norm_eps": 1e-12}, embedded_in_order),
    "ViT-MSN": (lambda: one("ViTMSN"), {}, embedded),
    "I-JEPA": (lambda: one("IJepa"), {**TOKENS, "norm_eps": 1e-12}, embedded),
    "DeiT": (layouts.deit, {"registers": 1, "norm_eps": 1e-12}, embedded),
    "DINOv2, RAD-DINO": (layouts.dinov2, SCALED, embedded_always),
    "DINOv2 with registers": (layouts.registers, {**SCALED, "registers": 4}, embedded_always),
    "CLIP": (lambda: pair("CLIP"), CLIP, of_clip),
    "SigLIP, SigLIP 2": (siglip, POOLED, of_clip),
    "MetaCLIP 2": (lambda: pair("MetaClip2"), CLIP, of_clip),
    "Chinese CLIP": (lambda: pair("ChineseCLIP"), CLIP, of_clip),
    "CLIPSeg": (clipseg, CLIP, of_clipseg),
}


ALIKE = ("MetaCLIP 2", "Chinese CLIP", "CLIPSeg")
"""Of which transformers' code repeats that of CLIP."""


@torch.no_grad()
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALIKE else name for name in CLASSES]
)
def test_tokens_of_other_images_equal_those_of_transformers(name: str, tmp_path: Path) -> None:
    """Whatever the size's own rule is; for a network of the other size, and for such images in one of the released."""
    build, options, tokens = CLASSES[name]
    model = randomised(build())
    model.save_pretrained(tmp_path)
    released = network_of(**options, resizing="corners")
    load_backbone(released, tmp_path)
    for size in SIZES:
        x = images(size)
        network = network_of(**{**options, "image_size": size, "resizing": "corners"})
        load_backbone(network, tmp_path)
        expected = tokens(model, x)
        torch.testing.assert_close(network.prefix(x, 0).tokens, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(released.prefix(x, 0).tokens, expected, rtol=1e-5, atol=1e-5)


# ---- other owners' files -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Published:
    """A file, and how its owner's code interpolates.

    Attributes:
        size: of the catalogue, which decides where names do not.
        samples: one axis.
        options: of the network.
        front: rows of positions in front of the patches'.
    """

    size: str
    samples: Samples
    build: Callable[[], Any]
    convert: Callable[[State], Any]
    options: dict[str, Any]
    front: int = 1


def without_mask(state: State) -> State:
    """timm's own file of DINOv2."""
    return {key: value for key, value in layouts.timm(state).items() if key != "mask_token"}


def wrapped(name: str, convert: Callable[[State], State]) -> Callable[[State], dict[str, State]]:
    return lambda state: {name: convert(state)}


REGISTERS = {**SCALED, "registers": 4}
GATED = {**SCALED, "gated": True, "mlp_ratio": 48 / DIM}
FILES = {
    "timm's ViT": Published("vit_base_16", antialiased, layouts.vit, layouts.timm, {}),
    "UNI": Published("uni_large_16", antialiased, layouts.dinov2, layouts.timm, SCALED),
    "DINOv2 of timm": Published("dinov2_base_14", antialiased, layouts.dinov2, without_mask, SCALED),
    "DINOv2 with registers of timm": Published(
        "dinov2_base_reg_14", antialiased, layouts.registers, layouts.timm_registers, REGISTERS
    ),
    "DINOv2 giant of timm": Published("dinov2_giant_14", antialiased, layouts.gated, layouts.timm_packed, GATED),
    "UNI 2, with split gates": Published("uni2_giant_14", antialiased, layouts.gated, layouts.timm_split, GATED),
    "DeiT III of timm": Published(
        "deit3_base_16", antialiased, layouts.dinov2, lambda state: layouts.no_embed_class(layouts.timm(state)), SCALED
    ),
    "DeiT III": Published("deit3_base_16", plain, layouts.dinov2, wrapped("model", layouts.deit3), SCALED),
    "DeiT": Published("deit_base_16", plain, layouts.vit, wrapped("model", layouts.timm), {}),
    "DeiT distilled": Published(
        "deit_base_distilled_16", plain, layouts.deit, wrapped("model", layouts.distilled), {"registers": 1}, front=2
    ),
    "MAE": Published("mae_base_16", plain, layouts.vit, wrapped("model", layouts.timm), {"readout": "mean"}),
    "RETFound": Published("retfound_large_16", plain, layouts.vit, wrapped("model", layouts.timm), {"readout": "mean"}),
    "RETFound of DINOv2": Published("retfound_dinov2_large_14", plain, layouts.dinov2, layouts.retfound_dinov2, SCALED),
    "DINO": Published("dino_base_16", with_offset, layouts.vit, layouts.timm, {}),
    "DINOv2": Published("dinov2_base_14", with_offset, layouts.dinov2, layouts.meta, SCALED),
    "DINOv2 in chunks": Published("dinov2_base_14", with_offset, layouts.dinov2, layouts.chunked, SCALED),
    "DINOv2 giant": Published("dinov2_giant_14", with_offset, layouts.gated, layouts.meta, GATED),
    "RAD-DINO for Meta's code": Published("rad_dino_base_14", with_offset, layouts.dinov2, layouts.meta, SCALED),
    "DINOv2 with registers": Published("dinov2_base_reg_14", antialiased, layouts.registers, layouts.meta, REGISTERS),
    "torchvision": Published("torchvision_vit_base_16", by_corners, layouts.vit, layouts.torchvision, {}),
    "torchvision before 0.13": Published(
        "torchvision_vit_base_16", by_corners, layouts.vit, lambda state: layouts.torchvision(state, old=True), {}
    ),
}


def resizing_of(size: str) -> Resizing:
    shape = IMAGE_SIZES[size].shape
    assert isinstance(shape, ViTSettings)
    return shape.resizing


@torch.no_grad()
def assert_resampled(path: Path, table: Tensor, samples: Samples, options: dict[str, Any], **loading: Any) -> None:
    """Positions of patches: those that a network for other images has, and those that are added to other images."""
    released = network_of(**options)
    load_backbone(released, path, **loading)
    torch.testing.assert_close(released.embed.position, table, rtol=0, atol=0)
    for size in SIZES:
        network = network_of(**{**options, "image_size": size})
        load_backbone(network, path, **loading)
        expected = resampled(table, (size[0] // PATCH, size[1] // PATCH), samples)
        torch.testing.assert_close(network.embed.position, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(added(released, size), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def added(network: VisionTransformer, size: tuple[int, int]) -> Tensor:
    """What is added to the tokens of patches of images of another size."""
    x = torch.zeros(1, 3, *size)
    return network.embed.patches(x) - network.embed.patch(x).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("name", FILES)
def test_positions_are_interpolated_as_their_owner_does(name: str, tmp_path: Path) -> None:
    row = FILES[name]
    state = layouts.published(randomised(row.build()), tmp_path / "hf")
    path = stored(row.convert(state), tmp_path / "weights.pth")
    table = state["embeddings.position_embeddings"][:, row.front :]
    assert_resampled(path, table, row.samples, {**row.options, "resizing": resizing_of(row.size)})


TOWERS: dict[str, tuple[str, Callable[[], Any], str, dict[str, Any]]] = {
    "OpenCLIP": ("open_clip_base_16", open_clip, "visual.positional_embedding", CLIP | {"activation": "gelu"}),
    "OpenAI": ("clip_base_16", open_clip, "visual.positional_embedding", CLIP),
    "BiomedCLIP": ("biomedclip_base_16", biomedclip, "visual.trunk.pos_embed", {}),
    "OpenCLIP's SigLIP": ("siglip2_base_16", open_siglip, "visual.trunk.pos_embed", POOLED | {"mlp_ratio": 4}),
}


@pytest.mark.parametrize("name", TOWERS)
def test_positions_of_towers_are_smoothed_as_openclip_and_timm_do(name: str, tmp_path: Path) -> None:
    size, build, key, options = TOWERS[name]
    model = build()
    path = tensors_file(model, tmp_path)
    table = model.state_dict()[key].reshape(1, -1, DIM)[:, -math.prod(GRID) :]
    pin = {"sha256": sha256_of(path)}  # whose maker had a description
    assert_resampled(path, table, antialiased, {"depth": 2, **options, "resizing": resizing_of(size)}, **pin)


def sha256_of(path: Path) -> str:
    from monai_fedlora.networks.weights import backbone_sha256

    return backbone_sha256(path)


def test_networks_that_share_what_was_read_share_its_rule(tmp_path: Path) -> None:
    state = layouts.published(randomised(layouts.vit()), tmp_path / "hf")
    path = stored(layouts.torchvision(state), tmp_path / "weights.pth")
    networks = [network_of().requires_grad_(False) for _ in range(2)]
    with reading_once():
        for network in networks:
            read_backbone(network, path, sha256=None, kind="vit")
    first, second = (added(network, (24, 40)) for network in networks)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    expected = resampled(state["embeddings.position_embeddings"][:, 1:], (3, 5), by_corners)
    torch.testing.assert_close(second, expected, rtol=1e-5, atol=1e-5)
