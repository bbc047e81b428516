"""What a file of weights is said to be, in small files of published layouts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import monai_fedlora as fl
from monai_fedlora.cli import main
from monai_fedlora.errors import WeightsError
from monai_fedlora.files import sha256
from monai_fedlora.networks.architecture import Architecture
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.resources import weights_path
from tests.networks.published import DEPTH, DIM, HEADS, PATCH, SIDE, folder_of
from tests.networks.test_timm_arguments import folder_of_timm

TINY = ViTSettings(image_size=(SIDE, SIDE), patch=PATCH, dim=DIM, depth=DEPTH, n_heads=HEADS)
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.fixture(autouse=True)
def _tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sizes that names and shapes of tensors do not tell apart."""
    for name, shape in {"tiny_vit": TINY, "tiny_mae": replace(TINY, readout="mean")}.items():
        row = Architecture(name=name, shape=shape, source="nobody", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        monkeypatch.setitem(IMAGE_SIZES, name, row)


def test_a_folder_of_transformers_is_described_with_what_lies_beside_the_weights(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "vit", image_size=64)
    (folder / "preprocessor_config.json").write_text(json.dumps({**IMAGENET, "size": 48}))
    found = fl.describe_backbone(folder)
    assert (found.usable, found.prefix, found.sha256) == (True, "", sha256(folder / "model.safetensors"))
    assert found.layout is not None and "transformers' ViT" in found.layout
    assert [each.name for each in found.fitting] == ["tiny_vit-48", "tiny_mae-48"]
    first = found.fitting[0]
    assert (first.image_size, first.image_size_from) == ((48, 48), "preprocessor_config.json")
    assert (first.mean, first.std) == tuple(map(tuple, IMAGENET.values()))
    assert first.normalisation_from == "preprocessor_config.json" and "config.json" in first.settings_from
    assert "  positions, for another image size: interpolated, plain" in first.notes
    assert first.command.endswith(f"--size tiny_vit-48 --backbone {folder}")
    (folder / "preprocessor_config.json").unlink()
    first = fl.describe_backbone(folder).fitting[0]
    assert (first.name, first.image_size_from, first.normalisation_from) == (
        "tiny_vit-64",
        "config.json",
        "as tiny_vit has it",
    )


def test_a_bare_file_says_what_is_assumed_and_what_is_left_over(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "vit")
    state = load_file(folder / "model.safetensors") | {"pooler.dense.weight": torch.zeros(DIM, DIM)}
    save_file({f"vit.{key}": value for key, value in state.items()}, tmp_path / "bare.safetensors")
    found = fl.describe_backbone(tmp_path / "bare.safetensors")
    assert found.prefix == "vit." and {each.name for each in found.fitting} == {"tiny_vit", "tiny_mae"}
    tiny = next(each for each in found.fitting if each.name == "tiny_vit")
    assert "vit.pooler.dense.weight" in tiny.left_over and "assumed as of tiny_vit" in tiny.settings_from
    assert f"{HEADS} heads, gelu, epsilon 1e-06, readout cls" in tiny.settings
    said = "\n".join(found.notes)
    assert "left over by images: vit.pooler.dense.weight" in said and "do not tell these sizes apart" in said


def test_what_fits_no_size_says_what_is_missing(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "vit")
    state = load_file(folder / "model.safetensors")
    save_file({key: value for key, value in state.items() if "layer.2" not in key}, tmp_path / "cut.safetensors")
    found = fl.describe_backbone(tmp_path / "cut.safetensors")
    assert not found.usable and found.fitting == () and found.unfit.keys() == {"tiny_vit", "tiny_mae"}
    assert "it lacks encoder.layer.2" in found.unfit["tiny_vit"]
    save_file({"stem.weight": torch.zeros(7, 3, 3, 3)}, tmp_path / "resnet.safetensors")
    found = fl.describe_backbone(tmp_path / "resnet.safetensors")
    assert (found.usable, found.layout, found.unfit) == (False, None, {})
    assert "fl.attach" in found.notes[-1]


@pytest.mark.slow
def test_a_text_tower_is_used_where_its_tokens_lie_beside(tmp_path: Path) -> None:
    (clip,) = fl.describe_backbone(weights_path("demo_clip/demo_clip.safetensors")).fitting
    assert clip.name == "clip_demo" and clip.texts and "its text tower and tokens are there" in "\n".join(clip.notes)
    alone = Path(shutil.copy(weights_path("demo_clip/demo_clip.safetensors"), tmp_path))
    (clip,) = fl.describe_backbone(alone).fitting
    assert clip.texts is False and clip.no_texts and "texts cannot be read" in "\n".join(clip.notes)


@pytest.mark.slow
def test_weights_for_cines_are_described_too() -> None:
    fitting = fl.describe_backbone(weights_path("hearts_small.safetensors")).fitting
    small = next(each for each in fitting if each.name == "small")
    assert small.mean is None and "--bundle cine_cmr" in small.command


def test_a_file_is_hashed_once_however_many_sizes_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr("monai_fedlora.files.sha256", lambda path: hashed.append(path) or "0" * 64)
    for name in ("hearts_small.safetensors", "demo_vit.safetensors"):
        assert fl.describe_backbone(weights_path(name)).usable
        assert [path.name for path in hashed] == [name]
        hashed.clear()


def test_a_gate_that_no_description_tells_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = replace(TINY, gated=True)
    monkeypatch.setitem(IMAGE_SIZES, "tiny_gated", replace(IMAGE_SIZES["tiny_vit"], name="tiny_gated", shape=shape))
    (found,) = fl.describe_backbone(folder_of_timm(tmp_path, gated=True)).fitting
    assert found.settings_from == (
        "config.json; the readout is that of tiny_gated; assumed as of tiny_gated: no file beside says activation silu "
        "of gates"
    )


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"w\.safetensors"):
        fl.describe_backbone(tmp_path / "w.safetensors")


@pytest.mark.slow
def test_the_command_prints_it_and_says_by_its_code_whether_a_job_can_name_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = weights_path("demo_vit.safetensors")
    assert main(["backbone", str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == fl.describe_backbone(file).notes
    assert main(["backbone", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] and found["fitting"][0]["image_size"] == [64, 64] and found["sha256"] == sha256(file)
    save_file({"stem.weight": torch.zeros(7, 3, 3, 3)}, tmp_path / "resnet.safetensors")
    assert main(["backbone", str(tmp_path / "resnet.safetensors")]) == 1
    assert main(["backbone", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_the_line_that_it_gives_writes_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (only,) = fl.describe_backbone(weights_path("demo_vit.safetensors")).fitting
    assert main(only.command.split()[1:]) == 0
    assert (tmp_path / "JOB" / "app" / "config" / "plan.json").is_file()
