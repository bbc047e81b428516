"""A hospital that joins late trains its private part on few cases, and nothing that was shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.newsite import NewSite
from monai_fedlora.comparison.runner import Task
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_shared, save_shared
from monai_fedlora.federated.materials import Installed
from monai_fedlora.scope import Role
from tests.federated.conftest import Prepared


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
    assert site.can_be_personalised


def test_a_method_that_keeps_nothing_has_no_private_part(make_site: Callable[..., NewSite]) -> None:
    site = make_site("fedit")
    assert not site.can_be_personalised
    assert site.at_once(build_shared(site.plan)[1]) is not None


def test_what_members_train_further_a_new_site_does_too(make_site: Callable[..., NewSite]) -> None:
    site = make_site("fedit", fine_tune_epochs=1)
    shared = build_shared(site.plan)[1]
    assert site.can_be_personalised
    at_once = site.at_once(shared)
    first = site.personalised(shared)
    sent = {key: torch.from_numpy(value).float() for key, value in shared.items()}
    assert differ(sent, state(site, Role.SHARED))
    assert (site.at_once(shared), site.personalised(shared)) == (at_once, first)


def test_shared_tensors_are_read_from_the_federations_file(make_site: Callable[..., NewSite], tmp_path: Path) -> None:
    site = make_site("dual_lora")
    shared = build_shared(site.plan)[1]
    save_shared(tmp_path / "shared.safetensors", shared, plan=site.plan, round_number=0)
    found = site.receive(tmp_path / "shared.safetensors")
    assert found.keys() == shared.keys()
    assert all(np.array_equal(found[key], shared[key]) and found[key].dtype == shared[key].dtype for key in shared)
