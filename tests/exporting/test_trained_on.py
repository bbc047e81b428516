"""From images to answers: what a model was trained on is said by everything that is made of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.cli import main
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import phantom_data
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.files import read_json

BUNDLE = "image_2d_fedopal_classification"
CLASSES = "NV,MEL"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of synthetic photographs that were stored again, so that no mark tells what they are."""
    few = PhotoPhantomSettings(training=24, validation=6, test=8, size=64, classes=("NV", "MEL"))
    source = phantom_data("site-1", phantom="dermoscopy", settings=few).parent
    folder = tmp_path_factory.mktemp("photographs")
    rows = []
    datalist = read_json(source / "datalist.json")
    for split in ("training", "validation", "test"):
        for case in datalist[split]:
            with Image.open(source / "images" / case["image"]) as image:
                Image.fromarray(np.array(image)).save(folder / case["image"], quality=95)
            rows.append((case["subject"], case["group"], case["unit"], case["image"]))
    with (folder / "ward.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("subject", "label", "unit", "image"), *rows])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--synthetic",)], ids=["real", "synthetic"])
def test_the_whole_path_says_what_was_trained_on(
    photographs: Path, tmp_path: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "synthetic" if options else "real"
    data, job, work, bundle = (tmp_path / name for name in ("D", "J", "W", "B"))
    table = ["--source", str(photographs / "ward.csv"), "--dataset-name", "ward 7", "--classes", CLASSES]
    assert main(["data", "csv", *table, "--site", "here", "--output", str(data), *options]) == 0
    assert read_json(data / "here" / "datalist.json")["source"] == {"kind": kind, "name": "ward 7", "source": None}
    settings = ["--bundle", BUNDLE, "--size", "vit_demo", "--classes", CLASSES, "--sites", "here", "--rounds", "1"]
    assert main(["job", "dual_lora", "--output", str(job), *settings]) == 0
    assert main(["simulate", str(job), "--workspace", str(work), "--data", str(data), "--in-process"]) == 0
    assert read_json(work / "results.json")["training_data"]["sites"] == {"here": kind}
    assert main(["report", str(work)]) == 0
    assert "ward 7" in (work / "report.html").read_text()
    assert main(["export", "--run", str(work), "--site", "here", "--output", str(bundle), "--no-pt2"]) == 0
    said = read_json(bundle / "configs" / "metadata.json")["training_data"]
    assert (said["kind"], said["name"]) == (kind, "ward 7")
    assert said["backbone"]["kind"] == "synthetic"
    assert "ward 7" in (bundle / "docs" / "README.md").read_text()
    assert check_bundle(bundle).findings == ()
    assert open_bundle(bundle).trust.origin.kind == kind

    image = next(photographs.glob("*.jpg"))
    output = tmp_path / "P"
    assert main(["predict", str(bundle), str(image), "--output", str(output), "--no-overlay"]) == 0
    (answer,) = (json.loads(path.read_text()) for path in (output / "studies").iterdir())
    assert answer["trained_on"]["kind"] == kind
    assert any("synthetic images" in doubt for doubt in answer["doubts"]) == (kind == "synthetic")
    with (output / "predictions.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert f"trained on {kind} images (ward 7)" in row["trained_on"]
    assert f"trained on {kind} images (ward 7)" in capsys.readouterr().out
    shared = tmp_path / "S"
    assert main(["export", "--run", str(work), "--site", "shared", "--output", str(shared), "--no-pt2"]) == 0
    assert read_json(shared / "configs" / "metadata.json")["training_data"]["kind"] == kind
