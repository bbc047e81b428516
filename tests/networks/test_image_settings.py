"""What files beside weights say of images, in the forms in which transformers, OpenCLIP and timm write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.errors import WeightsError
from monai_fedlora.networks.image_settings import normalisation_beside, read_image_settings

HALF, IMAGENET = (0.5, 0.5, 0.5), (0.485, 0.456, 0.406)
OWN = {"mean": HALF, "std": HALF}
RAD_DINO = {
    "crop_size": {"height": 518, "width": 518},
    "do_center_crop": True,
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.5307, 0.5307, 0.5307],
    "image_processor_type": "BitImageProcessor",
    "image_std": [0.2583, 0.2583, 0.2583],
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 518},
}
FORMS: dict[str, tuple[str, dict[str, Any], Any, Any, int | None]] = {
    "RAD-DINO": ("preprocessor_config.json", RAD_DINO, (0.5307,) * 3, (0.2583,) * 3, 518),
    "DeiT": (
        "preprocessor_config.json",
        {"crop_size": 224, "do_center_crop": True, "image_mean": IMAGENET, "image_std": [1, 1, 1], "size": 256},
        IMAGENET,
        (1, 1, 1),
        224,
    ),
    "ViT": (
        "preprocessor_config.json",
        {"image_mean": HALF, "image_std": HALF, "size": {"height": 384, "width": 384}},
        HALF,
        HALF,
        384,
    ),
    "not normalised": ("preprocessor_config.json", {"do_normalize": False}, (0, 0, 0), (1, 1, 1), None),
    "a processor with texts": (
        "processor_config.json",
        {"image_processor": {"image_mean": HALF, "image_std": HALF, "size": 448}, "processor_class": "Siglip"},
        HALF,
        HALF,
        448,
    ),
    "a processor beside": ("processor_config.json", {"processor_class": "CLIPProcessor"}, None, None, None),
    "OpenCLIP": (
        "open_clip_config.json",
        {"model_cfg": {"vision_cfg": {"image_size": 224}}, "preprocess_cfg": {"mean": IMAGENET, "std": HALF}},
        IMAGENET,
        HALF,
        224,
    ),
    "timm": (
        "config.json",
        {"architecture": "vit", "pretrained_cfg": {"input_size": [3, 224, 224], "mean": HALF, "std": IMAGENET}},
        HALF,
        IMAGENET,
        224,
    ),
    "transformers' architecture": ("config.json", {"model_type": "dinov2", "image_size": 518}, None, None, 518),
    "of two towers": ("config.json", {"model_type": "clip", "vision_config": {"image_size": 336}}, None, None, 336),
}


def beside(folder: Path, name: str, content: Any) -> Path:
    (folder / "model.safetensors").touch()
    (folder / name).write_text(json.dumps(content))
    return folder / "model.safetensors"


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_is_read(form: str, tmp_path: Path) -> None:
    name, content, *expected = FORMS[form]
    said = read_image_settings(beside(tmp_path, name, content))
    found = [said.mean, said.std, said.side]
    assert [one and one.value for one in found] == expected
    assert all(one.file == name for one in found if one)


def test_transformers_own_processors_are_read_as_they_write_themselves(tmp_path: Path) -> None:
    from transformers import BitImageProcessorPil, ViTImageProcessorPil

    (tmp_path / "model.safetensors").touch()
    for processor, side in (
        (BitImageProcessorPil(crop_size={"height": 70, "width": 70}, image_mean=IMAGENET, image_std=HALF), 70),
        (ViTImageProcessorPil(size={"height": 96, "width": 96}, image_mean=IMAGENET, image_std=HALF), 96),
    ):
        processor.save_pretrained(tmp_path)
        said = read_image_settings(tmp_path / "model.safetensors")
        assert said.mean and said.std and said.side
        assert (said.mean.value, said.std.value, said.side.value) == (IMAGENET, HALF, side)


def test_the_preprocessor_decides_and_the_architecture_says_the_rest(tmp_path: Path) -> None:
    beside(tmp_path, "config.json", {"model_type": "dinov2", "image_size": 518})
    source = beside(
        tmp_path, "preprocessor_config.json", {"image_mean": HALF, "crop_size": 224, "do_center_crop": True}
    )
    said = read_image_settings(source)
    assert said.side and (said.side.value, said.side.file) == (224, "preprocessor_config.json")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": HALF}))
    said = read_image_settings(tmp_path / "model.safetensors")
    assert said.side and (said.side.value, said.side.file) == (518, "config.json")


def test_settings_hold_what_differs_from_the_size_and_nobody_chose(tmp_path: Path) -> None:
    source = beside(
        tmp_path, "preprocessor_config.json", {"image_mean": [0.5000000001, 0.5, 0.5], "image_std": IMAGENET}
    )
    assert normalisation_beside(source, {}, **OWN) == {"image_std": list(IMAGENET)}
    assert normalisation_beside(source, {"image_std": HALF}, **OWN) == {}
    (tmp_path / "preprocessor_config.json").write_text("[")
    assert normalisation_beside(source, {"image_std": HALF, "image_mean": HALF}, **OWN) == {}
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
        normalisation_beside(source, {"image_mean": HALF}, **OWN)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "is no JSON object"),
        ({"image_mean": [0.5]}, "a number for each of red, green and blue"),
        ({"image_mean": 0.5}, "a number for each of red, green and blue"),
        ({"image_mean": ["a", "b", "c"]}, "a number for each of red, green and blue"),
        ({"image_std": [0.5, 0, 0.5]}, "must be above 0"),
        ({"image_mean": [127.5, 127.5, 127.5]}, r"\[0, 1\]; of levels from 0 to 255 .* --set image_mean=R,G,B"),
        ({"image_mean": [-0.1, 0.5, 0.5]}, "not of levels"),
        ({"image_std": [58.4, 57.1, 57.4]}, "--set image_std=R,G,B"),
        ({"do_rescale": False}, "that are not rescaled"),
        ({"rescale_factor": 1 / 127.5}, "multiplied by 0.0078"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_name_of_its_file(content: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=rf"preprocessor_config\.json .*{words}"):
        read_image_settings(beside(tmp_path, "preprocessor_config.json", content))
