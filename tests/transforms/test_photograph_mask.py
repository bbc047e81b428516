"""Masks follow their photographs to the network and back; what cannot be read is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose
from PIL import Image
from torch.nn.functional import one_hot

from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
from monai_fedlora.data.photo_phantom.dermoscopy import make_dermoscopy
from monai_fedlora.data.photo_phantom.lesions import CLASSES
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.transforms.photograph import (
    PreparePhotographd,
    photograph_preprocessing,
    photograph_preprocessor,
)
from monai_fedlora.transforms.photograph_augmentation import photograph_augmentation
from monai_fedlora.transforms.photograph_geometry import centre_box
from monai_fedlora.transforms.photograph_mask import restore_photograph_labels, shrink_labels
from monai_fedlora.transforms.photograph_mask_reading import read_photograph_mask
from tests.plugin_packages import Install
from tests.transforms.test_photograph import STYLE

PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
EXIF = 0x0112


def blob(height: int, width: int, *, dark: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) whose lesion is blue on grey and lies out of the middle, and its mask of 0 and 255."""
    row, column = np.mgrid[0:height, 0:width]
    lesion = (row - 0.42 * height) ** 2 / 2 + (column - 0.55 * width) ** 2 < (0.2 * min(height, width)) ** 2
    picture = np.full((height, width, 3), dark)
    picture[lesion] = (0.2, 0.2, 0.9)
    return (255 * picture).astype(np.uint8), (255 * lesion).astype(np.uint8)


@pytest.fixture
def pair(tmp_path: Path) -> Any:
    """Write a photograph and its mask; either may be changed before."""

    def write(
        shape: tuple[int, int] = (60, 90),
        mask: Any = Image.fromarray,
        name: str = "ISIC_1_segmentation.png",
        turn: int = 1,
        **how: Any,
    ) -> dict[str, Any]:
        picture, labels = blob(*shape)
        exif = Image.Exif()
        exif[EXIF] = turn
        Image.fromarray(picture).save(tmp_path / "ISIC_1.png", exif=exif)
        mask(labels).save(tmp_path / name, **how)
        paths = {"image": str(tmp_path / "ISIC_1.png"), "mask": str(tmp_path / name)}
        return {**paths, "mask_values": [255], "label": -1, "subject": "ISIC_1"}

    return write


def read(item: dict[str, Any], values: tuple[int, ...] = (255,)) -> np.ndarray:
    return read_photograph_mask(item["mask"], image=item["image"], values=values)


def blue(image: torch.Tensor) -> torch.Tensor:
    """Where the lesion of :func:`blob` is, by its colour."""
    return image[2] > image[0] + 0.3


@pytest.mark.parametrize("style", ["dermoscopy", "fundus", "plain"])
def test_a_mask_is_cut_and_scaled_as_its_photograph(pair: Any, style: str) -> None:
    item = pair((130, 200))

    found = Compose(photograph_preprocessing(style=style, image_size=(48, 48), mean=(0,) * 3, std=(1,) * 3))(item)

    assert set(found) == {"image", "mask", "labelled", "label", "subject"}
    assert found["mask"].dtype == torch.uint8 and found["mask"].shape == (1, 48, 48)
    assert found["labelled"].tolist() == [True, True]
    assert (blue(found["image"]) == (found["mask"][0] > 0)).float().mean() > 0.985
    assert 100 < found["mask"].sum() < 1000


def test_on_the_photographs_own_grid_the_way_there_and_back_changes_nothing(pair: Any) -> None:
    item = pair((48, 48))
    labels = torch.from_numpy(read(item))

    small = shrink_labels(labels[None], centre_box(48, 48), 48, 1)
    back = restore_photograph_labels(one_hot(small.long(), 2).movedim(-1, 1), centre_box(48, 48), 48, 48)

    assert torch.equal(small[0], labels) and torch.equal(back[0], labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(32, 70), st.integers(32, 70), st.sampled_from([1, 2, 4]), st.data())
def test_blocks_of_a_mask_return_to_the_pixel(height: int, width: int, factor: int, data: st.DataObject) -> None:
    """A photograph ``factor`` times finer than the network's grid, with labels that fill whole blocks of pixels."""
    size = min(height, width) // factor
    top, left = data.draw(st.integers(0, size - 3)), data.draw(st.integers(0, size - 3))
    coarse = torch.zeros(1, size, size, dtype=torch.uint8)
    coarse[:, top:, left:] = 2
    coarse[:, top : top + 2, left : left + 2] = 1
    side = size * factor
    across, down = (width - side) // 2, (height - side) // 2
    box = (down, down + side, across, across + side)
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[:, box[0] : box[1], box[2] : box[3]] = coarse.repeat_interleave(factor, 1).repeat_interleave(factor, 2)

    small = shrink_labels(mask, box, size, 2)
    back = restore_photograph_labels(one_hot(small.long(), 3).movedim(-1, 1), box, height, width)

    assert torch.equal(small, coarse)
    assert back.shape == mask.shape and back.dtype == torch.uint8
    wrong = back != mask
    if factor == 1:
        assert not wrong.any()
    assert not wrong[:, : box[0]].any() and not wrong[:, box[1] :].any() and not wrong[..., : box[2]].any()
    assert wrong.sum() <= 8 * factor**2  # corners, which a linear interpolation rounds


def test_a_straight_border_returns_exactly_where_the_scores_cross() -> None:
    """Linear scores along the columns: the border of the mask is where both classes are equally probable."""
    ramp = (torch.arange(10) + 0.5) / 10
    scores = torch.stack([1 - ramp, ramp]).unsqueeze(1).expand(2, 10, 10)[None]

    back = restore_photograph_labels(scores, (3, 43, 5, 45), 50, 60)

    assert back.shape == (1, 50, 60)
    assert torch.equal(back[0, 3:43].sum(dim=1), torch.full((40,), 20)) and bool((back[0, 3:43, 25:45] == 1).all())
    assert int(back[0, :3].sum() + back[0, 43:].sum() + back[0, :, 45:].sum()) == 0


def test_a_padded_disc_returns_to_its_place() -> None:
    """A box that is wider than tall is padded on its way to the network, and the padding is dropped on the way back."""
    box = (10, 30, 4, 44)
    mask = torch.zeros(1, 50, 50, dtype=torch.uint8)
    mask[:, 12:20, 10:30] = 1

    small = shrink_labels(mask, box, 40, 1)
    back = restore_photograph_labels(one_hot(small.long(), 2).movedim(-1, 1), box, 50, 50)

    assert torch.equal(small[0, 12:20, 6:26], torch.ones(8, 20, dtype=torch.uint8)) and int(small.sum()) == 160
    assert torch.equal(back, mask)


def test_restoring_is_scriptable_and_the_same() -> None:
    scores, box = torch.rand(1, 3, 16, 16).softmax(dim=1), (2, 30, 5, 40)
    scripted = torch.jit.script(restore_photograph_labels)
    assert torch.equal(scripted(scores, box, 33, 47), restore_photograph_labels(scores, box, 33, 47))


@pytest.mark.parametrize("style", ["dermoscopy", "fundus", "plain"])
def test_image_and_mask_stay_aligned_under_every_augmentation(style: str) -> None:
    picture, labels = blob(48, 48)
    item = {"image": torch.from_numpy(picture).movedim(-1, 0) / 255, "mask": torch.from_numpy(labels)[None] // 255}
    augment = Compose(photograph_augmentation(style=style, image_size=(48, 48), **PLAIN, probability=1.0, jitter=0.1))

    @settings(max_examples=12, deadline=None)
    @given(st.integers(0, 2**31))
    def aligned(seed: int) -> None:
        augment.set_random_state(seed=seed)
        found = augment(dict(item))
        assert type(found["mask"]) is torch.Tensor and found["mask"].dtype == torch.uint8
        assert found["mask"].shape == (1, 48, 48) and set(found["mask"].unique().tolist()) <= {0, 1}
        assert (blue(found["image"]) == (found["mask"][0] > 0)).float().mean() > 0.97
        assert found["mask"].any() and not torch.equal(found["mask"], item["mask"])

    aligned()


def test_a_mask_changes_nothing_of_what_is_drawn_for_the_image() -> None:
    picture, labels = blob(40, 40)
    image = torch.from_numpy(picture).movedim(-1, 0) / 255
    augment = Compose(photograph_augmentation(style="dermoscopy", image_size=(40, 40), **PLAIN))
    found = []
    for item in ({"image": image}, {"image": image, "mask": torch.from_numpy(labels)[None]}):
        augment.set_random_state(seed=4)
        found.append(augment(item)["image"])
    assert torch.equal(*found)


def test_masks_of_another_packages_style_are_refused(install: Install) -> None:
    install("corners", {"styles:corner": "corner_style:CORNER"}, {"corner_style": STYLE})
    step = PreparePhotographd(style="corner", image_size=(48, 48), **PLAIN)
    item = {"image": torch.rand(3, 60, 60), "mask": torch.ones(1, 60, 60), "labelled": torch.ones(2)}
    with pytest.raises(ConfigError, match="'corner' of another package does not say what it cuts out"):
        step(item)
    assert photograph_preprocessor(style="plain", image_size=(48, 48), **PLAIN).box(item["image"]) == (0, 60, 0, 60)


def _palette(colours: list[int]) -> Any:
    def image(labels: np.ndarray) -> Image.Image:
        made = Image.fromarray((labels > 0).astype(np.uint8), mode="P")
        made.putpalette(colours)
        return made

    return image


@pytest.mark.parametrize(
    ("mask", "value"),
    [
        (Image.fromarray, 255),
        (lambda labels: Image.fromarray(labels).convert("RGB"), 255),
        (lambda labels: Image.fromarray(labels).convert("RGBA"), 255),
        (lambda labels: Image.fromarray(labels).convert("1"), 255),
        (lambda labels: Image.fromarray(labels // 255), 1),
        (lambda labels: Image.fromarray(labels.astype(np.uint16) * 2), 510),
        (_palette([0, 0, 0, 255, 255, 255]), 255),
        (_palette([255, 255, 255, 0, 0, 0]), 0),
        (_palette([0, 0, 0, 200, 0, 0]), 1),
    ],
)
def test_all_forms_of_one_value_per_pixel_are_read(pair: Any, mask: Any, value: int) -> None:
    item = pair(mask=mask)
    if not value:  # white where the lesion is not: the grey levels count, not the numbers of the entries
        assert np.array_equal(read(item), 1 - blob(60, 90)[1] // 255)
        return
    assert np.array_equal(read(item, (value,)), blob(60, 90)[1] // 255)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"name": "m.jpg"}, r"m\.jpg is a JPEG file, whose compression changes values"),
        (
            {"mask": lambda m: Image.fromarray(m).resize((45, 40))},
            r"tion\.png has 45 x 40 .*ISIC_1\.png has 90",
        ),
        ({"mask": lambda m: Image.fromarray(m).resize((60, 90))}, "has 60 x 90 pixels"),
        ({"mask": lambda m: Image.fromarray(np.stack([m, m, 0 * m], -1))}, "segmentation.png is coloured"),
        ({"mask": lambda m: Image.fromarray(np.stack([m, m], -1), "LA")}, "segmentation.png is transparent in places"),
        ({"mask": lambda m: Image.fromarray(0 * m)}, "segmentation.png is empty"),
        (
            {"mask": lambda m: Image.fromarray(m // 2)},
            "segmentation.png holds the value 127, and its struct",
        ),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(pair: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(pair(**how))


def test_a_missing_and_a_cut_off_mask_are_named(pair: Any) -> None:
    item = pair()
    mask = Path(item["mask"])
    mask.write_bytes(mask.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"ISIC_1_segmentation\.png"):
        read(item)
    mask.unlink()
    with pytest.raises(DataError, match=r"ISIC_1_segmentation\.png does not exist"):
        read(item)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_mask_is_turned_with_its_photograph_where_its_size_says_so(pair: Any, turn: int) -> None:
    from PIL import ImageOps

    item = pair(turn=turn)
    with Image.open(item["image"]) as stored:
        upright = torch.from_numpy(np.asarray(ImageOps.exif_transpose(stored))).movedim(-1, 0) / 255

    turned = read(item)

    assert turned.shape == (90, 60) and np.array_equal(turned > 0, blue(upright).numpy())
    Image.fromarray(255 * turned).save(item["mask"])
    assert np.array_equal(read(item), turned)


def test_a_mask_with_an_orientation_of_its_own_is_turned_by_that(pair: Any) -> None:
    exif = Image.Exif()
    exif[EXIF] = 3
    item = pair(exif=exif)
    assert np.array_equal(read(item), blob(60, 90)[1][::-1, ::-1] // 255)


@pytest.mark.parametrize(("turn", "shape"), [(3, (60, 90)), (2, (60, 90)), (6, (60, 60))])
def test_a_mask_that_may_or_may_not_be_turned_is_refused(pair: Any, turn: int, shape: tuple[int, int]) -> None:
    with pytest.raises(DataError, match=rf"orientation {turn}\), and nothing says whether its mask .*segmentation"):
        read(pair(turn=turn, shape=shape))


@pytest.mark.slow
@pytest.mark.parametrize(("size", "mean", "worst"), [(64, 0.977, 0.949), (224, 0.994, 0.986)])
def test_one_view_of_a_whole_photograph_costs_little_of_a_lesions_outline(size: int, mean: float, worst: float) -> None:
    """Perfect outlines on the network's grid, brought back; the figures of docs/export.md."""
    cameras, found = list(DERMATOSCOPES.values()), []
    for number in range(24):
        drawn = make_dermoscopy(CLASSES[number % 8], cameras[number % len(cameras)], (5, number), size=384).mask
        mask = torch.from_numpy(drawn)[None].to(torch.uint8)
        height, width = drawn.shape
        box = centre_box(height, width)
        small = shrink_labels(mask, box, size, 1)
        (back,) = restore_photograph_labels(one_hot(small.long(), 2).permute(0, 3, 1, 2), box, height, width)
        found.append(float(2 * (back & mask[0]).sum() / (back.sum() + mask.sum())))
    assert (np.mean(found), min(found)) == pytest.approx((mean, worst), abs=1e-3)
