"""The package that `docs/plugins.md` shows is one: built, installed beside this one, and run in NVFlare's simulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_fedlora.cli import main
from monai_fedlora.files import read_json, save_tensors
from monai_fedlora.networks.catalogue import build_backbone

DIAGNOSES, COLLECTIONS = ("mel", "nv"), ("rosendahl", "vidir_modern")


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """Has the installed package in ``site``, and a small copy of its data set in ``ham``."""
    shutil.copytree(repository / "docs" / "examples" / "plugin", tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", "wheels", "./source"]
    subprocess.run([*pip, *wheels], cwd=tmp_path, check=True)
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-index", "--target", "site", str(wheel)], cwd=tmp_path, check=True
    )
    lines, generator = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"], np.random.default_rng(0)
    (tmp_path / "ham" / "HAM10000_images_part_1").mkdir(parents=True)
    for number in range(24):
        name, pixels = f"ISIC_{number:07}", generator.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ham" / "HAM10000_images_part_1" / f"{name}.jpg")
        lines.append(f"HAM_{number},{name},{DIAGNOSES[number % 2]},histo,60,female,back,{COLLECTIONS[number // 12]}")
    (tmp_path / "ham" / "HAM10000_metadata.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.slow
def test_the_example_is_built_installed_trusted_and_run(
    folder: Path, looked_up_anew: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder / "site")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # of the simulator's processes
    state = build_backbone("monai_vit_tiny", out_chans=2).module.state_dict()
    save_tensors("vit.safetensors", {key: value for key, value in state.items() if "classification_head" not in key})
    options = ["--source", "ham", "--output", "prepared", "--classes", ",".join(DIAGNOSES)]
    assert main(["data", "ham10000", *options]) == 0
    names = ["--size", "monai_vit_tiny", "--backbone", "vit.safetensors", "--bundle", "image_2d_fedopal_classification"]
    sites = ["--sites", ",".join(COLLECTIONS), "--classes", ",".join(DIAGNOSES), "--rounds", "1"]
    assert main(["job", "rolora", "--output", "job", *names, *sites, "--set", "batch_size=4"]) == 0
    assert read_json("job/app/config/plan.json")["plugins"] == {"fedlora-example": "0.1"}

    run = ["simulate", "job", "--workspace", "run", "--data", "prepared", "--backbone", "vit.safetensors"]
    assert main(run) == 2
    assert "--plugins fedlora-example" in capsys.readouterr().err
    assert not Path("run").exists()

    few = ["--least-cases", "1", "--least-steps", "1"]
    assert main(["policy", "--output", "local", "--plugins", "fedlora-example", *few]) == 0
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", str(folder / "local" / "policy.json"))
    assert main(run) == 0
    results = read_json("run/results.json")
    assert (results["status"], results["refused"], set(results["final"])) == ("finished", [], set(COLLECTIONS))

    export = ["--no-pt2", "--no-statistics", "--backbone", "vit.safetensors"]  # compares what it wrote, and checks it
    assert main(["export", "--run", "run", "--site", "rosendahl", "--output", "bundle", *export]) == 0
