"""The three commands of docs/backbones.md, on small folders as their owners publish them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import monai_fedlora as fl
from monai_fedlora.cli import main
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.image_sizes import IMAGE_SIZES
from tests.networks.downloaded import DOWNLOADED, MEAN, STD, download, named_sizes

OFTEN = ("dinov3", "siglip2")
"""Of those without and with a text tower, one that is tried whenever slow tests are."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isic") / "photographs"
    fl.phantom("fed_isic2019", output=folder, patients=24, vendors="A", size=48)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "family", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.long) for name in DOWNLOADED]
)
def test_a_downloaded_folder_becomes_a_comparison_of_all_methods_in_three_commands(
    family: str, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = download(family, tmp_path / "model")
    texts = DOWNLOADED[family].text is not None
    with named_sizes():
        capsys.readouterr()
        assert main(["backbone", str(model), "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["fitting"]
        assert (found["name"], found["mean"], found["std"]) == (f"small_{family}", list(MEAN), list(STD))
        assert found["texts"] is (True if texts else None)
        prepared = ["--source", str(photographs), "--output", str(tmp_path / "prepared"), "--classes", "NV,MEL"]
        assert main(["data", "fed_isic2019", *prepared]) == 0
        bundle = "image_2d_pfedst_classification" if texts else "image_2d_fedopal_classification"
        options = ["--bundle", bundle, "--data", str(tmp_path / "prepared"), "--set", "batch_size=2"]
        options += ["--size", found["name"], "--backbone", str(model), "--output", str(tmp_path / "compared")]
        assert main(["compare", "--methods", "all", *options, "--seeds", "1", "--rounds", "1"]) == 0
    settings = json.loads((tmp_path / "compared" / "comparison.json").read_text())
    assert (tmp_path / "compared" / "report.html").is_file() and json.dumps(list(MEAN)) in json.dumps(settings)
    able = {name for name in method_names() if texts or not get_method(name).reads_text}
    assert {path.name.removesuffix("-seed0.json") for path in (tmp_path / "compared" / "runs").iterdir()} == able


def test_the_table_of_models_has_every_size_with_published_weights(repository: Path) -> None:
    page = (repository / "docs" / "backbones.md").read_text(encoding="utf-8")
    published = [name for name in IMAGE_SIZES if not name.endswith("_demo") and "micro" not in name]  # of other tests
    assert [name for name in published if f"`{name}`" not in page] == []
