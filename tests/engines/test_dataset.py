from __future__ import annotations

import torch
from monai.transforms import EnsureTyped, Lambdad, RandGaussianNoised

from monai_fedlora.engines.dataset import CaseDataset, case_loader

CASES = [{"image": torch.full((1, 2, 2), float(i)), "label": i % 2, "subject": f"p{i}"} for i in range(5)]


def dataset(**settings) -> CaseDataset:
    noise = RandGaussianNoised(keys="image", prob=0.9, std=1.0)
    return CaseDataset(CASES, [EnsureTyped(keys="image", track_meta=False)], augmentation=[noise], seed=4, **settings)


def images(cases: CaseDataset, order: list[int], epoch: int) -> dict[int, torch.Tensor]:
    cases.set_epoch(epoch)
    return {i: cases[i]["image"] for i in order}


def test_augmentation_depends_on_seed_epoch_and_case_alone() -> None:
    cases = dataset()
    first = images(cases, [0, 1, 2, 3, 4], epoch=2)
    images(cases, [1, 1, 1], epoch=1)
    again = images(dataset(), [4, 2, 0, 3, 1], epoch=2)
    assert all(torch.equal(first[i], again[i]) for i in first)
    other = images(cases, [0, 1, 2, 3, 4], epoch=3)
    assert not all(torch.equal(first[i], other[i]) for i in first)


def test_two_cases_are_augmented_differently() -> None:
    noise = images(dataset(), [0, 1], epoch=1)
    assert not torch.equal(noise[0] - 0, noise[1] - 1)


def test_the_deterministic_part_runs_once_per_case() -> None:
    calls: list[int] = []

    def count(image: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return image

    cases = CaseDataset(CASES, [Lambdad(keys="image", func=count)])
    for _ in range(3):
        list(case_loader(cases, batch_size=2))
    assert len(calls) == len(CASES)


def test_batches_hold_plain_tensors_and_the_subjects() -> None:
    batch = next(iter(case_loader(dataset(), batch_size=3)))
    assert type(batch["image"]) is torch.Tensor
    assert batch["image"].shape == (3, 1, 2, 2)
    assert batch["label"].tolist() == [0, 1, 0]
    assert batch["subject"] == ["p0", "p1", "p2"]


def test_reading_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    list(case_loader(dataset(), batch_size=2, shuffle=True, seed=1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_worker_processes_change_nothing() -> None:
    def epoch(workers: int) -> torch.Tensor:
        cases = dataset()
        cases.set_epoch(3)
        loader = case_loader(cases, batch_size=2, shuffle=True, seed=1, num_workers=workers)
        return torch.cat([batch["image"] for batch in loader])

    assert torch.equal(epoch(0), epoch(2))
