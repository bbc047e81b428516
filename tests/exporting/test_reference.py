"""The distance from a site's patients: the formula, the noise, the threshold, and who gets to see it."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.directions import QUANTILE, PublicFeatures, find_directions
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.kept_reference import NAME, kept_reference
from monai_fedlora.exporting.model_card import filled
from monai_fedlora.exporting.private_statistics import Budget
from monai_fedlora.exporting.reference import Reference, check_patients, fit_reference, noise_generator, unavailable
from monai_fedlora.files import load_tensors
from monai_fedlora.networks.head_inputs import head_inputs, joined

from .finished_runs import Run

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


def features(n: int, *, seed: int = 0, dim: int = 6, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99))
    return torch.randn(n, dim, generator=generator) @ mixing + 3 + shift


def public(dim: int = 6) -> PublicFeatures:
    return PublicFeatures(
        ordinary={str(device): features(32, seed=1000 + device, dim=dim, shift=device) for device in range(3)},
        foreign={"noise": features(20, seed=2000, dim=dim) * 5},
    )


def fitted(evidence: Evidence, *, seed: int = 0, rho: float = 1.0) -> Reference:
    if not evidence.units:
        units = {split: torch.arange(len(images)) for split, images in evidence.features.items()}
        evidence = replace(evidence, units=units)
    budget = Budget(mean=0.75 * rho, quantile=0.25 * rho)
    generator = torch.Generator().manual_seed(seed)
    return fit_reference(evidence, public(), description="made for tests", generator=generator, budget=budget)


def test_distances_are_euclidean_in_the_directions() -> None:
    found, new = fitted(Evidence(features={"training": features(80)})), features(5, seed=1000, shift=2.0)
    moved = new.double().numpy() @ found.directions.double().numpy() - found.location.double().numpy()
    assert found.distances(new).tolist() == pytest.approx(np.linalg.norm(moved, axis=1), rel=1e-4)


def test_without_noise_the_location_is_the_mean_of_patients_and_not_of_images() -> None:
    images = features(90)
    units = torch.tensor([*range(30), *[0] * 60])  # the first patient has 61 images
    found = fitted(Evidence(features={"training": images}, units={"training": units}), rho=1e12)
    patients = torch.cat([torch.cat([images[:1], images[30:]]).mean(dim=0, keepdim=True), images[1:30]])
    torch.testing.assert_close(found.location, patients.mean(dim=0) @ found.directions, rtol=1e-3, atol=1e-3)
    assert (found.patients, found.training_cases) == (30, 90)


@pytest.mark.slow
def test_about_the_stated_share_of_similar_patients_lies_within_the_threshold_and_others_do_not() -> None:
    shares, far = [], []
    for seed in range(40):
        evidence = Evidence(
            features={"training": features(100, seed=seed), "validation": features(40, seed=seed + 100)}
        )
        found = fitted(evidence, seed=seed)
        shares.append(float((found.distances(features(500, seed=seed + 200)) <= found.threshold).float().mean()))
        far.append(float((found.distances(features(50, shift=30.0)) > found.threshold).float().mean()))
        assert (found.training_cases, found.validation_cases, found.patients) == (100, 40, 140)
    assert math.fsum(shares) / len(shares) == pytest.approx(QUANTILE, abs=0.03)
    assert min(far) == 1


def test_nothing_that_is_shipped_is_a_number_of_one_patient() -> None:
    """With the exact mean and threshold both are found among what the patients give; with noise they are not."""
    evidence = Evidence(features={"training": features(44)})
    exact, noisy = fitted(evidence, rho=1e12), fitted(evidence)
    distances = exact.distances(features(44))
    assert float((exact.location - features(44).mean(dim=0) @ exact.directions).abs().max()) < 1e-3
    assert float((noisy.location - features(44).mean(dim=0) @ noisy.directions).abs().max()) > 0.05
    assert float((distances - noisy.threshold).abs().min()) > 1e-4


def test_the_same_generator_draws_the_same_noise_and_another_does_not() -> None:
    evidence = Evidence(features={"training": features(44)})
    assert torch.equal(fitted(evidence, seed=1).location, fitted(evidence, seed=1).location)
    assert not torch.equal(fitted(evidence, seed=1).location, fitted(evidence, seed=2).location)
    directions, budget = find_directions(public()), Budget()
    draws = {float(torch.rand((), generator=noise_generator(None, directions, budget))) for _ in range(8)}
    assert len(draws) == 8


def test_copies_of_a_run_draw_the_same_noise_for_the_same_release_alone() -> None:
    images = features(44)
    evidence = Evidence(features={"training": images}, units={"training": torch.arange(44)}, noise_key="secret")

    def drawn(evidence: Evidence, found: PublicFeatures, budget: Budget | None = None) -> Tensor:
        return fit_reference(evidence, found, description="made for tests", budget=budget).location

    found = drawn(evidence, public())
    others = PublicFeatures(ordinary=public().ordinary, foreign={"noise": features(20, seed=3) * 5})
    directions, noise = find_directions(others), []
    for of in (find_directions(public()), directions):
        noise.append(torch.rand(2, generator=noise_generator("secret", of, Budget())))
    assert torch.equal(found, drawn(evidence, public()))
    assert not torch.equal(found, drawn(replace(evidence, noise_key="another"), public()))
    assert not torch.equal(found, drawn(evidence, public(), Budget(mean=0.5)))
    assert not torch.equal(*noise)


def test_no_guarantee_is_given_for_patients_who_are_not_known() -> None:
    """A run of an earlier version: forty photographs may be of two patients."""
    units = {"training": torch.arange(40)}
    for known in ({}, units):
        evidence = Evidence(features={"training": features(40), "validation": features(9)}, units=known)
        with pytest.raises(ExportError, match=r"did not keep which .*validation images are of one patient"):
            check_patients(evidence)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (Evidence(missing="nothing was kept"), "nothing was kept"),
        (Evidence(), "0 training and validation patients"),
        (Evidence(features={"training": features(19)}), "19 training and validation patients with features, fewer"),
        (
            Evidence(features={"training": features(40)}, units={"training": torch.arange(40) // 3}),
            "14 training and validation patients",
        ),
    ],
)
def test_too_little_gives_no_reference(evidence: Evidence, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        fitted(evidence)
    assert message in filled("unusual_images.md", reference=unavailable(message))


def test_the_script_tells_logits_and_distance(image_exported: Exported, image_run: Run) -> None:
    script = torch.jit.load(image_exported.folder / "models" / "model.ts")
    described = image_exported.metadata["out_of_distribution"]
    reference = kept(image_run)
    raw, network = torch.rand(3, 3, 40, 52), image_run.networks["site-1"]
    with torch.no_grad(), head_inputs(network) as inputs:
        logits, found = script.assess(raw)
        network(script.preprocessor(raw))
    torch.testing.assert_close(logits, script(raw))
    expected = reference.distances(joined(inputs))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert described["threshold"] == reference.threshold > 0
    assert (described["available"], described["training_cases"], described["validation_cases"]) == (True, 40, 60)
    assert f"{reference.threshold:.4g}" in (image_exported.folder / "docs" / "README.md").read_text()


def kept(run: Run) -> Reference:
    """The reference that the export of site-1 has drawn."""
    final = run.personal()
    (found,) = json.loads(load_tensors(final.with_name(NAME))[1]["references"])
    reference = kept_reference(final, found["public"])
    assert reference is not None
    return reference


def holds_statistics(folder: Path) -> bool:
    script = torch.jit.load(io.BytesIO((folder / "models" / "model.ts").read_bytes()))
    return hasattr(script, "assess") or any("location" in name for name, _ in script.named_buffers())


@pytest.mark.slow
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


@pytest.mark.slow
def test_weights_and_program_hold_no_statistics(exported: Exported, stored_run: Run) -> None:
    reference = kept(stored_run)
    program = torch.export.load(str(exported.folder / "models" / "model.pt2"))
    weights = torch.load(exported.folder / "models" / "model.pt", weights_only=True)
    tensors = [*program.state_dict.values(), *program.constants.values(), *weights.values()]
    assert len(tensors) > 50
    for secret in (reference.location, reference.directions):
        assert not [1 for value in tensors if value.shape == secret.shape and torch.allclose(value, secret)]


@pytest.mark.slow
def test_a_run_of_an_earlier_version_exports_as_before(make_image_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_image_run(evidence=False, sites=("site-1",))
    found = export_bundle(**run.options(tmp_path / "B", program=False))
    assert "kept no predictions" in found.metadata["calibration"]["reason"]
    assert "kept no predictions" in found.metadata["out_of_distribution"]["reason"]
    assert not holds_statistics(found.folder)
    raw = torch.rand(2, 3, 40, 52, generator=torch.Generator().manual_seed(0))
    script = torch.jit.load(found.folder / "models" / "model.ts")
    with torch.no_grad():
        expected = run.networks["site-1"](script.preprocessor(raw))
        torch.testing.assert_close(script(raw), expected, rtol=0, atol=1e-5)
