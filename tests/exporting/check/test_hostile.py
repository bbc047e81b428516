"""Bundles made to harm whoever loads them: each is refused for what it does, and none has an effect."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.cli import main
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.check.checker import check_bundle
from tests.exporting.check.hostile import CONTRADICTIONS, HOSTILE, bomb_zip, conform

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning:torch")


@pytest.fixture
def bundle(image_exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that a test may change, in a folder where an effect would show."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(image_exported.folder, tmp_path / "skin"))


def test_an_honest_bundle_passes_after_its_texts_were_brought_in_line(bundle: Path) -> None:
    conform(bundle)
    assert check_bundle(bundle).findings == ()


@pytest.mark.parametrize("change", HOSTILE)
def test_no_hostile_bundle_passes(bundle: Path, change: str) -> None:
    apply, rule, message = HOSTILE[change]
    apply(bundle)
    conform(bundle, texts=change not in CONTRADICTIONS)
    report = check_bundle(bundle)
    assert report.verdict == "refused"
    assert [f for f in report.findings if f.rule == rule and message in f.problem], report.findings
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["skin"]


def test_a_zip_with_a_bomb_is_not_unpacked(bundle: Path, tmp_path: Path) -> None:
    report = check_bundle(bomb_zip(tmp_path / "skin.zip", bundle))
    assert [finding.rule for finding in report.findings] == ["container"]
    assert "times its size" in report.findings[0].problem


EFFECTS = (
    "a storage larger than its record in the script",
    "a tensor out of its storage in the script",
    "a result written elsewhere",
    "a number for a function",
    "a value of another type",
    "an endless loop",
    "a file that is written",
    "a tensor that nobody has room for",
    "a reader that unpickles",
    "the environment in the table's header",
)


@pytest.mark.slow
@pytest.mark.parametrize("change", EFFECTS)
def test_predict_loads_no_hostile_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(torch.jit, "load", load)
    monkeypatch.setenv("SECRET", "correct-horse")
    HOSTILE[change][0](bundle)
    conform(bundle)
    assert main(["predict", str(bundle), "studies", "--output", "O"]) == 2
    printed = capsys.readouterr()
    assert "does not pass monai-fedlora check" in printed.err
    assert "correct-horse" not in printed.out + printed.err
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["skin"]
