from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import Dataset

from monai_fedlora.engines import noised_trainer
from monai_fedlora.engines.dataset import CaseDataset, case_loader
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.noised_trainer import NoisedTrainer, PoissonSampler
from monai_fedlora.engines.optimizer import adamw
from monai_fedlora.engines.schedule import WarmupCosine
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.errors import ConfigError, PrivacyError
from monai_fedlora.methods import METHODS, get_method
from monai_fedlora.methods.base import Method
from monai_fedlora.privacy.clipping import clipped_sum
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.randomness import Randomness
from monai_fedlora.scope import Role
from tests.helpers import randomise
from tests.methods.federation import BACKBONES, attached, families

UNITS = [0, 0, 1, 2, 2, 2, 3, 4]
SETTINGS: dict[str, dict[str, Any]] = {"pfedst": {"classifier": "linear", "heads": 2, "width": 4}}
NOISED = [name for name in METHODS.names() if get_method(name, SETTINGS.get(name)).why_not_noised is None]


def dataset(family: str, *, count: int = len(UNITS), seed: int = 1) -> CaseDataset:
    images = BACKBONES[family].images(count, seed=seed)
    return CaseDataset([{"image": image, "label": number % 2} for number, image in enumerate(images)], [])


def make(
    name: str = "dual_lora",
    family: str = "vit",
    *,
    units: list[int] = UNITS,
    data: Dataset | None = None,
    network: Any = None,
    rate: float = 1.0,
    noise: float = 1.0,
    clip: float = 1.0,
    expected: float = 1.0,
    steps: int = 1,
    seed: int | None = 0,
    optimizer: Any = None,
    precision: str = "off",
    method: Method | None = None,
    **settings: Any,
) -> NoisedTrainer:
    method = method or get_method(name, {**SETTINGS.get(name, {}), **settings})
    network = attached(method, family) if network is None else network
    data = dataset(family) if data is None else data
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=case_loader(data, batch_size=2),
        network=network,
        optimizer=optimizer or torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0),
        loss_function=cross_entropy(num_classes=2),
        inferer=FrozenInferer(dtype="float32"),
        mixed_precision=precision,
    )
    return NoisedTrainer(
        trainer,
        method=method,
        shared=method.scope(network).manifest.up.entries,
        mechanism=Mechanism(noise_multiplier=noise, sample_rate=rate, steps=steps),
        clip=clip,
        expected=expected,
        units=units,
        randomness=Randomness() if seed is None else Randomness.seeded(seed),
    )


def state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in network.state_dict().items()}


def change(trainer: NoisedTrainer) -> dict[str, Tensor]:
    """What one run adds to the parameters that move; plain SGD of rate 1 takes gradients as they are."""
    before = state(trainer.network)
    trainer.run_epochs(1)
    after = trainer.network.state_dict()
    return {key: after[key] - before[key] for key in before if not torch.equal(before[key], after[key])}


def looped(trainer: NoisedTrainer, units: list[int], clip: float) -> dict[str, Tensor]:
    """The sum of clipped gradients, one patient after the other by ordinary backward passes of the whole network."""
    network, data = trainer.network, trainer.data_loader.dataset
    shared = trainer._shared
    total = {name: torch.zeros_like(parameter, dtype=torch.float64) for name, parameter in shared.items()}
    noised_trainer.CaseTrainer._set_modes(trainer, epoch_starts=True)
    with trainer._method.shared_only(network):
        for unit in sorted(set(units)):
            cases = [data[place] for place, other in enumerate(units) if other == unit]
            images = torch.stack([case["image"] for case in cases])
            loss = trainer.loss_function(network(images), torch.tensor([case["label"] for case in cases]))
            found = torch.autograd.grad(loss, list(shared.values()), allow_unused=True)
            parts = [torch.zeros_like(p) if g is None else g for g, p in zip(found, shared.values(), strict=True)]
            scale = min(1.0, clip / math.sqrt(sum(float(part.double().square().sum()) for part in parts)))
            for name, part in zip(shared, parts, strict=True):
                total[name] += scale * part.double()
    return total


CASES = [(name, family) for name in NOISED for family in families(name)]
FAST = {("dual_lora", "vit"), ("ditto", "convvit"), ("pfedst", "vit"), ("linear_probe", "vit")}


@pytest.mark.parametrize(
    ("name", "family"), [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow) for case in CASES]
)
def test_a_step_adds_the_clipped_gradients_of_a_loop_over_patients(name: str, family: str) -> None:
    """Of a network in the middle of a training, on cached features; a patient's images are one unit."""
    method = get_method(name, SETTINGS.get(name))
    network = attached(method, family)
    randomise(network, "lora_", "head", "side", seed=7, scale=0.1)
    before = state(network)
    trainer = make(name, family, network=network, noise=1e-12, clip=0.3, expected=4)
    expected = looped(trainer, UNITS, 0.3)
    found = change(trainer)
    assert found.keys() <= expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found.get(key, torch.zeros(value.shape)), (-value / 4).float(), atol=2e-5, rtol=1e-3)
    private = method.scope(network).keys(Role.PRIVATE)
    assert all(torch.equal(network.state_dict()[key], before[key]) for key in private)


@pytest.mark.parametrize("name", ["dual_lora", "fedopal", "ditto", "pfedst", "feddpa"])
def test_what_is_sent_does_not_depend_on_the_private_part(name: str) -> None:
    found = []
    for seed in (1, 2):
        network = attached(get_method(name, SETTINGS.get(name)), "vit")
        randomise(network, ".shared.", "head", "side", seed=3)
        randomise(network, ".private.", seed=seed, scale=3.0)
        trainer = make(name, network=network, rate=0.6, steps=3)
        trainer.run_epochs(1)
        found.append({key: network.state_dict()[key] for key in trainer._shared})
    assert found[0].keys() == found[1].keys() != set()
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("clip", [1e6, 1e-3])
def test_class_weights_weigh_patients_however_much_is_clipped(clip: float) -> None:
    """Relative to the largest: the rarer class counts in full, and what others lose, the opposite weights give."""
    trainers = [make(noise=1e-12, clip=clip) for _ in range(4)]
    for trainer, weights in zip(trainers, ([2.0, 2.0], [1.0, 4.0], [4.0, 1.0]), strict=False):
        trainer.loss_function = cross_entropy(num_classes=2, class_weights=weights)
    even, second, first, plain = map(change, trainers)
    for key in even:
        torch.testing.assert_close(even[key], plain[key], atol=1e-5 * clip, rtol=1e-3)
        torch.testing.assert_close(first[key] + second[key], 1.25 * plain[key], atol=1e-5 * clip, rtol=1e-3)
    assert any((first[key] - second[key]).abs().max() > 0.1 * plain[key].abs().max() for key in even)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_a_class_weight_that_is_none_is_refused_before_anybody_is_drawn(weight: float) -> None:
    trainer = make(rate=1e-12)
    trainer.loss_function = nn.CrossEntropyLoss(weight=torch.tensor([1.0, weight]))
    with pytest.raises(ConfigError, match="class_weights is"):
        trainer.run_epochs(1)


@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_bfloat16_clips_as_float32_and_rounds_the_gradients_alone(clip: float) -> None:
    half, exact = (change(make(units=[0] * len(UNITS), noise=1e-9, clip=clip, precision=p)) for p in ("bf16", "off"))
    assert half.keys() == exact.keys()
    one, other = (torch.cat([part.flatten().double() for part in found.values()]) for found in (half, exact))
    assert one.norm() <= clip * (1 + 1e-4)
    assert not torch.equal(one, other)
    assert torch.cosine_similarity(one, other, dim=0) > 0.99


def test_a_step_without_patients_is_noise_alone() -> None:
    trainer = make(rate=1e-12, expected=5, noise=2, clip=0.5)
    found = change(trainer)
    values = torch.cat([found[key].flatten() for key in trainer._shared])
    assert values.std() == pytest.approx(2 * 0.5 / 5, rel=0.2)
    assert trainer.state.metrics.get("train_loss") is None


def test_steps_are_those_of_the_mechanism_and_the_schedule_is_that_of_the_epochs() -> None:
    network = attached(get_method("dual_lora"), "vit")
    optimizer = adamw(network=network)
    schedule = WarmupCosine(optimizer=optimizer, learning_rate=0.01, epochs=4)
    trainer = make(network=network, optimizer=optimizer, steps=3, rate=0.5)
    schedule.attach(trainer)
    steps: list[float] = []
    optimizer.register_step_post_hook(lambda *_: steps.append(optimizer.param_groups[0]["lr"]))
    trainer.set_epoch(1)
    trainer.run_epochs(2)
    assert len(steps) == 6
    assert steps == sorted(steps, reverse=True)
    assert len(set(steps)) == 2
    assert trainer.state.epoch == 3


def test_the_plans_seed_decides_neither_patients_nor_noise() -> None:
    """Everything that is seeded from the plan is equal in both runs."""
    one, other = (change(make(seed=None, rate=0.5)) for _ in range(2))
    assert one.keys() == other.keys()
    assert not any(torch.equal(one[key], other[key]) for key in one)


def test_batches_hold_all_images_of_those_who_were_drawn() -> None:
    mechanism = Mechanism(noise_multiplier=1, sample_rate=0.5, steps=50)
    sampler = PoissonSampler([5, 7, 5, 9, 7, 5], mechanism=mechanism, randomness=Randomness.seeded(0))
    members = {frozenset({0, 2, 5}), frozenset({1, 4}), frozenset({3})}
    assert len(sampler) == 50
    for batch in sampler:
        ends = np.cumsum(sampler.sizes).tolist()
        groups = {frozenset(batch[start:end]) for start, end in zip([0, *ends], ends, strict=False)}
        assert groups <= members
        assert len(groups) == len(sampler.sizes)


def test_the_proximal_term_comes_after_the_noise() -> None:
    """It pulls towards what the server sent, which is known; steps after the first one feel it."""
    start = [make("fedprox", mu=mu, steps=2, seed=4) for mu in (0.0, 0.5)]
    free, held = map(change, start)
    first = change(make("fedprox", mu=0.5, steps=1, seed=4))
    key = next(iter(start[0]._shared))
    assert torch.equal(first[key], change(make("fedprox", mu=0.0, steps=1, seed=4))[key])
    assert held[key].norm() < free[key].norm()


def test_an_image_that_gives_no_gradient_counts_as_nobody_and_only_the_site_is_told(caplog) -> None:
    data = dataset("vit")
    broken = [{"image": data[place]["image"].clone(), "label": data[place]["label"]} for place in range(len(UNITS))]
    broken[2]["image"][0, 0, 0] = math.nan
    without = [place for place, unit in enumerate(UNITS) if unit != 1]
    rest = CaseDataset([broken[place] for place in without], [])
    found = change(make(data=CaseDataset(broken, []), noise=1e-12))
    expected = change(make(data=rest, units=[UNITS[place] for place in without], noise=1e-12))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)
    assert "gradients of 1 patients" in caplog.text


REASONS = {
    "fedper": "its head stays in the site",
    "fedrep": "its head stays in the site",
    "fedsa_lora": "B and the head stay in the site",
    "fedbn": "its normalisation layers stay in the site",
    "fedavg": "every weight trains",
    "local": "nothing leaves the site",
    "clip_zero_shot": "nothing trains",
}


def test_every_method_can_keep_a_budget_or_says_why_not() -> None:
    whys = {name: get_method(name).why_not_noised for name in METHODS.names()}
    refused = {name: why for name, why in whys.items() if why is not None}
    assert refused.keys() == REASONS.keys()
    assert all(REASONS[name] in why for name, why in refused.items())


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("dual_lora", {"head": "private"}, "its head stays in the site"),
        ("fedprox", {"trains": "everything"}, "every weight trains"),
        ("flora", {"ranks": (4, 8)}, "noise would fill the ranks"),
    ],
)
def test_settings_can_take_the_view_away(name: str, settings: dict[str, Any], why: str) -> None:
    assert why in str(get_method(name, settings).why_not_noised)
    if "head" in settings:
        with pytest.raises(PrivacyError, match="dual_lora cannot keep a budget: its head"):
            make(name, **settings)


def test_a_plug_in_whose_view_keeps_a_private_factor_is_refused_by_what_the_network_computes() -> None:
    """B = 0 at first, so that nothing shows in the outputs of that moment."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class PrivateA(get_method("fedit").__class__):  # type: ignore[misc]
        name = "private_a"

        def is_shared(self, key: str, network: Any) -> bool:
            return super().is_shared(key, network) and ".lora_A." not in key

    method = PrivateA()
    assert method.why_not_noised is None
    trainer = make(method=method)
    before = state(trainer.network)
    with pytest.raises(PrivacyError, match="private_a cannot keep a budget: in the view"):
        trainer.run_epochs(1)
    assert all(torch.equal(value, before[key]) for key, value in trainer.network.state_dict().items())


def test_cases_that_cannot_be_drawn_by_patient_are_refused() -> None:
    with pytest.raises(ConfigError, match="drawn by patient"):
        make(units=UNITS[:-1])


class Vectors(Dataset):
    """Patients with one vector each; the last one's is what an attacker looks for."""

    def __init__(self, there: bool) -> None:
        self.there = there

    def __len__(self) -> int:
        return 2 + self.there

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": torch.full((4,), 100.0 if index == 2 else 0.1), "label": index % 2, "subject": str(index)}


def distinguished(noise: float = 1.0, *, steps: int = 80) -> float:
    """The p-value of noise as large as promised, by what one patient with a huge gradient changes of single steps.

    Along the direction of its gradient a step is normal with a standard deviation of noise * clip, and the patient
    moves its mean by clip at most (Dong et al., Gaussian differential privacy, 2022). The difference of two steps, one
    with the patient and one without, over sqrt(2) noise clip, then has a square that is non-central chi-squared.
    """
    clip, moves = 0.5, {}
    for there in (True, False):
        torch.manual_seed(0)
        network = nn.Linear(4, 2, bias=False)
        found = []
        trainer = plain(network, there=there, noise=noise, clip=clip)
        for _ in range(steps):
            before = network.weight.detach().clone()
            trainer.run_epochs(1)
            found.append((network.weight.detach() - before)[0].sum() / math.sqrt(4))
            with torch.no_grad():
                network.weight.copy_(before)
        moves[there] = torch.stack(found).double().numpy()
    scores = (moves[True] - moves[False]) / (math.sqrt(2) * noise * clip)
    shift = 1 / (math.sqrt(2) * noise)
    far = stats.ncx2.sf((scores**2).sum(), df=steps, nc=steps * shift**2)
    narrow = stats.chi2.cdf(((moves[False] - moves[False].mean()) ** 2).sum() / (noise * clip) ** 2, df=steps - 1)
    return float(min(far, narrow))


def plain(network: nn.Module, *, there: bool, noise: float, clip: float) -> NoisedTrainer:
    data = Vectors(there)
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=case_loader(data, batch_size=2),
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=cross_entropy(num_classes=2),
    )
    return NoisedTrainer(
        trainer,
        method=get_method("linear_probe"),
        shared=["weight"],
        mechanism=Mechanism(noise_multiplier=noise, sample_rate=1, steps=1),
        clip=clip,
        expected=1,
        units=range(len(data)),
        randomness=Randomness.seeded(8 + there),
    )


def test_a_patient_with_a_huge_gradient_hides_in_the_noise() -> None:
    assert distinguished() > 0.01


def unclipped(gradients: dict[str, Tensor], clip: float, weights: Tensor) -> tuple[dict[str, Tensor], int]:
    return clipped_sum(gradients, 1e9, weights)


def half_the_noise(sums: Any, *, noise_multiplier: float, **settings: Any) -> dict[str, Tensor]:
    return original(sums, noise_multiplier=noise_multiplier / 2, **settings)


original = noised_trainer.noised_mean


@pytest.mark.parametrize(("part", "mutant"), [("clipped_sum", unclipped), ("noised_mean", half_the_noise)])
def test_training_without_clipping_or_with_half_the_noise_is_found_out(part: str, mutant: Any, monkeypatch) -> None:
    monkeypatch.setattr(noised_trainer, part, mutant)
    assert distinguished() < 1e-6
