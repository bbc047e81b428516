"""The distance from the training cases: the formula, the threshold, and who gets to see it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import mahalanobis
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.export.bundle import Exported, export_bundle
from monai_fedlora.export.card import distance_lines
from monai_fedlora.export.evidence import Evidence
from monai_fedlora.export.finished import read_finished
from monai_fedlora.export.reference import QUANTILE, distances, fit_reference, unavailable
from monai_fedlora.networks.head_inputs import head_inputs, joined

from .conftest import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


def features(n: int, *, seed: int = 0, dim: int = 6, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, dim, generator=generator) @ mixing + 3 + shift


def shrunk_covariance(values: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf's estimate, term by term as in their paper."""
    centred = values - values.mean(axis=0)
    n, dim = centred.shape
    sample = centred.T @ centred / n
    target = np.trace(sample) / dim * np.eye(dim)
    distance = ((sample - target) ** 2).sum() / dim
    spread = sum(((np.outer(row, row) - sample) ** 2).sum() / dim for row in centred) / n**2
    share = min(spread, distance) / distance
    return share * target + (1 - share) * sample


@given(n=st.integers(20, 80), dim=st.integers(2, 30), seed=st.integers(0, 99))
def test_distances_are_mahalanobis_with_the_shrunk_covariance(n: int, dim: int, seed: int) -> None:
    training, new = features(n, seed=seed, dim=dim), features(5, seed=seed + 1000, dim=dim, shift=2.0)
    found = fit_reference(Evidence(features={"training": training}))
    values = training.double().numpy()
    inverse = np.linalg.inv(shrunk_covariance(values))
    expected = [mahalanobis(row, values.mean(axis=0), inverse) for row in new.double().numpy()]
    assert distances(new, found.mean, found.precision).tolist() == pytest.approx(expected, rel=1e-3)


def test_about_the_stated_share_of_similar_cases_lies_within_the_threshold() -> None:
    shares = []
    for seed in range(20):
        found = fit_reference(
            Evidence(features={"training": features(100, seed=seed), "validation": features(40, seed=seed + 100)})
        )
        new = distances(features(500, seed=seed + 200), found.mean, found.precision)
        shares.append(float((new <= found.threshold).float().mean()))
        assert float((distances(features(50, shift=30.0), found.mean, found.precision) > found.threshold).min()) == 1
        assert (found.training_cases, found.validation_cases) == (100, 40)
    assert math.fsum(shares) / len(shares) == pytest.approx(QUANTILE, abs=0.02)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (Evidence(missing="nothing was kept"), "nothing was kept"),
        (Evidence(), "0 training cases"),
        (Evidence(features={"training": features(19)}), "19 training cases with features, fewer than 20"),
        (Evidence(features={"training": torch.ones(30, 4)}), "sees training cases alike"),
    ],
)
def test_too_little_gives_no_reference(evidence: Evidence, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        fit_reference(evidence)
    assert message in distance_lines(unavailable(message))[0]


def test_the_script_tells_logits_and_distance(image_exported: Exported, image_run: Run) -> None:
    script = torch.jit.load(image_exported.folder / "models" / "model.ts")
    described = image_exported.metadata["out_of_distribution"]
    reference = fit_reference(read_finished(image_run.workspace, "site-1").evidence)
    raw, network = torch.rand(3, 3, 40, 52), image_run.networks["site-1"]
    with torch.no_grad(), head_inputs(network) as inputs:
        logits, found = script.assess(raw)
        network(script.preprocessor(raw))
    torch.testing.assert_close(logits, script(raw))
    expected = distances(joined(inputs), reference.mean, reference.precision)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert described["threshold"] == reference.threshold > 0
    assert (described["available"], described["training_cases"], described["validation_cases"]) == (True, 40, 60)
    assert f"{reference.threshold:.4g}" in (image_exported.folder / "docs" / "README.md").read_text()


def holds_statistics(folder: Path) -> bool:
    script = torch.jit.load(io.BytesIO((folder / "models" / "model.ts").read_bytes()))
    return hasattr(script, "assess") or any("precision" in name for name, _ in script.named_buffers())


def test_only_a_personal_model_holds_statistics(exported: Exported, run: Run, tmp_path: Path) -> None:
    assert holds_statistics(exported.folder)
    shared = export_bundle(**run.options(tmp_path / "shared", "shared", program=False))
    without = export_bundle(**run.options(tmp_path / "without", program=False, statistics=False))
    for found, reason in ((shared, "is of no site's cases"), (without, "left out")):
        assert not holds_statistics(found.folder)
        assert found.metadata["out_of_distribution"] == {
            "available": False,
            "reason": found.metadata["out_of_distribution"]["reason"],
        }
        assert reason in found.metadata["out_of_distribution"]["reason"]
    assert shared.metadata["calibration"]["temperature"] == 1.0


def test_weights_and_program_hold_no_statistics(exported: Exported, stored_run: Run) -> None:
    reference = fit_reference(read_finished(stored_run.workspace, "site-1").evidence)
    program = torch.export.load(str(exported.folder / "models" / "model.pt2"))
    weights = torch.load(exported.folder / "models" / "model.pt", weights_only=True)
    tensors = [*program.state_dict.values(), *program.constants.values(), *weights.values()]
    assert len(tensors) > 50
    for secret in (reference.mean, reference.precision):
        assert not [1 for value in tensors if value.shape == secret.shape and torch.allclose(value, secret)]


def test_a_run_of_an_earlier_version_exports_as_before(make_image_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_image_run(evidence=False, sites=("site-1",))
    found = export_bundle(**run.options(tmp_path / "B", program=False))
    assert "kept no predictions" in found.metadata["calibration"]["reason"]
    assert "kept no predictions" in found.metadata["out_of_distribution"]["reason"]
    assert not holds_statistics(found.folder)
    raw = torch.rand(2, 3, 40, 52)
    script = torch.jit.load(found.folder / "models" / "model.ts")
    with torch.no_grad():
        expected = run.networks["site-1"](script.preprocessor(raw))
        torch.testing.assert_close(script(raw), expected, rtol=0, atol=1e-5)
