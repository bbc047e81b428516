"""Models with towers as SigLIP 2, OpenCLIP and BiomedCLIP are published: their bundles run with MONAI alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.peft_folders import export_peft
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.weights_sources import find_weights
from monai_fedlora.transforms.photograph import photograph_preprocessing
from tests.networks.downloaded import DOWNLOADED, MEAN, STD, WITH_TEXTS, download, named_sizes

from .finished_runs import Run, finished_run
from .running import read_table, without_this_package

METHODS = ("pfedst", "clip_adapter", "clip_zero_shot")
OFTEN = list(zip(WITH_TEXTS, METHODS, strict=True))
PAIRS = [
    pair if pair in OFTEN else pytest.param(*pair, marks=pytest.mark.long)
    for pair in ((family, method) for family in WITH_TEXTS for method in METHODS)
]
PROMPTS = Prompts(class_texts={"NOR": "a mole", "ABN": "melanoma"})


def run_of(family: str, tmp_path: Path, method: str, *, side: int | None = None) -> Run:
    """A finished run from a folder as its owner publishes it, for images of ``side`` pixels if they are not its own."""
    texts = method in METHODS
    return finished_run(
        tmp_path / "W",
        find_weights(download(family, tmp_path / "model")).path,
        size=f"small_{family}" if side is None else f"small_{family}-{side}",
        method=method,
        sites=("site-1",),
        prompts=PROMPTS if texts else None,
        training={"style": "plain", "image_mean": list(MEAN), "image_std": list(STD)},
    )


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed, shape in enumerate([(60, 80, 3), (90, 50, 3), (33, 33, 3)]):
        levels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(levels).resize(shape[1::-1], Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


def probabilities(run: Run, folder: Path, *, side: int, temperature: float) -> dict[str, Any]:
    """What the trained network gives for images as training prepares them."""
    pipeline = Compose(photograph_preprocessing(style="plain", image_size=(side, side), mean=MEAN, std=STD))
    images = {path.stem: pipeline({"image": str(path)})["image"] for path in sorted(folder.iterdir())}
    with torch.no_grad():
        logits = run.networks["site-1"](torch.stack([torch.as_tensor(image) for image in images.values()]))
    found = (logits / temperature).softmax(dim=1).tolist()
    return {name: pytest.approx(row, abs=1e-4) for name, row in zip(images, found, strict=True)}


def assert_runs_elsewhere(run: Run, photographs: Path, tmp_path: Path, *, side: int) -> None:
    exported = export_bundle(**run.options(tmp_path / "bundle"))
    assert check_bundle(exported.folder, run=True).passed
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = without_this_package(exported.usage, studies=photographs, output=tmp_path / "answers", cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    _, rows = read_table(tmp_path / "answers" / "predictions.csv")
    temperature = exported.metadata["calibration"]["temperature"]
    assert rows == probabilities(run, photographs, side=side, temperature=temperature)
    assert len({round(row[0], 3) for row in rows.values()}) > 1


@pytest.mark.slow
@pytest.mark.parametrize(("family", "method"), PAIRS)
def test_a_bundle_gives_the_trained_logits_where_only_monai_is(
    family: str, method: str, photographs: Path, tmp_path: Path
) -> None:
    with named_sizes():
        run = run_of(family, tmp_path, method)
        assert_runs_elsewhere(run, photographs, tmp_path, side=DOWNLOADED[family].shape.image_size[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "side"),
    [
        ("dinov2_registers", 48),
        pytest.param("dinov3", 48, marks=pytest.mark.long),
        pytest.param("siglip2", 24, marks=pytest.mark.long),
    ],
)
def test_images_of_another_size_go_through_the_whole_chain(
    family: str, side: int, photographs: Path, tmp_path: Path
) -> None:
    with named_sizes():
        run = run_of(family, tmp_path, "dual_lora", side=side)
        assert run.networks["site-1"].settings.image_size == (side, side)
        assert_runs_elsewhere(run, photographs, tmp_path, side=side)


@pytest.mark.slow
@pytest.mark.parametrize("family", WITH_TEXTS)
def test_peft_folders_hold_the_adapters(family: str, tmp_path: Path) -> None:
    with named_sizes():
        run = run_of(family, tmp_path, "dual_lora")
        found = export_peft(**run.options(tmp_path / "adapters"))
        assert (found.folder / "private" / "adapter_model.safetensors").is_file()
        assert f'build_backbone("small_{family}", out_chans=2)' in found.usage
