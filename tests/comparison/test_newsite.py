"""A hospital that joins late trains its private part on few cases, and nothing that was shared."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.newsite import NewSite, fewer_cases
from monai_fedlora.comparison.runner import Task
from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_shared, save_shared
from monai_fedlora.federated.materials import Installed
from monai_fedlora.scope import Role
from tests.federated.conftest import Prepared


def datalist(labels: list[int]) -> Datalist:
    cases = tuple(Case(subject=f"s{i}", label=label, group="g", image=f"{i}.png") for i, label in enumerate(labels))
    return Datalist(
        site="new",
        dataset="d",
        task="multiclass",
        classes=("a", "b", "c"),
        image_root=Path("/"),
        seed=0,
        training=cases,
        test=cases[:1],
    )


@pytest.mark.slow
@given(st.lists(st.integers(0, 2), min_size=1, max_size=40), st.integers(0, 3))
def test_fewer_cases_keep_the_classes_shares_and_are_nested(labels: list[int], seed: int) -> None:
    whole = datalist(labels)
    total = Counter(labels)
    before: set[str] = set()
    for n in range(1, len(labels) + 1):
        part = fewer_cases(whole, n, seed=seed)
        subjects = {case.subject for case in part.training}
        assert len(subjects) == len(part.training) == n
        assert before <= subjects
        assert part.test == whole.test
        for label, count in Counter(case.label for case in part.training).items():
            assert abs(count - n * total[label] / len(labels)) < 1.5
        before = subjects
    assert before == {case.subject for case in whole.training}


def test_the_chosen_cases_depend_on_the_seed_and_not_on_the_order() -> None:
    whole = datalist([0, 1] * 20)
    chosen = [{case.subject for case in fewer_cases(whole, 6, seed=seed).training} for seed in range(5)]
    assert len({frozenset(each) for each in chosen}) > 1
    turned = dataclasses.replace(whole, training=whole.training[::-1])
    assert {case.subject for case in fewer_cases(turned, 6, seed=0).training} == chosen[0]


@pytest.fixture
def make_site(make_task: Callable[..., Task], prepared: Prepared, tmp_path: Path) -> Callable[..., NewSite]:
    def make(method: str, *, kind: type[Site] = NewSite, **settings: Any) -> Site:
        training = {"batch_size": 2, "warmup_epochs": 0, "learning_rate": 0.05}
        task = make_task(tmp_path, methods={method: {**training, **settings}}, rounds=2)
        plan = dataclasses.replace(task.comparison.plan(Run(method=method, seed=0)), sites=("site-1",))
        return kind(
            name="site-1",
            plan=plan,
            private_root=tmp_path,
            source=Installed(data_root=str(prepared.data), backbone=task.backbone),
        )

    return make  # type: ignore[return-value]


def state(site: NewSite, role: Role) -> dict[str, torch.Tensor]:
    values = site.network.state_dict()
    return {key: values[key].clone() for key in site.scope.keys(role)}


def differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    return [key for key in one if not torch.equal(one[key], other[key])]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "fedper", "fedrep", "feddpa", "ditto", "fedsa_lora", "fedbn"])
def test_only_the_private_part_is_trained(make_site: Callable[..., NewSite], backbone: Path, method: str) -> None:
    site = make_site(method)
    initial = build_shared(site.plan, backbone=str(backbone))[1]
    shared = {key: value + np.float16(0.01) for key, value in initial.items()}
    metrics = site.personalised(shared)
    assert 0 <= metrics["balanced_accuracy"] <= 1
    moved = differ({key: torch.from_numpy(value).float() for key, value in shared.items()}, state(site, Role.SHARED))
    assert moved == []
    assert differ(state(site, Role.PRIVATE), site._initial_private)
    assert site._trainer.state.epoch == 2


def test_each_call_starts_from_a_fresh_private_part(make_site: Callable[..., NewSite]) -> None:
    site = make_site("dual_lora")
    shared = build_shared(site.plan)[1]
    first, trained = site.personalised(shared), state(site, Role.PRIVATE)
    assert site.personalised(shared) == first
    assert differ(trained, state(site, Role.PRIVATE)) == []


def test_at_once_is_the_model_without_its_private_part(make_site: Callable[..., NewSite]) -> None:
    site, member = make_site("dual_lora"), make_site("dual_lora", kind=Site)
    shared = {key: value + np.float16(0.1) for key, value in build_shared(site.plan)[1].items()}
    site.personalised(shared)
    assert site.at_once(shared) == member.finish(shared).test["shared"]


@pytest.mark.parametrize("method", ["local", "fedper"])
def test_there_is_nothing_at_once_without_a_shared_model(make_site: Callable[..., NewSite], method: str) -> None:
    site = make_site(method)
    assert site.at_once(build_shared(site.plan)[1]) is None
    assert site.has_private_part


def test_a_method_that_keeps_nothing_has_no_private_part(make_site: Callable[..., NewSite]) -> None:
    site = make_site("fedit")
    assert not site.has_private_part
    assert site.at_once(build_shared(site.plan)[1]) is not None


def test_shared_tensors_are_read_from_the_federations_file(make_site: Callable[..., NewSite], tmp_path: Path) -> None:
    site = make_site("dual_lora")
    shared = build_shared(site.plan)[1]
    save_shared(tmp_path / "shared.safetensors", shared, plan=site.plan, round_number=0)
    found = site.receive(tmp_path / "shared.safetensors")
    assert found.keys() == shared.keys()
    assert all(np.array_equal(found[key], shared[key]) and found[key].dtype == shared[key].dtype for key in shared)
