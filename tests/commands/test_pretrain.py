"""``monai-fedlora pretrain`` reads every split of prepared sites and writes a file that loads as a backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_fedlora import files
from monai_fedlora.api.backbone_pretraining import pretrain_supervised
from monai_fedlora.cli import main
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import write_datalists
from monai_fedlora.engines import supervised_pretraining
from monai_fedlora.engines.supervised_pretraining import Lesson
from monai_fedlora.errors import ConfigError
from monai_fedlora.networks.anchors import text_anchors
from monai_fedlora.networks.catalogue import build_backbone, demo_weights
from monai_fedlora.networks.weights import load_backbone


def photographs(folder: Path, *, site: str = "north", splits: tuple[int, ...] = (2, 1, 1)) -> Path:
    """A prepared site of photographs with a bright disc on a dark ground."""
    generator = np.random.default_rng(0)
    (folder / "files").mkdir(parents=True)
    cases = []
    for index in range(sum(splits)):
        level = np.hypot(*np.mgrid[-1:1:80j, -1:1:80j]) < 0.9
        pixels = (level[..., None] * generator.uniform(90, 255, size=(80, 80, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "files" / f"{index}.png")
        cases.append(Case(subject=f"p{index}", label=index % 2, group="x", image=f"{index}.png"))
    ends = np.cumsum(splits)
    datalist = Datalist(
        site=site,
        dataset="csv",
        task="binary",
        classes=("A", "B"),
        image_root=folder / "files",
        seed=0,
        training=tuple(cases[: ends[0]]),
        validation=tuple(cases[ends[0] : ends[1]]),
        test=tuple(cases[ends[1] :]),
    )
    write_datalists([datalist], folder / "prepared")
    return folder / "prepared"


def pretrain(output: Path, *options: Any) -> int:
    settings = ["--epochs", "2", "--batch-size", "3", "--output", str(output)]
    return main(["pretrain", *settings, *(str(option) for option in options)])


def test_photographs_of_two_kinds_train_one_backbone(tmp_path: Path, capsys: Any) -> None:
    skin, eyes = photographs(tmp_path / "skin"), photographs(tmp_path / "eyes")
    output = tmp_path / "vit.safetensors"
    options = ["--data", skin, "--style", "dermoscopy", "--data", eyes, "--style", "fundus", "--provenance", "discs"]
    assert pretrain(output, "--size", "vit_demo", *options) == 0
    assert files.sha256(output) in capsys.readouterr().out
    metadata = files.load_tensors(output)[1]
    assert {
        "size": "vit_demo",
        "n_images": "8",
        "image_size": "64x64",
        "provenance": "discs",
    }.items() <= metadata.items()
    assert load_backbone(build_backbone("vit_demo", out_chans=2), output).layout == "pretrained"


@pytest.mark.slow
def test_the_style_of_a_folder_decides_how_it_is_read(tmp_path: Path) -> None:
    skin, eyes = photographs(tmp_path / "skin"), photographs(tmp_path / "eyes")
    one, both, other = (tmp_path / f"{name}.safetensors" for name in ("one", "both", "other"))
    assert pretrain(one, "--size", "vit_demo", "--data", skin, "--data", eyes, "--style", "fundus") == 0
    assert (
        pretrain(
            both, "--size", "vit_demo", *["--data", skin, "--style", "fundus"], "--data", eyes, "--style", "fundus"
        )
        == 0
    )
    assert (
        pretrain(
            other, "--size", "vit_demo", *["--data", skin, "--style", "plain"], "--data", eyes, "--style", "fundus"
        )
        == 0
    )
    assert files.sha256(one) == files.sha256(both) != files.sha256(other)


@pytest.mark.slow
def test_hearts_train_a_convvit(tmp_path: Path) -> None:
    assert main(["data", "phantom", "--output", str(tmp_path / "acdc"), "--patients", "2"]) == 0
    source, prepared = str(tmp_path / "acdc"), str(tmp_path / "prepared")
    assert main(["data", "acdc", "--source", source, "--output", prepared]) == 0
    assert pretrain(tmp_path / "b.safetensors", "--data", prepared) == 0
    assert load_backbone(build_backbone("small", out_chans=2), tmp_path / "b.safetensors").layout == "pretrained"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "vit_giant"], "no network size is called 'vit_giant'"),
        (["--size", "small"], "holds cases of kind 'image', but small takes 'cine'"),
        (["--size", "vit_demo", "--style", "moon"], "no photograph style is called 'moon'"),
        (["--size", "vit_demo", "--style", "plain", "--style", "fundus"], "--style was given 2 times for 1 --data"),
        (["--size", "vit_demo", "--mask-ratio", "1"], "mask_ratio"),
        (["--size", "vit_demo", "--cameras", "A"], "--cameras and --start are not for --data"),
        (["--size", "vit_demo", "--start", "x"], "--cameras and --start are not for --data"),
    ],
)
def test_what_does_not_fit_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: Any, options: list[str], message: str
) -> None:
    prepared = photographs(tmp_path / "skin")
    assert pretrain(tmp_path / "b.safetensors", "--data", prepared, *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "b.safetensors").exists()


def captioned(output: Path, *options: Any) -> int:
    settings = ["--captioned", "24", "--size", "clip_demo", "--epochs", "1", "--batch-size", "12", "--output", output]
    return main(["pretrain", *(str(option) for option in (*settings, *options))])


@pytest.mark.slow
def test_captioned_pictures_train_a_clip(tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "clip.safetensors"
    start = demo_weights("vit_demo")
    assert captioned(output, "--start", start, "--cameras", "A,E", "--provenance", "phantoms") == 0
    assert files.sha256(output) in capsys.readouterr().out
    metadata = files.load_tensors(output)[1]
    assert {"size": "clip_demo", "n_images": "24", "provenance": "phantoms"}.items() <= metadata.items()
    load_backbone(build_backbone("clip_demo", out_chans=2), output)
    anchors = text_anchors(output, size="clip_demo", classes=("melanoma", "naevus"))
    assert anchors.features.shape == (2, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "vit_demo"], "a vit_demo network cannot read texts"),
        (["--captioned", "1"], "--captioned needs 2 pictures or more"),
        (["--cameras", "A,Z"], "there is no camera 'Z'; choose from A, B"),
        (["--style", "fundus"], "--style and --standardise are for --data"),
        (["--standardise"], "--style and --standardise are for --data"),
        (["--start", "nowhere.safetensors"], "nowhere.safetensors does not exist"),
        (["--mask-ratio", "0.5"], "--mask-ratio is for --data"),
    ],
)
def test_captioned_pictures_that_cannot_be_are_one_line(
    tmp_path: Path, capsys: Any, options: list[str], message: str
) -> None:
    assert captioned(tmp_path / "clip.safetensors", *options) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [[], ["--data", "d", "--captioned", "5"]])
def test_what_to_train_on_is_said_once(tmp_path: Path, capsys: Any, options: list[str]) -> None:
    with pytest.raises(SystemExit):
        pretrain(tmp_path / "b.safetensors", *options)
    assert "--captioned" in capsys.readouterr().err


def test_hearts_are_trained_with_the_rate_of_the_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    def stop(lesson: Lesson[Any], *, lr: float, **settings: Any) -> None:
        rates.append(lr)
        taught.append(lesson.metadata["size"])
        raise ConfigError("stopped")

    taught: list[str] = []
    monkeypatch.setattr(supervised_pretraining, "pretrain_supervised", stop)
    for given in ([], ["--learning-rate", "0.004"], ["--size", "vit_demo"]):
        assert pretrain(tmp_path / "b.safetensors", "--supervised", *given) == 2
    with pytest.raises(ConfigError, match="stopped"):
        pretrain_supervised(output=tmp_path / "b.safetensors")
    assert rates == [rates[3], 0.004, rates[3], rates[3]]
    assert taught == ["small", "small", "vit_demo", "small"]


def test_pictures_teach_no_network_that_reads_texts(tmp_path: Path, capsys: Any) -> None:
    assert pretrain(tmp_path / "b.safetensors", "--supervised", "--size", "clip_demo") == 2
    assert "vit_demo" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_hearts_hide_no_tokens(tmp_path: Path, capsys: Any) -> None:
    assert pretrain(tmp_path / "b.safetensors", "--supervised", "--mask-ratio", "0.5") == 2
    assert "--mask-ratio is for --data" in capsys.readouterr().err


def test_a_folder_without_sites_is_one_line(tmp_path: Path, capsys: Any) -> None:
    assert pretrain(tmp_path / "b.safetensors", "--data", tmp_path) == 2
    assert "holds no prepared site" in capsys.readouterr().err
