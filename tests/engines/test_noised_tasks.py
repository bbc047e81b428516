"""Regression and segmentation under a budget: their losses by patient, and mutants of the noise that are found out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.utils.data import Dataset

import monai_fedlora as fl
from monai_fedlora.engines import noised_trainer
from monai_fedlora.engines.dataset import CaseDataset, PrepareCases, case_loader
from monai_fedlora.engines.features import FrozenInferer
from monai_fedlora.engines.loss import cross_entropy
from monai_fedlora.engines.noised_trainer import NoisedTrainer
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.methods import Method, get_method
from monai_fedlora.privacy.clipping import clipped_sum
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.randomness import Randomness
from monai_fedlora.tasks.regression import KnownSmoothL1, values_of
from monai_fedlora.tasks.segmentation import MarginalDiceCrossEntropy, allowed_classes
from tests.helpers import randomise
from tests.tasks.small import Pixels, images_and_masks, targets

UNITS = [0, 0, 1, 2, 2, 2, 3, 4]
"""Patients of eight images; of the one with number 3 nothing is known."""
WHOLE, PART = [True, True, True], [True, False, True]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learnt:
    """A task: how many outputs its network has, its loss, how batches tell its targets, and eight cases of it."""

    outputs: int
    dense: bool
    loss: Callable[[], nn.Module]
    prepare: PrepareCases
    cases: Callable[[], list[dict[str, Any]]]


def of_values() -> list[dict[str, Any]]:
    """The second value is missing here and there."""
    images, masks = images_and_masks(len(UNITS), seed=3)
    values = targets("regression", masks)
    values[1, 1], values[6] = math.nan, math.nan
    return [{"image": image, "values": found} for image, found in zip(images, values, strict=True)]


def of_masks() -> list[dict[str, Any]]:
    """Some do not outline the first structure, one has none anywhere, and patients mix both kinds."""
    images, masks = images_and_masks(len(UNITS), seed=3)
    outlined = [WHOLE, PART, PART, WHOLE, PART, WHOLE, [True, False, False], WHOLE]
    masks[6], masks[7] = 0, 0
    for mask, (_, first, _) in zip(masks, outlined, strict=True):
        mask[(mask == 1) & (not first)] = 0
    return [
        {"image": image, "mask": mask[None], "labelled": torch.tensor(found)}
        for image, mask, found in zip(images, masks, outlined, strict=True)
    ]


def of_classes() -> list[dict[str, Any]]:
    images, _ = images_and_masks(len(UNITS), seed=3)
    return [{"image": image, "label": number % 2} for number, image in enumerate(images)]


TASKS = {
    "classification": Learnt(
        outputs=2, dense=False, loss=lambda: cross_entropy(num_classes=2), prepare=PrepareCases(), cases=of_classes
    ),
    "regression": Learnt(
        outputs=2,
        dense=False,
        loss=lambda: KnownSmoothL1(((8.0, 4.0), (12.0, 3.0))),
        prepare=PrepareCases(target=values_of),
        cases=of_values,
    ),
    "segmentation": Learnt(
        outputs=3,
        dense=True,
        loss=MarginalDiceCrossEntropy,
        prepare=PrepareCases(target=allowed_classes),
        cases=of_masks,
    ),
}


def trainer_of(
    task: Learnt,
    network: nn.Module,
    data: Dataset,
    *,
    how: Method,
    shared: list[str],
    clip: float,
    noise: float,
    units: list[int],
    expected: float = 1.0,
    steps: int = 1,
    seed: int = 0,
) -> NoisedTrainer:
    """All patients in every step of plain SGD of rate 1, which takes gradients as they are."""
    trainer = CaseTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=case_loader(data, batch_size=2),
        network=network,
        optimizer=torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1.0),
        loss_function=task.loss(),
        inferer=FrozenInferer(dtype="float32"),
        prepare_batch=task.prepare,
    )
    return NoisedTrainer(
        trainer,
        method=how,
        shared=shared,
        mechanism=Mechanism(noise_multiplier=noise, sample_rate=1, steps=steps),
        clip=clip,
        expected=expected,
        units=units,
        randomness=Randomness.seeded(seed),
    )


def looped(task: Learnt, network: nn.Module, how: Method, shared: list[str], clip: float) -> dict[str, Tensor]:
    """The sum of clipped gradients, one image after the other, by ordinary backward passes."""
    named, cases, loss = dict(network.named_parameters()), task.cases(), task.loss()
    total = {name: torch.zeros_like(named[name], dtype=torch.float64) for name in shared}
    with how.shared_only(network):
        for unit in sorted(set(UNITS)):
            own = [case for case, other in zip(cases, UNITS, strict=True) if other == unit]
            sums = {name: torch.zeros_like(named[name]) for name in shared}
            for case in own:
                batch = {key: torch.as_tensor(value)[None] for key, value in case.items()}
                network.zero_grad(set_to_none=True)
                loss(network(batch["image"]), task.prepare.target(batch)).mean().backward()
                for name in shared:
                    gradient = named[name].grad
                    sums[name] += torch.zeros_like(named[name]) if gradient is None else gradient / len(own)
            length = math.sqrt(sum(float(part.double().square().sum()) for part in sums.values()))
            for name in shared:
                total[name] += min(1.0, clip / max(length, 1e-12)) * sums[name].double()
    network.zero_grad(set_to_none=True)
    return total


@pytest.mark.parametrize("clip", [0.05, 1e6])
@pytest.mark.parametrize("name", TASKS)
def test_a_step_adds_the_clipped_gradients_of_a_loop_over_patients(name: str, clip: float, caplog: Any) -> None:
    """Each patient's is that of the mean over the patient's images, whatever of them is known."""
    task = TASKS[name]
    torch.manual_seed(1)
    choice = fl.method("dual_lora", rank=2, targets=r"blocks\.2\.fc", head="head", blocks="blocks")
    attached = fl.attach(Pixels(task.outputs, dense=task.dense), choice)
    network, how = attached.opened, attached.method
    randomise(network, "lora_", "head", seed=7, scale=0.5)
    shared = list(how.scope(network).manifest.up.entries)
    expected = looped(task, network, how, shared, clip)
    lengths = [float(part.norm()) for part in expected.values()]
    assert all(0 < length < math.inf for length in lengths)
    trainer = trainer_of(
        task,
        network,
        CaseDataset(task.cases(), []),
        how=how,
        shared=shared,
        clip=clip,
        noise=1e-12,
        units=UNITS,
        expected=4,
    )
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer.run_epochs(1)
    after = network.state_dict()
    for key in before:
        moved = (-expected[key] / 4).float() if key in expected else torch.zeros_like(before[key])
        torch.testing.assert_close(after[key] - before[key], moved, atol=2e-5, rtol=1e-3)
    assert "not finite" not in caplog.text


class Known(Dataset):
    """Patients with one image each; the last one's is what somebody looks for, and its gradient is huge."""

    def __init__(self, name: str, there: bool) -> None:
        self.name, self.there = name, there

    def __len__(self) -> int:
        return 2 + self.there

    def __getitem__(self, index: int) -> dict[str, Any]:
        value = 100.0 if index == 2 else 0.1
        if self.name == "segmentation":  # of one pixel
            known = torch.ones(2, dtype=torch.bool)
            return {"image": torch.full((4, 1, 1), value), "mask": torch.full((1, 1, 1), index % 2), "labelled": known}
        values = torch.tensor([50.0 if index % 2 else -50.0, math.nan])
        return {"image": torch.full((4,), value), "values": values}


class Linear(nn.Module):
    """One product, of vectors or of every pixel; of zeros, so that every target pulls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("oc,bc...->bo...", self.weight, x)


def found_out(name: str, *, noise: float = 1.0, steps: int = 80) -> float:
    """The p-value of noise as large as promised, by what the patient with a huge gradient changes of single steps.

    Along the patient's gradient a step is normal with a standard deviation of noise * clip, and the patient moves its
    mean by clip at most (Dong et al., Gaussian differential privacy, 2022). The difference of two steps, one with the
    patient and one without, over sqrt(2) noise clip, then has a square that is non-central chi-squared.
    """
    clip, moves = 0.5, {}
    for there in (True, False):
        network, data = Linear(), Known(name, there)
        trainer = trainer_of(
            TASKS[name],
            network,
            data,
            how=get_method("linear_probe"),
            shared=["weight"],
            clip=clip,
            noise=noise,
            units=list(range(len(data))),
            steps=steps,
            seed=8 + there,
        )
        found: list[Tensor] = []

        def undone(*_: Any, network: Linear = network, found: list[Tensor] = found) -> None:
            found.append(network.weight[0].detach().sum() / math.sqrt(4))
            network.weight.data.zero_()

        trainer.optimizer.register_step_post_hook(undone)
        trainer.run_epochs(1)
        assert len(found) == steps
        moves[there] = torch.stack(found).double().numpy()
    scores = (moves[True] - moves[False]) / (math.sqrt(2) * noise * clip)
    far = stats.ncx2.sf((scores**2).sum(), df=steps, nc=steps / (2 * noise**2))
    narrow = stats.chi2.cdf(((moves[False] - moves[False].mean()) ** 2).sum() / (noise * clip) ** 2, df=steps - 1)
    return float(min(far, narrow))


def unclipped(gradients: dict[str, Tensor], clip: float, weights: Tensor) -> tuple[dict[str, Tensor], int]:
    return clipped_sum(gradients, 1e9, weights)


def half_the_noise(sums: Any, *, noise_multiplier: float, **settings: Any) -> dict[str, Tensor]:
    return original(sums, noise_multiplier=noise_multiplier / 2, **settings)


original = noised_trainer.noised_mean


CANARIES = ("regression", "segmentation")
"""Of classification there are the same in the test of the trainer."""


@pytest.mark.parametrize("name", CANARIES)
def test_a_patient_with_a_huge_gradient_hides_in_the_noise_of_every_task(name: str) -> None:
    assert found_out(name) > 0.01


@pytest.mark.parametrize(("part", "mutant"), [("clipped_sum", unclipped), ("noised_mean", half_the_noise)])
@pytest.mark.parametrize("name", CANARIES)
def test_training_without_clipping_or_with_half_the_noise_is_found_out_in_every_task(
    name: str, part: str, mutant: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noised_trainer, part, mutant)
    assert found_out(name) < 1e-6
