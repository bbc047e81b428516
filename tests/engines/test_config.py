from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from monai_fedlora.engines import config
from monai_fedlora.errors import ConfigError, DataError


def test_the_device_is_a_gpu_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config.pick_device() == torch.device("cuda:0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert config.pick_device() == torch.device("cpu")
    assert config.pick_device("meta") == torch.device("meta")


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
    with pytest.raises(ConfigError, match="no network size 'huge'; choose from tiny"):
        config.preprocessing(size="huge")
