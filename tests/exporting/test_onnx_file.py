"""The ONNX file: onnxruntime gives the logits of the scripted model."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.errors import ConfigError, ExportError
from monai_fedlora.exporting import onnx_file
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.check.checker import check_bundle
from monai_fedlora.exporting.modalities import modality_of
from monai_fedlora.exporting.onnx_file import onnx_logits, write_onnx
from monai_fedlora.exporting.verify import TOLERANCE
from monai_fedlora.networks.catalogue import build_backbone
from monai_fedlora.transforms.orientation import reference_affine

from .finished_runs import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stored_run", "image_run"])
def test_onnxruntime_gives_the_logits_of_the_script(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    run: Run = request.getfixturevalue(kind)
    exported = export_bundle(**run.options(tmp_path / "B", onnx=True, program=False))
    script = torch.jit.load(exported.folder / "models" / "model.ts")
    path = exported.folder / "models" / "model.onnx"
    for batch in (1, 2, 3):
        raw = torch.rand(batch, *((2, 40, 37, 6) if kind == "stored_run" else (3, 50, 41)))
        with torch.no_grad():
            affines = [reference_affine((5.0, 5.0, 10.0)).expand(batch, 4, 4)] if kind == "stored_run" else []
            prepared, expected = script.preprocessor(raw, *affines), script(raw, *affines)
        torch.testing.assert_close(onnx_logits(path, prepared), expected, rtol=0, atol=TOLERANCE)
    assert check_bundle(exported.folder).passed
    content = path.read_bytes()
    assert [word for word in (b"site-packages", b"/monai_fedlora/", str(Path.home()).encode()) if word in content] == []
    assert exported.metadata["model_files"]["models/model.onnx"]["preprocessing"] is False
    assert "`models/model.onnx`, input `image`, output `pred`" in (exported.folder / "docs" / "README.md").read_text()


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    real = builtins.__import__

    def importing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in names:
            raise ImportError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", importing)


def test_missing_packages_are_named(stored_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxscript", "onnxruntime")
    network = build_backbone("micro", out_chans=2)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed; install monai-fedlora\[onnx\]"):
        write_onnx(network, modality_of(stored_run.plan), tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="onnxruntime is not installed"):
        onnx_logits(tmp_path / "model.onnx", torch.rand(1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_network_beyond_one_file_is_refused(stored_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "_LARGEST", 1000)
    with pytest.raises(ExportError, match="larger than 2 GB"):
        write_onnx(build_backbone("micro", out_chans=2), modality_of(stored_run.plan), tmp_path / "model.onnx")
