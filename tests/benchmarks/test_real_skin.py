"""The probe of photographs keeps lesions whole, and runs on phantoms as it does on real skin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _real_skin import lesions
from _real_skin.lesions import by_lesion, centre_of, drawn, figures, out_of_fold

import monai_fedlora as fl
from tests.benchmarks.test_command_lines import loaded

GROUPS = ["MEL", "NV", "BCC"]


def centre(count: int = 90) -> lesions.Centre:
    """Two photographs of each lesion, three classes."""
    units = [f"lesion {number // 2}" for number in range(count)]
    return centre_of(range(count), [GROUPS[number // 2 % 3] for number in range(count)], units)


def test_a_class_of_few_lesions_is_left_out_however_many_photographs_it_has() -> None:
    groups = ["NV"] * 30 + ["MEL"] * 30 + ["DF"] * 30
    units = [f"u{number}" for number in range(60)] + [f"d{number % 9}" for number in range(30)]
    found = centre_of(range(100, 190), groups, units)
    assert found.classes == ("MEL", "NV") and found.rows.tolist() == list(range(100, 160))
    assert found.labels.tolist() == [1] * 30 + [0] * 30


def test_no_lesion_is_on_both_sides_of_a_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    skin, held = centre(), []

    class Model:
        def __init__(self, seen: np.ndarray) -> None:
            self.seen = set(skin.lesions[seen[:, 0].astype(int)])

        def predict_proba(self, features: np.ndarray) -> np.ndarray:
            places = features[:, 0].astype(int)
            assert not self.seen & set(skin.lesions[places])
            held.extend(places)
            return np.eye(3)[skin.labels[places]]

    monkeypatch.setattr(lesions, "fitted", lambda features, *_, **__: Model(features))
    chances = out_of_fold(np.arange(90.0)[:, None], skin)
    assert sorted(held) == list(range(90)) and np.array_equal(chances.argmax(1), skin.labels)


@pytest.mark.slow
def test_a_lesion_that_is_known_from_its_other_photograph_gives_nothing_away() -> None:
    skin = centre(180)
    features = np.random.default_rng(0).normal(size=(90, 40)).repeat(2, axis=0)  # equal for both of a lesion
    told = figures({"own": {"a": out_of_fold(features, skin)}}, {"a": skin}, against="own")
    assert told["own"]["mean"]["value"] == pytest.approx(1 / 3, abs=0.14)


def test_draws_keep_the_photographs_of_a_lesion_together_and_the_number_of_lesions_of_a_class() -> None:
    skin = centre()
    places = drawn(by_lesion(skin), np.random.default_rng(1))
    counts = np.bincount(places, minlength=90)
    assert np.array_equal(counts[::2], counts[1::2]) and counts.max() > 1
    assert np.bincount(skin.labels[places]).tolist() == np.bincount(skin.labels).tolist()


def test_differences_are_of_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lesions, "RESAMPLES", 50)
    skin = centre()
    right, wrong = np.eye(3)[skin.labels], np.eye(3)[(skin.labels + 1) % 3]
    half = np.where((skin.lesions % 2 == 0)[:, None], right, wrong)
    told = figures({"a": {"c": half}, "b": {"c": half}, "d": {"c": right}}, {"c": skin}, against="b")
    assert told["a"]["minus_b"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert told["d"]["mean"]["value"] == 1.0 and 0.3 < told["d"]["minus_b"]["low"] < told["d"]["minus_b"]["high"] < 0.7
    assert "minus_b" not in told["b"]


@pytest.mark.slow
def test_all_stages_run_on_phantoms_and_a_second_start_repeats_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skin = fl.phantom("fed_isic2019", output=tmp_path / "skin", patients=150, vendors="A", size=32)
    module = loaded("real_skin")
    settings: dict[str, Any] = {
        "size": "vit_demo", "epochs": 1, "batch_size": 32, "learning_rate": 1e-3, "untrained": 1, "limit": None,
        "threads": 1,
    }  # fmt: skip
    first = module.run(settings, source=skin, work=tmp_path / "work")
    assert set(first["balanced_accuracy"]) == {"in_domain", "packaged", "untrained_0"}
    (name, told), *others = first["centres"].items()
    assert not others and len(told["classes"]) >= 2
    assert first["unlabelled"] + told["images"] <= 150
    assert 0 <= first["balanced_accuracy"]["in_domain"][name]["value"] <= 1

    for stage in ("features", "preprocessing"):
        monkeypatch.setattr(module, stage, lambda *_, **__: pytest.fail("computed again"))
    monkeypatch.setattr(module.fl, "pretrain", lambda *_, **__: pytest.fail("trained again"))
    again = module.run(settings, source=skin, work=tmp_path / "work")
    assert again["balanced_accuracy"] == first["balanced_accuracy"]
