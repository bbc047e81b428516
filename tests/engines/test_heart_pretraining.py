from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from monai_fedlora import files
from monai_fedlora.engines.heart_pretraining import heart_lesson
from monai_fedlora.engines.supervised_pretraining import pretrain_supervised
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.networks.catalogue import demo_weights
from monai_fedlora.networks.cinema import convunetr
from monai_fedlora.source_digest import TRAINING, source_digest


class Stopped(Exception):
    pass


def run(output: Path, **changes) -> tuple[float, ...]:
    settings = {"size": "small", "epochs": 2, "phantoms": 5, "views": 2, "batch_size": 3, "lr": 1e-3, "held_out": 3}
    cpu = torch.device("cpu")
    lesson = heart_lesson("small", seed=0, device=cpu)
    losses, _ = pretrain_supervised(lesson, **{**settings, "seed": 0, "device": cpu, **changes}, output=output)
    return losses


@pytest.mark.slow
def test_a_stopped_training_gives_the_same_file_whatever_draws_the_phantoms(tmp_path: Path) -> None:
    def stop(epoch: int, loss: float) -> None:
        raise Stopped

    losses = run(tmp_path / "whole.safetensors")
    assert losses[1] < losses[0]
    with pytest.raises(Stopped):
        run(tmp_path / "stopped.safetensors", on_epoch=stop)
    assert not (tmp_path / "stopped.safetensors").exists()
    resumed: list[int] = []
    assert run(tmp_path / "stopped.safetensors", workers=1, on_resume=resumed.append) == losses
    assert resumed == [1]
    assert files.sha256(tmp_path / "stopped.safetensors") == files.sha256(tmp_path / "whole.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped.safetensors", "whole.safetensors"]

    stored, metadata = files.load_tensors(tmp_path / "whole.safetensors")
    assert metadata["n_images"] == "10"
    assert set(json.loads(metadata["held_out"])) == {"dice", "correlation", "balanced_accuracy"}
    assert set(convunetr("small", out_chans=4).state_dict()) <= set(stored)


def test_other_settings_beside_a_stopped_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="views must be positive"):
        run(tmp_path / "b.safetensors", views=0)


@pytest.mark.parametrize(("name", "value"), [("version of the code", "earlier"), ("precision", "bf16")])
def test_a_state_of_other_code_or_precision_is_not_gone_on_with(tmp_path: Path, name: str, value: str) -> None:
    numbers = {"epochs": 2, "phantoms": 5, "views": 2, "batch_size": 3, "held_out": 3, "size": "small", "seed": 0}
    same = {key: str(number) for key, number in {**numbers, "lr": 1e-3}.items()}
    ground = {"version of the code": source_digest(TRAINING), "precision": "float32"}
    metadata = {"settings": json.dumps({**same, **ground, name: value}), "losses": "[1.0]"}
    files.save_tensors(tmp_path / "b.safetensors.state", {"generator": torch.Generator().get_state()}, metadata)
    with pytest.raises(ConfigError, match=f"with {name} {value}, and this one has"):
        run(tmp_path / "b.safetensors")


@pytest.mark.slow
def test_a_training_goes_on_from_weights_and_says_from_which(tmp_path: Path) -> None:
    start = demo_weights("small")
    assert start is not None
    output = tmp_path / "b.safetensors"
    run(output, start=start, lr=1e-12, epochs=1)
    stored, metadata = files.load_tensors(output)
    assert metadata["start"] == files.sha256(start)
    before = files.load_tensors(start)[0]
    decoder = [key for key in stored if key.startswith(("pred_head_dict", "dec_image", "encoder.blocks"))]
    assert len(decoder) > 50
    assert all(torch.allclose(stored[key], before[key], atol=1e-3) for key in decoder)


def test_weights_of_another_size_are_no_start(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"hearts_fine.safetensors does not fit"):
        run(tmp_path / "b.safetensors", start=demo_weights("fine"))
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_start_is_not_gone_on_with(tmp_path: Path) -> None:
    settings = {"epochs": 2, "phantoms": 5, "views": 2, "batch_size": 3, "held_out": 3, "size": "small", "seed": 0}
    same = {key: str(number) for key, number in {**settings, "lr": 1e-3}.items()}
    ground = {"version of the code": source_digest(TRAINING), "precision": "float32", "start": "random weights"}
    metadata = {"settings": json.dumps({**same, **ground}), "losses": "[1.0]"}
    files.save_tensors(tmp_path / "b.safetensors.state", {"generator": torch.Generator().get_state()}, metadata)
    with pytest.raises(ConfigError, match="with start random weights, and this one has"):
        run(tmp_path / "b.safetensors", start=demo_weights("small"))
