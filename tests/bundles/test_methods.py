"""Every method trains on a photograph bundle, by a config that is given after the main one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_fedlora.engines.checkpoint import trainable_tensors
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import load_tensors, read_json
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.catalogue import architecture
from tests.bundles.shipped import PHOTOGRAPHS, TEXTS, Shipped, root_cause
from tests.methods.federation import NEED_TEXTS


@pytest.fixture(scope="module")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of a few synthetic photographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return PHOTOGRAPHS.site()


def override(bundle: Shipped, method: str) -> Any:
    """The config of a method."""
    return read_json(bundle.config(f"methods/{method}"))


def parsed(bundle: Shipped, method: str, datalist: Path) -> ConfigParser:
    """The training of a method on a few cases, an epoch long."""
    config = ConfigParser()
    config.read_config(bundle.files("train", f"methods/{method}"))
    settings = {"dataset_dir": str(datalist), "epochs": 1, "batch_size": 4, "warmup_epochs": 0, "val_interval": 0}
    for key, value in {**settings, "save_checkpoints": False, "show_progress": False, **bundle.weights}.items():
        config[key] = value
    return config


CONFIGS = [(bundle, method) for bundle in (PHOTOGRAPHS, TEXTS) for method in bundle.methods]
TRAINED = [
    *((PHOTOGRAPHS, method) for method in PHOTOGRAPHS.methods),
    *((TEXTS, name) for name in (*NEED_TEXTS, "pfedst")),
]
names = pytest.mark.parametrize(
    ("bundle", "method"), CONFIGS, ids=[f"{method}-{bundle.name}" for bundle, method in CONFIGS]
)


@pytest.mark.parametrize("bundle", [PHOTOGRAPHS, TEXTS], ids=lambda bundle: bundle.name)
def test_every_method_that_the_backbone_can_run_has_a_config(bundle: Shipped) -> None:
    folder = bundle.config("methods/any").parent
    has_texts = architecture(read_json(bundle.config("train"))["size"]).text is not None
    able = [name for name in method_names() if has_texts or name not in NEED_TEXTS]
    assert sorted(path.stem for path in folder.iterdir()) == able


@names
def test_a_config_names_its_method_and_changes_settings_that_the_bundle_has(bundle: Shipped, method: str) -> None:
    config = override(bundle, method)
    assert config["method"] == method
    assert config.keys() <= read_json(bundle.config("train")).keys()


@pytest.mark.parametrize("bundle", [PHOTOGRAPHS, TEXTS], ids=lambda bundle: bundle.name)
def test_rivals_adapt_the_layers_of_fedopal(bundle: Shipped) -> None:
    methods = {name: get_method(name, override(bundle, name)["method_args"]) for name in bundle.methods}
    reference = methods["fedopal"].lora
    others = {name for name, method in methods.items() if getattr(method, "lora", None) != reference}
    assert others - set(NEED_TEXTS) == {"fedavg", "fedbn", "linear_probe", "pfedst"}


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "method"), TRAINED, ids=[f"{method}-{bundle.name}" for bundle, method in TRAINED])
def test_a_method_trains_on_the_bundle(bundle: Shipped, method: str, datalist: Path) -> None:
    config = parsed(bundle, method, datalist)
    network = config.get_parsed_content("network")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trained = trainable_tensors(network).keys()
    trainer = config.get_parsed_content("train::trainer")
    trainer.run()
    after = network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert trainer.state.epoch == 1
    assert {key for key in trained if "lora_A" not in key} <= changed <= trained
    assert bool(trained) == (method != "clip_zero_shot")


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [name for bundle, name in CONFIGS if bundle is TEXTS and (TEXTS, name) not in TRAINED]
)
def test_every_other_method_is_built_on_clips_image_tower(method: str, datalist: Path) -> None:
    config = parsed(TEXTS, method, datalist)
    network, trainer = (config.get_parsed_content(part) for part in ("network", "train::trainer"))
    assert trainer.network is network
    assert network.get_submodule("norm").weight.shape == (96,)
    assert trainable_tensors(network)
    assert not any(key.startswith("head.text") for key in network.state_dict())


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


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clip_zero_shot", "prompt_tuning"])
def test_what_compares_with_texts_is_trained_scored_and_used(
    datalist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Of a method that trains nothing the checkpoint holds no tensor, but it says what it is of."""
    monkeypatch.chdir(tmp_path)
    for name, settings in (("train", {"batch_size": 4, "epochs": 1}), ("evaluate", {}), ("inference", {})):
        TEXTS.run(name, overrides=[f"methods/{method}"], dataset_dir=str(datalist), **settings)
    folder = Path("runs") / TEXTS.name / "site-1"
    tensors, metadata = load_tensors(folder / "best.safetensors")
    assert set(tensors) == ({"head.context"} if method == "prompt_tuning" else set())
    assert json.loads(metadata["settings"])["method"] == method
    assert {path.name for path in folder.iterdir()} >= {"metrics.json", "predictions.csv"}
    with pytest.raises(RuntimeError) as caught:
        TEXTS.run("evaluate", dataset_dir=str(datalist))
    with pytest.raises(WeightsError, match=f"trained with method '{method}', and this network has 'pfedst'"):
        raise root_cause(caught.value)
