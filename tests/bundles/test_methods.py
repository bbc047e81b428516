"""Every method trains on the photograph bundle, by a config that is given after the main one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_fedlora.engines.checkpoint import trainable_tensors
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import read_json
from monai_fedlora.methods import get_method, method_names
from tests.bundles.shipped import PHOTOGRAPHS, UNTRAINED, root_cause


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few synthetic photographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return PHOTOGRAPHS.site()


def override(method: str) -> Any:
    """The config of a method."""
    return read_json(PHOTOGRAPHS.config(f"methods/{method}"))


def test_every_method_has_a_config() -> None:
    folder = PHOTOGRAPHS.config("methods/any").parent
    assert sorted(path.stem for path in folder.iterdir()) == method_names()


@pytest.mark.parametrize("method", method_names())
def test_a_config_names_its_method_and_changes_settings_that_the_bundle_has(method: str) -> None:
    config = override(method)
    assert config["method"] == method
    assert config.keys() <= read_json(PHOTOGRAPHS.config("train")).keys()


def test_rivals_adapt_the_layers_of_fedopal() -> None:
    methods = {name: get_method(name, override(name)["method_args"]) for name in method_names()}
    reference = methods["fedopal"].lora
    assert {name for name, method in methods.items() if getattr(method, "lora", None) != reference} == {
        "fedavg",
        "fedbn",
        "pfedst",
    }


@pytest.mark.parametrize("method", method_names())
def test_a_method_trains_on_the_bundle(method: str, datalist: Path) -> None:
    config = ConfigParser()
    config.read_config([str(PHOTOGRAPHS.config(name)) for name in ("train", f"methods/{method}")])
    settings = {"dataset_dir": str(datalist), "epochs": 1, "batch_size": 4, "warmup_epochs": 0, "val_interval": 0}
    for key, value in {**settings, "save_checkpoints": False, "show_progress": False, **UNTRAINED}.items():
        config[key] = value
    network = config.get_parsed_content("network")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = trainable_tensors(network).keys()
    trainer = config.get_parsed_content("train::trainer")
    trainer.run()
    after = network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert trainer.state.epoch == 1
    assert {key for key in trained if "lora_A" not in key} <= changed <= trained


def test_evaluation_takes_the_same_config_as_the_training(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"dataset_dir": str(datalist), "output_dir": "alone"}
    PHOTOGRAPHS.run("train", overrides=["methods/ditto"], epochs=1, batch_size=4, **settings)
    PHOTOGRAPHS.run("evaluate", overrides=["methods/ditto"], run_dir="alone", **settings)
    assert Path("alone/metrics.json").is_file()
    with pytest.raises(RuntimeError) as caught:
        PHOTOGRAPHS.run("evaluate", run_dir="alone", **settings)
    with pytest.raises(WeightsError, match="trained with method 'ditto', and this network has 'fedopal'"):
        raise root_cause(caught.value)
