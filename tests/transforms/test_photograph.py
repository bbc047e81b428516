"""The pipeline from a photograph's file to the network's input, eager and scripted."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import list_data_collate
from monai.transforms import Compose
from PIL import Image

from monai_fedlora.engines.memory import fingerprint
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.transforms.photograph import (
    LoadPhotographd,
    PhotographPreprocessor,
    photograph_preprocessing,
    photograph_preprocessor,
)
from monai_fedlora.transforms.photograph_style import STYLES
from tests.plugin_packages import Install

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

SETTINGS: dict[str, Any] = {"image_size": (48, 48), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def scene(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(3, H, W) in [0, 1]: a textured reddish disc in the dark."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.linspace(-1, 1, height)[:, None] * height / min(height, width)
    column = torch.linspace(-1, 1, width)[None] * width / min(height, width)
    disc = (row**2 + column**2 < 0.8).float() * (0.5 + 0.4 * torch.rand(height, width, generator=generator))
    return disc * torch.tensor([1.0, 0.6, 0.4])[:, None, None]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    levels = (255 * scene(90, 120)).byte().movedim(0, -1).numpy()
    Image.fromarray(levels).save(tmp_path / "lesion.png")
    return tmp_path / "lesion.png"


@pytest.mark.parametrize("style", STYLES)
def test_item_holds_what_the_network_needs_and_nothing_else(photograph: Path, style: str) -> None:
    item = {"image": str(photograph), "label": 1, "subject": "lesion", "unit": "patient 3"}
    found = Compose(photograph_preprocessing(style=style, **SETTINGS))(item)
    assert set(found) == {"image", "label", "subject"}
    assert type(found["image"]) is torch.Tensor
    assert found["image"].dtype == torch.float32 and found["image"].shape == (3, 48, 48)
    assert not found["image"].requires_grad


def test_photographs_of_any_size_collate(tmp_path: Path) -> None:
    items = []
    for width in (50, 171):
        Image.fromarray((255 * scene(64, width)).byte().movedim(0, -1).numpy()).save(tmp_path / f"{width}.png")
        item = {"image": str(tmp_path / f"{width}.png"), "label": 0, "subject": str(width)}
        items.append(Compose(photograph_preprocessing(style="fundus", **SETTINGS))(item))
    assert list_data_collate(items)["image"].shape == (2, 3, 48, 48)


def test_normalisation_is_the_backbones_own(photograph: Path) -> None:
    item = {"image": str(photograph)}
    plain = Compose(photograph_preprocessing(style="plain", image_size=(48, 48), mean=(0, 0, 0), std=(1, 1, 1)))(item)
    found = Compose(photograph_preprocessing(style="plain", **SETTINGS))(item)
    assert 0 <= plain["image"].min() < plain["image"].max() <= 1
    mean, std = (np.array(SETTINGS[name], dtype=np.float32)[:, None, None] for name in ("mean", "std"))
    np.testing.assert_allclose(found["image"].numpy(), (plain["image"].numpy() - mean) / std, rtol=1e-6, atol=1e-6)


def test_styles_do_what_they_say() -> None:
    image = scene(60, 90)[None]
    plain, dermoscopy, fundus = (
        PhotographPreprocessor(style=style, image_size=(48, 48), mean=(0, 0, 0), std=(1, 1, 1))(image)
        for style in ("plain", "dermoscopy", "fundus")
    )
    ratio = [(style[0, 0].sum() / style[0, 2].sum()).item() for style in (plain, dermoscopy, fundus)]
    assert ratio == pytest.approx([2.5, 1.0, 2.5], rel=0.05)
    dark = [float((style[0, 0] < 0.25).float().mean()) for style in (plain, fundus)]
    assert dark[0] > 0.3 and dark[1] == pytest.approx(1 - np.pi / 4, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_scripted_module_gives_the_same_bits_for_any_size(style: str) -> None:
    eager = PhotographPreprocessor(style=style, **SETTINGS)
    scripted = torch.jit.script(eager)
    for height, width in [(48, 48), (33, 70), (150, 200), (301, 97), (640, 513)]:
        image = torch.stack([scene(height, width, seed) for seed in range(2)])
        assert torch.equal(scripted(image), eager(image))
        torch.testing.assert_close(eager(image)[1], eager(image[1:])[0], rtol=0, atol=1e-6)


def test_module_adds_no_weights_to_a_network() -> None:
    assert PhotographPreprocessor(style="plain", **SETTINGS).state_dict() == {}


def test_unreadable_photograph_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.jpg"):
        LoadPhotographd()({"image": tmp_path / "missing.jpg"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"style": "x-ray"}, "no photograph style is called 'x-ray'; choose from dermoscopy"),
        ({"image_size": (48, 64)}, "image_size"),
        ({"image_size": (48,)}, "image_size"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean"),
        ({"std": (0.5, 0.5, 0.0)}, "std"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        photograph_preprocessing(**{"style": "plain", **SETTINGS, **change})


STYLE = """
from torch import nn
from monai_fedlora.transforms.photograph_style import Style, Variation

class Corner(nn.Module):
    def forward(self, image):
        side = min(image.shape[2], image.shape[3])
        return image[:, :, :side, :side]

CORNER = Style(processing="cuts out a corner", variation=Variation(flips=(1,)), square=Corner)
"""


def test_a_style_of_another_package_cuts_scales_and_can_be_scripted(install: Install) -> None:
    names = {"styles:corner": "corner_style:CORNER", "styles:odd": "corner_style:Corner"}
    install("corners", names, {"corner_style": STYLE})
    prepare = photograph_preprocessor(style="corner", **SETTINGS)
    image = torch.rand(2, 3, 48, 90)
    mean, std = (torch.tensor(SETTINGS[name])[:, None, None] for name in ("mean", "std"))
    torch.testing.assert_close(prepare(image), (image[:, :, :, :48] - mean) / std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(prepare)
    assert torch.equal(scripted(image), prepare(image))
    with pytest.raises(ConfigError, match=r"corners 1.0 .* gives .*Corner.*, which is no Style"):
        photograph_preprocessor(style="odd", **SETTINGS)
    with pytest.raises(ConfigError, match="no photograph style is called 'cornr'; did you mean 'corner'"):
        photograph_preprocessor(style="cornr", **SETTINGS)


def test_what_is_kept_of_photographs_is_of_the_code_that_prepared_them(install: Install) -> None:
    install("corners", {"styles:corner": "corner_style:CORNER"}, {"corner_style": STYLE})
    first = fingerprint(photograph_preprocessing(style="corner", **SETTINGS))
    sys.modules.pop("corner_style")
    install("other-corners", {"styles:round": "corner_style:CORNER"}, {"corner_style": STYLE + "# changed"})
    second = fingerprint(photograph_preprocessing(style="round", **SETTINGS))
    assert first and second and first != second
    assert fingerprint(photograph_preprocessing(style="plain", **SETTINGS)) is not None
