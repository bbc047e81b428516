"""The distance from public cases, which a shared model may have in place of one from its sites' patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.clinic.trust import read_trust
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting import bundle_export
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.directions import PublicFeatures
from monai_fedlora.exporting.measured import shipped_numbers
from monai_fedlora.exporting.public_images import public_images
from monai_fedlora.exporting.public_reference import fit_public_reference

from .finished_runs import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


def features(n: int, *, seed: int, shift: float = 0.0) -> Tensor:
    mixing = torch.randn(6, 6, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) @ mixing + 3 + shift


def public(cases: int = 60) -> PublicFeatures:
    """Phantoms of two devices, and cases that lie elsewhere."""
    return PublicFeatures(
        ordinary={
            "phantom 1": features(32, seed=1),
            "phantom 2": features(32, seed=2, shift=1.0),
            "public a": features(cases, seed=3, shift=6.0),
        },
        foreign={"noise": 5 * features(20, seed=4)},
    )


def test_limit_keeps_what_is_like_the_public_cases_and_nothing_like_phantoms() -> None:
    found = fit_public_reference(public(), ["public a"], description="made for tests")
    further = found.distances(features(2000, seed=5, shift=6.0))
    assert 0.85 < float((further <= found.threshold).float().mean()) < 0.995
    assert float((found.distances(features(500, seed=6)) > found.threshold).float().mean()) > 0.95
    assert found.cases == 60


def test_few_public_cases_give_no_distance() -> None:
    with pytest.raises(ExportError, match="19 cases are public"):
        fit_public_reference(public(19), ["public a"], description="")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three public sites; their images are the noise that the fixtures take for phantoms."""

    def found(phantom: str, *, prepared: Path | None = None) -> Any:
        images = public_images(phantom)
        groups = {f"public {name}": list for name in "abc"} if prepared else {}
        return replace(images, ordinary={**images.ordinary, **groups}, cases=tuple(groups))

    monkeypatch.setattr(bundle_export, "public_images", found)
    return Path("public")


@pytest.mark.slow
def test_shared_bundle_measures_from_public_cases_alone(run: Run, published: Path, tmp_path: Path) -> None:
    kept = set(run.workspace.rglob("reference.safetensors"))
    exported = export_bundle(**run.options(tmp_path / "B", "shared", program=False, public=published))
    entry = exported.metadata["out_of_distribution"]
    assert (entry["available"], entry["public_cases"]) == (True, 24)
    assert not {"noise", "patients", "training_cases"} & set(entry)
    assert "24 public cases" in (exported.folder / "docs" / "README.md").read_text()
    assert set(run.workspace.rglob("reference.safetensors")) == kept
    classifier = open_bundle(exported.folder)
    threshold = classifier.trust.ood_threshold
    assert threshold is not None
    assert (threshold.public, threshold.cases, threshold.limit) == (True, 24, entry["threshold"])
    assert "24 public cases" in threshold.doubts(threshold.limit + 1)[0]
    assert any("24 public cases" in note for note in classifier.trust.notes)
    assert not [note for note in classifier.trust.blind if "unusual" in note]
    _, distance = classifier.assess(100 * torch.rand(2, 40, 37, 5, generator=torch.Generator().manual_seed(0)))
    assert distance is not None
    held = {"directions": torch.zeros(6, 3), "location": torch.zeros(3)}
    shipped = shipped_numbers(exported.metadata, held)
    assert (shipped.vectors, shipped.threshold) == ((), None)


@pytest.mark.slow
def test_shared_bundle_without_public_cases_says_what_it_would_take(run: Run, tmp_path: Path) -> None:
    exported = export_bundle(**run.options(tmp_path / "B", "shared", program=False))
    entry = exported.metadata["out_of_distribution"]
    assert not entry["available"]
    assert "--public-data" in entry["reason"]
    assert any("--public-data" in note for note in read_trust(exported.metadata).blind)
