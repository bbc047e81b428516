"""An adapter folder is what PEFT itself reads and writes, and nothing else is taken for one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from monai_fedlora.adapters.active_adapters import with_weights
from monai_fedlora.adapters.lora import PRIVATE, SHARED, LoraSettings, attach_lora
from monai_fedlora.adapters.peft_folder import CONFIG_NAME, WEIGHTS_NAME, load_peft_folder, save_peft_folder
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import load_tensors, save_tensors
from monai_fedlora.networks.cinema import ConvViT
from tests.helpers import randomise, tiny_images, tiny_network


def adapted() -> ConvViT:
    network = tiny_network()
    attach_lora(network, LoraSettings(rank=3, alpha=5.0), (SHARED, PRIVATE))
    randomise(network, "lora_")
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_peft_folder(adapted(), SHARED, tmp_path / "adapter")
    return tmp_path / "adapter"


@torch.no_grad()
@pytest.mark.parametrize(("adapter", "other"), [(SHARED, PRIVATE), (PRIVATE, SHARED)])
def test_peft_loads_a_written_folder_onto_a_fresh_backbone(tmp_path: Path, adapter: str, other: str) -> None:
    network = adapted()
    save_peft_folder(network, adapter, tmp_path)
    loaded = PeftModel.from_pretrained(tiny_network(), tmp_path).eval()
    with with_weights(network, {other: 0.0}):
        torch.testing.assert_close(loaded(tiny_images()), network(tiny_images()), rtol=1e-6, atol=1e-6)
    assert not torch.allclose(loaded(tiny_images()), tiny_network()(tiny_images()))


def test_a_folder_holds_the_chosen_adapter_alone(folder: Path) -> None:
    tensors, _ = load_tensors(folder / WEIGHTS_NAME)
    state = adapted().state_dict()
    expected = {key: value for key, value in state.items() if ".shared." in key}
    assert len(tensors) == len(expected) == 8
    for key, value in expected.items():
        assert torch.equal(tensors["base_model.model." + key.replace(".shared.", ".")], value)
    text = "".join(path.read_text(errors="replace") for path in folder.iterdir())
    assert "private" not in text


def test_a_folder_comes_back_to_the_bit_under_another_name(folder: Path) -> None:
    tensors = load_peft_folder(folder, "hospital")
    state = adapted().state_dict()
    assert {key.replace(".hospital.", ".shared.") for key in tensors} == {k for k in state if ".shared." in k}
    assert all(torch.equal(value, state[key.replace(".hospital.", ".shared.")]) for key, value in tensors.items())


@torch.no_grad()
def test_a_folder_that_peft_wrote_can_be_read(tmp_path: Path) -> None:
    config = LoraConfig(r=3, lora_alpha=5, target_modules=["encoder.blocks.1.attn.q", "encoder.blocks.2.attn.q"])
    model = get_peft_model(tiny_network(), config)
    randomise(model, "lora_")
    model.save_pretrained(tmp_path)

    network = tiny_network()
    attach_lora(network, LoraSettings(rank=3, alpha=5.0, targets=("attn.q",)), (SHARED,))
    missing, unexpected = network.load_state_dict(load_peft_folder(tmp_path, SHARED), strict=False)
    assert not unexpected
    assert not any("lora" in key for key in missing)
    torch.testing.assert_close(network.eval()(tiny_images()), model.eval()(tiny_images()), rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("alpha", [2.5, 5.0, 40.0])
def test_a_folder_of_another_alpha_keeps_its_effect(folder: Path, alpha: float) -> None:
    network = tiny_network()
    attach_lora(network, LoraSettings(rank=3, alpha=alpha), (SHARED,))
    network.load_state_dict(load_peft_folder(folder, SHARED, scale=alpha / 3), strict=False)
    expected = PeftModel.from_pretrained(tiny_network(), folder).eval()(tiny_images())
    torch.testing.assert_close(network.eval()(tiny_images()), expected, rtol=1e-5, atol=1e-6)


def test_writing_an_adapter_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="other"):
        save_peft_folder(adapted(), "other", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def refusal(folder: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(str(folder / name))):
        load_peft_folder(folder, SHARED)


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refusal(folder, name)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_weights_are_named(folder: Path, keep: int) -> None:
    path = folder / WEIGHTS_NAME
    path.write_bytes(path.read_bytes()[:keep])
    refusal(folder, WEIGHTS_NAME)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"LORA"', "{}", '{"peft_type": "IA3"}', '{"peft_type": null}'])
def test_a_config_that_is_not_lora_is_named(folder: Path, text: str) -> None:
    (folder / CONFIG_NAME).write_text(text)
    refusal(folder, CONFIG_NAME)


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"rank_pattern": {"attn.q": 2}},
        {"alpha_pattern": {"attn.q": 2}},
        {"r": 0},
        {"r": "3"},
        {"lora_alpha": None},
        {"lora_alpha": -1},
    ],
    ids=str,
)
def test_another_kind_of_lora_is_named(folder: Path, change: dict) -> None:
    path = folder / CONFIG_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refusal(folder, CONFIG_NAME)


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.pred_head_dict.sax.weight",
        "base_model.model.encoder.blocks.1.attn.q.lora_B.bias",
        "base_model.model.encoder.blocks.1.attn.q.lora_magnitude_vector",
        "lora_A",
    ],
)
def test_a_tensor_that_is_no_factor_is_refused(folder: Path, key: str) -> None:
    tensors, metadata = load_tensors(folder / WEIGHTS_NAME)
    save_tensors(folder / WEIGHTS_NAME, {**tensors, key: torch.zeros(3)}, metadata)
    refusal(folder, WEIGHTS_NAME)


def test_what_is_no_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="absent"):
        load_peft_folder(tmp_path / "absent", SHARED)
