"""Random transforms of photographs: repeatable, within the grey levels, and harmless to what they get."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.transforms import Compose

from monai_fedlora.errors import ConfigError
from monai_fedlora.transforms.photograph_augmentation import RandSaturationd, photograph_augmentation
from monai_fedlora.transforms.photograph_style import STYLES

SETTINGS: dict[str, Any] = {"image_size": (40, 40), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MEAN, STD = (torch.tensor(SETTINGS[name])[:, None, None] for name in ("mean", "std"))


def photograph() -> torch.Tensor:
    """(3, 40, 40) in [0, 1], without symmetry."""
    levels = torch.linspace(0.1, 0.9, 40)
    return torch.stack([levels.expand(40, 40), levels[:, None].expand(40, 40) ** 2, 0.3 + 0 * levels.expand(40, 40)])


def augmented(style: str, seed: int, image: torch.Tensor, **changes: Any) -> torch.Tensor:
    pipeline = Compose(photograph_augmentation(style=style, **{**SETTINGS, **changes}))
    pipeline.set_random_state(seed=seed)
    item = pipeline({"image": (image - MEAN) / STD, "label": 1})
    assert item["label"] == 1
    return item["image"] * STD + MEAN


@pytest.mark.parametrize("style", STYLES)
def test_seed_decides(style: str) -> None:
    first, again, other = (augmented(style, seed, photograph()) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_state_is_set_for_every_access_anew() -> None:
    pipeline = Compose(photograph_augmentation(style="dermoscopy", **SETTINGS))
    found = []
    for seed in (5, 6, 5):
        pipeline.set_random_state(seed=seed)
        found.append(pipeline({"image": photograph()})["image"])
    assert torch.equal(found[0], found[2])


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_levels_stay_in_range_and_the_input_is_left_alone(style: str) -> None:
    image = photograph()
    for seed in range(20):
        normalised = (image - MEAN) / STD
        kept = normalised.clone()
        pipeline = Compose(photograph_augmentation(style=style, **SETTINGS, probability=1.0))
        pipeline.set_random_state(seed=seed)
        found = pipeline({"image": normalised})["image"]
        assert torch.equal(normalised, kept)
        assert type(found) is torch.Tensor and found.dtype == torch.float32 and found.shape == image.shape
        levels = found * STD + MEAN
        assert -1e-5 <= levels.min() < levels.max() <= 1 + 1e-5


def test_without_a_draw_nothing_changes() -> None:
    torch.testing.assert_close(augmented("fundus", 0, photograph(), probability=0.0), photograph(), rtol=0, atol=1e-6)


def test_outside_a_fundus_photograph_is_black() -> None:
    white = torch.ones(3, 40, 40)
    for seed in range(5):
        levels = augmented("fundus", seed, white, probability=1.0)
        assert levels[:, [0, 0, -1, -1], [0, -1, 0, -1]].amin() < 0.01
        assert augmented("dermoscopy", seed, white, probability=1.0).min() > 0.3


def test_plain_photographs_are_not_mirrored() -> None:
    for seed in range(20):
        levels = augmented("plain", seed, photograph(), probability=1.0)
        assert levels[0, :, 30].mean() > levels[0, :, 10].mean()
        assert levels[1, 30].mean() > levels[1, 10].mean()


def test_dermoscopy_is_mirrored_both_ways() -> None:
    found = [augmented("dermoscopy", seed, photograph()) for seed in range(40)]
    across = [bool(levels[0, :, 30].mean() > levels[0, :, 10].mean()) for levels in found]
    down = [bool(levels[1, 30].mean() > levels[1, 10].mean()) for levels in found]
    assert len(set(zip(across, down, strict=True))) == 4


def test_saturation_is_drawn_from_its_range() -> None:
    transform = RandSaturationd(spread=0.2, prob=0.5)
    transform.set_random_state(seed=0)
    factors = []
    for _ in range(200):
        transform.randomize()
        if transform._do_transform:
            factors.append(transform.factor)
    assert 0.8 <= min(factors) < 0.83 and 1.17 < max(factors) <= 1.2
    assert 70 < len(factors) < 130


def test_unknown_style_is_refused() -> None:
    with pytest.raises(ConfigError, match="no photograph style is called 'x-ray'"):
        photograph_augmentation(style="x-ray", **SETTINGS)
