"""The probe of real hearts on features whose answer is known, and outlines on grids whose cost is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from _real_hearts import ejection, from_masks, probing
from _real_hearts.features import encoder, pooled
from _real_hearts.frame_choices import of_pairs
from _real_hearts.grids import Grid, Truth, round_trip
from _real_hearts.outlines import by_place, decoder, outlined
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import VENDORS
from monai_fedlora.networks.catalogue import demo_weights
from monai_fedlora.transforms.orientation import all_orders

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(5), 16)


def two_groups(distance: float, *, cases: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Normal features of unit variance, their means so far apart along one direction of all."""
    labels = np.repeat([0, 1], cases // 2)
    features = RNG.normal(size=(cases, width))
    features[labels == 1] += distance / np.sqrt(width)
    return features, labels


@pytest.mark.slow
def test_two_normal_groups_are_told_apart_as_well_as_they_can_be() -> None:
    features, labels = two_groups(2.0, cases=600, width=3)
    chances = probing.out_of_fold(features, labels, repeats=1)
    found = probing.auroc(chances[0, :, 1], labels == 1)
    assert found == pytest.approx(norm.cdf(2.0 / np.sqrt(2)), abs=0.025)
    assert probing.balanced_accuracy(chances[0], labels) == pytest.approx(norm.cdf(1.0), abs=0.04)


@pytest.mark.slow
def test_permuted_labels_give_chance_though_there_are_more_features_than_patients() -> None:
    features = RNG.normal(size=(80, 192)) + 10 * LABELS[:, None]
    permuted = [RNG.permutation(LABELS) for _ in range(3)]
    scores = [probing.balanced_accuracy(probing.out_of_fold(features, each, repeats=1)[0], each) for each in permuted]
    assert np.mean(scores) == pytest.approx(0.2, abs=0.1)
    assert probing.balanced_accuracy(probing.out_of_fold(features, LABELS, repeats=1)[0], LABELS) > 0.9


def test_a_case_is_predicted_by_a_model_that_has_not_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.arange(80.0)[:, None]  # a case is known by its only feature
    seen: list[set[float]] = []

    class Model:
        def __init__(self, train: np.ndarray) -> None:
            self.train = set(train[:, 0].tolist())

        def predict_proba(self, test: np.ndarray) -> np.ndarray:
            seen.append(set(test[:, 0].tolist()))
            assert not self.train & seen[-1]
            assert len(self.train) == 64
            return np.full((len(test), 5), 0.2)

    monkeypatch.setattr(probing, "fitted", lambda x, y, *, seed: Model(x))
    assert (probing.out_of_fold(features, LABELS, repeats=2) == 0.2).all()
    assert len(seen) == 10


def test_the_penalty_is_chosen_among_training_cases_and_the_model_is_that_of_scikit_learn() -> None:
    features = RNG.normal(size=(60, 90))
    features[:, 0] += 2 * LABELS[:60]
    found = probing.fitted(features, LABELS[:60], seed=0)
    chosen = float(np.ravel(found[-1].C_)[0])
    assert chosen in probing.PENALTIES
    plain = make_pipeline(StandardScaler(), LogisticRegression(C=chosen, class_weight="balanced", max_iter=5000))
    other = RNG.normal(size=(7, 90))
    expected = plain.fit(features, LABELS[:60]).predict_proba(other)
    assert found.predict_proba(other) == pytest.approx(expected, abs=2e-3)


def test_figures_are_those_of_their_definitions() -> None:
    labels = np.array([0, 0, 1, 1, 1, 1])
    chances = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.6, 0.4]])
    assert probing.balanced_accuracy(chances, labels) == pytest.approx((0.5 + 0.75) / 2)
    assert probing.auroc(np.array([1.0, 3.0, 3.0, 4.0, 0.0, 5.0]), labels == 1) == pytest.approx(5.5 / 8)


def test_the_interval_is_that_of_the_binomial_share(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, hit = np.zeros(100, dtype=int), np.arange(100) < 70
    chances = np.stack([hit, ~hit], axis=1).astype(float)
    found = probing.with_interval(probing.balanced_accuracy, np.stack([chances] * 2), labels)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 100)
    assert found.value == pytest.approx(0.7)
    assert (found.low, found.high) == pytest.approx((0.7 - half, 0.7 + half), abs=0.02)


def test_a_predicted_class_that_the_other_collection_lacks_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def predict_proba(self, test: np.ndarray) -> np.ndarray:
            return np.eye(5)[[0, 1, 2, 4]]

    monkeypatch.setattr(probing, "fitted", lambda x, y, *, seed: Model())
    monkeypatch.setattr(probing, "RESAMPLES", 3)
    nothing = np.zeros((4, 1))
    found = probing.transfer(np.zeros((80, 1)), LABELS, nothing, np.array([0, 1, 2, 3]))
    assert found.balanced_accuracy.value == 0.75


def test_pooled_tokens_over_all_orders_are_the_same_in_every_order() -> None:
    torch.manual_seed(0)
    network = encoder(size="tiny", weights=None, seed=0)
    image = torch.rand(2, 32, 32, 2)
    turned = all_orders(image)[[0, 5]]
    lost = torch.tensor([True, True])
    alone, _ = pooled(network, turned, ~lost, blocks=(1,))
    one, other = pooled(network, turned, lost, blocks=(1,))
    assert one == pytest.approx(other, abs=1e-5)
    assert alone != pytest.approx(one, abs=1e-5)
    assert len(one) == 4 * 16


def heart(spacing: float = 1.5, slices: int = 6) -> Truth:
    """A beating heart in a stack of world axes: a pool in a ring of muscle, and a second pool beside it."""
    x, y = np.meshgrid(np.arange(120) * spacing - 90, np.arange(128) * spacing - 96, indexing="ij")
    mask = np.zeros((2, 120, 128, slices), dtype=np.uint8)
    for frame, radius in enumerate((25, 17)):
        away = np.hypot(x, y)
        mask[frame][(np.hypot(x + 45, y) < radius - 5)] = 3
        mask[frame][away < radius + 9] = 2
        mask[frame][away < radius] = 1
    affine = torch.diag(torch.tensor([spacing, spacing, 10.0, 1.0], dtype=torch.float64))
    image = torch.from_numpy(np.choose(mask, [0.1, 1.0, 0.3, 1.0]).astype(np.float32))
    return Truth(image=image, mask=mask, affine=affine, labelled=(True, True, True, True), oriented=True)


def test_a_grid_that_holds_the_files_voxels_costs_nothing_and_a_short_one_costs_the_slices_it_lacks() -> None:
    truth = heart()
    assert (round_trip(truth, Grid.read("128x128x8@1.5x1.5x10")) == truth.mask).all()
    short = round_trip(truth, Grid.read("128x128x4@1.5x1.5x10"))
    assert (short[..., 1:5] == truth.mask[..., 1:5]).all()
    assert not short[..., [0, 5]].any()
    coarse = round_trip(truth, Grid.read("48x48x8@3.3x3.3x10"))
    for value in (1, 2, 3):
        assert (coarse == value).sum() == pytest.approx((truth.mask == value).sum(), rel=0.04)
        assert (coarse[truth.mask == value] == value).mean() > 0.9


def test_slices_are_counted_from_the_end_with_more_blood() -> None:
    truth = heart()
    truth.mask[..., 0] = np.where(truth.mask[..., 0] == 3, 0, truth.mask[..., 0])  # no right ventricle: the apex
    found = truth.mask.copy()
    found[..., :2] = 0
    rows = by_place(found, truth)
    assert set(rows["apex", "LV"]) == {0.0}
    assert set(rows["base", "LV"]) == set(rows["mid", "RV"]) == {1.0}
    assert len(rows["apex", "RV"]) == 2


def test_numbers_of_a_mask_are_those_of_its_shape() -> None:
    truth = heart()
    found = from_masks.numbers(truth.mask, truth.spacing)
    assert found["volumes"][0] == pytest.approx(np.pi * 25**2 * 60 / 1000, rel=0.02)
    assert found["volumes"][10] == pytest.approx(100 * (1 - 17**2 / 25**2), abs=1)
    assert found["volumes_and_wall"][12] == pytest.approx(9, abs=0.5)
    assert len(found["volumes"]) + 8 == len(found["volumes_and_wall"])


@pytest.mark.parametrize("text", ["48x48x8@3.3x3.3x10", "96x96x10@2x2x10"])
def test_a_grid_is_written_as_it_is_read(text: str) -> None:
    assert str(Grid.read(text)) == text


@pytest.mark.slow
def test_end_diastole_of_two_frames_is_told_in_either_order() -> None:
    patient = make_patient("NOR", VENDORS["A"], 3)
    frames = [patient.ed_frame, patient.es_frame]
    truth = Truth(
        image=torch.from_numpy(patient.image[frames].transpose(0, 3, 2, 1).astype(np.float32)),
        mask=patient.mask[frames].transpose(0, 3, 2, 1),
        affine=torch.diag(torch.tensor([*patient.spacing, 1.0], dtype=torch.float64)),
        labelled=(True, True, True, True),
        oriented=True,
    )
    found = of_pairs([truth], None, Grid(image_size=(48, 48, 8), spacing=(3.3, 3.3, 10.0)))
    assert found == {"questions": 2, "grey_levels": 2, "true_volumes": 2}


@pytest.mark.slow
def test_outlines_of_a_heart_without_orientation_turn_with_it() -> None:
    weights = demo_weights("tall")
    assert weights is not None
    network, grid = decoder(size="tall", weights=weights), Grid(image_size=(48, 48, 12), spacing=(3.3, 3.3, 10.0))
    truth = dataclasses.replace(heart(spacing=3.3, slices=10), oriented=False)
    back = dataclasses.replace(truth, image=truth.image.flip(3), mask=np.flip(truth.mask, 3))
    found, turned = outlined(network, truth, grid), np.flip(outlined(network, back, grid), 3)
    assert found.any()
    assert (found != turned).mean() < 1e-3
    known = [dataclasses.replace(one, oriented=True) for one in (truth, back)]
    assert (outlined(network, known[0], grid) != np.flip(outlined(network, known[1], grid), 3)).mean() > 1e-3


def test_an_error_of_an_ejection_fraction_is_taken_apart() -> None:
    """100 and 50 pixels of two slices in truth; ED right, at ES one slice lost and the other outlined too small."""
    truth, found = np.zeros((2, 10, 10, 2), dtype=np.uint8), np.zeros((2, 10, 10, 2), dtype=np.uint8)
    truth[0, :, :5], found[0, :, :5] = 1, 1
    truth[1, :, :2, 0], truth[1, :, :3, 1] = 1, 1
    found[1, :, :1, 0] = 1
    patient = Truth(
        image=torch.zeros(truth.shape),
        mask=truth,
        affine=torch.eye(4),
        labelled=(True,) * 4,
        oriented=False,
    )
    biases = {name: row["bias"] for name, row in ejection.parts([found], [patient]).items()}
    assert biases == {
        "nothing": 40.0,
        "end_systole": 0.0,
        "end_diastole": 40.0,
        "whether_a_slice_has_a_ventricle": 10.0,
        "area_of_slices_that_both_outline": 30.0,
    }
