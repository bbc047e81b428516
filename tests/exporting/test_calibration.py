"""Temperature scaling, against a general optimiser, and where it does not make sense."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import chi2
from torch import Tensor

from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.exporting.calibration import FEWEST_CASES, SURE, calibrate, fit_temperature
from monai_fedlora.exporting.finished import read_finished
from monai_fedlora.exporting.kept_evidence import Evidence
from monai_fedlora.exporting.model_card import filled

from .finished_runs import Run


def cases(seed: int, *, n: int = 200, classes: int = 3, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits that are ``factor`` times what their labels were drawn from."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, generator=generator)
    return factor * logits, torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]


def second_implementation(logits: Tensor, labels: Tensor) -> float:
    """The same minimum by scipy, without derivatives, over log T."""
    scores, truth = logits.numpy().astype(np.float64), labels.numpy()

    def loss(log_temperature: np.ndarray) -> float:
        scaled = scores / math.exp(log_temperature[0])
        top = scaled.max(axis=1)
        partition = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((partition - scaled[np.arange(len(truth)), truth]).mean())

    found = minimize(loss, x0=[0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    return math.exp(found.x[0])


@pytest.mark.slow
@given(
    seed=st.integers(0, 999),
    n=st.integers(60, 300),
    classes=st.integers(2, 6),
    factor=st.floats(0.4, 4.0),
)
def test_the_temperature_is_that_of_a_general_optimiser(seed: int, n: int, classes: int, factor: float) -> None:
    logits, labels = cases(seed, n=n, classes=classes, factor=factor)
    assert fit_temperature(logits, labels) == pytest.approx(second_implementation(logits, labels), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_logits_that_are_too_large_get_their_factor_as_temperature(factor: float) -> None:
    assert fit_temperature(*cases(0, n=20_000, factor=factor)) == pytest.approx(factor, rel=0.05)


def test_a_temperature_of_single_precision_logits_does_not_overflow() -> None:
    logits, labels = cases(1, factor=1.0)
    assert math.isfinite(fit_temperature(logits + 1e4, labels))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cases(0, n=FEWEST_CASES - 1), "9 validation cases, fewer than 10"),
        (lambda: cases(0, n=0), "0 validation cases"),
        (lambda: (10 * torch.eye(2).repeat(20, 1), torch.arange(40) % 2), "below 0.1"),
        (lambda: (10 * torch.eye(2).repeat(20, 1), (torch.arange(40) + 1) % 2), "above 10"),
        (lambda: (torch.zeros(40, 2), torch.arange(40) % 2), "above 10"),
        (lambda: cases(3, factor=100.0), "above 10"),
        (lambda: cases(3, factor=0.01), "below 0.1"),
    ],
)
def test_what_tells_no_temperature_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ExportError, match=message):
        fit_temperature(*make())


def test_the_error_of_calibration_is_given_before_and_after() -> None:
    validation, test = cases(4, factor=3.0), cases(5, factor=3.0)
    evidence = Evidence(
        logits={"validation": validation[0], "test": test[0]}, labels={"validation": validation[1], "test": test[1]}
    )
    found = calibrate(evidence)
    assert found.reason is None
    for split, (logits, labels) in (("validation", validation), ("test", test)):
        effect = found.splits[split]
        for when, divisor in (("before", 1.0), ("after", found.temperature)):
            probabilities = (logits.double() / divisor).softmax(dim=1)
            assert effect["ece"][when] == pytest.approx(classification_metrics(probabilities, labels)["ece"], abs=5e-4)
            chosen = probabilities[torch.arange(len(labels)), labels]
            assert effect["nll"][when] == pytest.approx(-float(chosen.log().mean()), abs=5.01e-4)
        assert effect["nll"]["after"] < effect["nll"]["before"]
        assert effect["ece"]["after"] < effect["ece"]["before"]
        assert effect["n"] == 200
    text = filled("calibration.md", calibration=found.to_json())
    assert f"temperature {found.temperature:.4g}" in text
    assert f"| test | 200 | {found.splits['test']['ece']['before']:.3f} |" in text


def test_what_leaves_has_too_few_digits_to_tell_which_patients_a_mean_is_of() -> None:
    """All digits of a mean over 12 of 24 known patients are given by these 12 alone; the few that leave by many."""
    logits, labels = cases(7, n=24, factor=4.0)
    members = torch.arange(24) % 2 == 0
    evidence = Evidence(
        logits={"validation": logits[members].repeat(4, 1)}, labels={"validation": labels[members].repeat(4)}
    )
    found = calibrate(evidence)
    numbers = [found.splits["validation"][name][when] for name in ("ece", "nll") for when in ("before", "after")]
    assert found.temperature == float(f"{found.temperature:.3g}") != 1.0
    assert all(number == round(number, 3) for number in numbers)


def of_validation(logits: Tensor, labels: Tensor) -> Evidence:
    return Evidence(logits={"validation": logits}, labels={"validation": labels})


@pytest.mark.slow
def test_a_temperature_that_may_be_chance_is_not_used() -> None:
    used = [calibrate(of_validation(*cases(seed, n=50))) for seed in range(100)]
    assert sum(found.reason is None for found in used) == pytest.approx(0.05 * 100, abs=5)
    for found in used:
        assert (found.temperature == 1.0) == (found.reason is not None)
        assert found.reason is None or "do not tell the best temperature" in found.reason
    assert all(calibrate(of_validation(*cases(seed, n=50, factor=4.0))).reason is None for seed in range(20))
    logits, labels = cases(0, n=80, factor=1.5)
    gain = sum(
        float(torch.nn.functional.cross_entropy(logits.double() / divisor, labels, reduction="sum")) * sign
        for divisor, sign in ((1.0, 1), (fit_temperature(logits, labels), -1))
    )
    assert (calibrate(of_validation(logits, labels)).reason is None) == (2 * gain > chi2.ppf(0.95, df=1))
    assert chi2.ppf(0.95, df=1) == pytest.approx(SURE)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (Evidence(missing="nothing was kept"), "nothing was kept"),
        (Evidence(), "no validation cases"),
        (Evidence(logits={"test": torch.zeros(30, 2)}, labels={"test": torch.zeros(30)}), "no validation cases"),
        (Evidence(logits={"validation": torch.zeros(3, 2)}, labels={"validation": torch.zeros(3)}), "3 validation"),
    ],
)
def test_without_a_fit_the_temperature_is_one_and_says_why(evidence: Evidence, message: str) -> None:
    found = calibrate(evidence)
    assert found.temperature == 1.0
    assert message in str(found.reason)
    assert message in filled("calibration.md", calibration=found.to_json())
    for effect in found.splits.values():
        assert effect["ece"]["before"] == effect["ece"]["after"]


def test_every_file_of_an_export_gives_calibrated_logits(exported: Exported, stored_run: Run) -> None:
    model = read_finished(stored_run.workspace, "site-1")
    expected = fit_temperature(model.evidence.logits["validation"], model.evidence.labels["validation"])
    expected = float(f"{expected:.3g}")
    described = exported.metadata["calibration"]
    assert described["temperature"] == expected and described["fitted"] is True and described["validation"]["n"] == 60
    script = torch.jit.load(exported.folder / "models" / "model.ts")
    prepared = torch.rand(2, 2, 32, 32, 4)
    with torch.no_grad():
        plain = stored_run.networks["site-1"](prepared)
        torch.testing.assert_close(script.network(prepared), plain / expected, rtol=0, atol=1e-5)
    assert "The probabilities were calibrated" in " ".join(exported.metadata["limitations"])
    assert "## Calibration" in (exported.folder / "docs" / "README.md").read_text()
