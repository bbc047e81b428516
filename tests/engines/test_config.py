from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from monai_fedlora.engines import config
from monai_fedlora.engines.memory import fingerprint
from monai_fedlora.errors import ConfigError, DataError
from monai_fedlora.networks.catalogue import BUILT_IN, architecture
from monai_fedlora.transforms.photograph import PhotographPreprocessor


def test_the_device_is_a_gpu_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config.pick_device() == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert config.pick_device() == torch.device("cpu")
    assert config.pick_device("meta") == torch.device("meta")


@pytest.mark.parametrize(("name", "message"), [("gpu", "give cpu, cuda:0 or auto"), ("cuda:2", "PyTorch sees 2 GPUs")])
def test_a_device_that_is_not_there_is_named(monkeypatch, name: str, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert config.pick_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=message):
        config.pick_device(name)


def test_a_run_writes_below_the_current_folder() -> None:
    folder = config.run_folder(bundle="b", site="siemens")
    assert Path(folder) == Path("runs/b/siemens")
    assert Path(config.file_in(folder=folder, name="best.safetensors")) == Path("runs/b/siemens/best.safetensors")


def test_an_empty_split_is_refused_only_where_it_is_needed() -> None:
    datalist = SimpleNamespace(site="s", items=lambda split: [])
    assert config.cases(datalist, split="test", required=False) == []
    with pytest.raises(DataError, match="the test split of site s is empty"):
        config.cases(datalist, split="test")


def test_a_missing_datalist_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"datalist\.json"):
        config.open_datalist(tmp_path)


def test_the_pipeline_fits_the_network_of_that_size() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 48, 48, 8)
    item = {"image": image, "label": 1, "subject": "p"}
    for transform in config.augmentation(size="small"):
        item = transform(item)
    assert item["image"].shape == image.shape
    assert config.augmentation(size="small", enabled=False) == ()
    assert len(config.preprocessing(size="small").transforms) > 1


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="no network size is called 'huge'; choose from"):
        config.preprocessing(size="huge")


@pytest.mark.parametrize("style", [None, "dermoscopy", "fundus", "plain"])
def test_photographs_take_the_pipeline_of_their_style(tmp_path, style: str | None) -> None:
    colour = torch.randint(0, 256, (70, 90, 3), generator=torch.Generator().manual_seed(0)).byte()
    Image.fromarray(colour.numpy()).save(tmp_path / "lesion.png")
    chosen = architecture("vit_demo")
    item = config.preprocessing(size="vit_demo", style=style)({"image": str(tmp_path / "lesion.png"), "label": 1})
    expected = PhotographPreprocessor(
        style=style or "dermoscopy", image_size=chosen.image_size, mean=chosen.mean, std=chosen.std
    )(colour.movedim(-1, 0)[None] / 255)
    torch.testing.assert_close(item["image"], expected[0])
    pipeline = Compose(list(config.augmentation(size="vit_demo", style=style)))
    assert pipeline(item)["image"].shape == (3, *chosen.image_size)
    assert config.augmentation(size="vit_demo", style=style, enabled=False) == ()


def test_a_normalisation_takes_the_place_of_the_sizes_own_in_training_and_in_what_is_kept(tmp_path) -> None:
    Image.linear_gradient("L").resize((40, 36)).convert("RGB").save(tmp_path / "lesion.png")
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2]
    own, other = (
        config.preprocessing(size="vit_demo"),
        config.preprocessing(size="vit_demo", image_mean=mean, image_std=std),
    )
    levels = 0.5 + 0.5 * own({"image": str(tmp_path / "lesion.png")})["image"]
    expected = torch.stack([(levels[c] - mean[c]) / std[c] for c in range(3)])
    torch.testing.assert_close(other({"image": str(tmp_path / "lesion.png")})["image"], expected)
    kept_under = [fingerprint(own), fingerprint(other)]
    assert None not in kept_under and kept_under[0] != kept_under[1]
    undone = config.augmentation(size="vit_demo", image_mean=mean, image_std=std)[0]
    torch.testing.assert_close(undone({"image": expected})["image"], levels)


def test_every_backbone_has_its_pipeline() -> None:
    for size in BUILT_IN:
        assert len(config.preprocessing(size=size).transforms) > 1
        assert len(config.augmentation(size=size)) > 1


@pytest.mark.parametrize("transforms", [config.preprocessing, config.augmentation])
def test_a_style_that_does_not_fit_is_refused(transforms) -> None:
    with pytest.raises(ConfigError, match="no photograph style is called 'x-ray'"):
        transforms(size="vit_demo", style="x-ray")
    with pytest.raises(ConfigError, match="style 'fundus' is for photographs, and small takes cines"):
        transforms(size="small", style="fundus")
    for setting in ("image_mean", "image_std"):
        with pytest.raises(ConfigError, match=f"{setting} .* is for photographs, and small takes cines"):
            transforms(size="small", **{setting: [0.5, 0.5, 0.5]})


@pytest.mark.slow
def test_a_compiled_network_keeps_its_keys_and_its_results() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())
    images, keys = torch.rand(2, 4), list(network.state_dict())
    expected = network(images)
    compiled = config.on_device(network, device="cpu", compiler="default")
    assert compiled is network
    assert list(compiled.state_dict()) == keys
    assert compiled._compiled_call_impl is not None
    compiled.compile(backend="eager")  # the same path without a C++ compiler
    torch.testing.assert_close(compiled(images), expected)


def test_an_unknown_compiler_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="fast"):
        config.on_device(torch.nn.Linear(2, 2), device="cpu", compiler="fast")
