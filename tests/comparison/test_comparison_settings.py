"""A comparison is a list of runs that differ in nothing but what they are named after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.comparison.comparison_settings import Comparison, Run, assigned, differences
from monai_fedlora.comparison.facts import method_facts
from monai_fedlora.comparison.runner import Task
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.server_optimizer import FedAdam
from monai_fedlora.methods import get_method, method_names
from monai_fedlora.networks.prompts import bundle_prompts
from monai_fedlora.tasks.classification import CLASSIFICATION
from tests.comparison.conftest import SIZE, TEXTS

MakeTask = Callable[..., Task]


@pytest.fixture
def compare(make_task: MakeTask, tmp_path: Path) -> Callable[..., Comparison]:
    return lambda *methods, **changes: make_task(tmp_path, *methods, **changes).comparison


def test_every_method_runs_with_every_seed_with_all_sites_and_without_each(compare: Callable[..., Comparison]) -> None:
    found = compare("dual_lora", "fedit", seeds=(0, 7), unseen=("site-2",)).runs()
    assert [run.name for run in found] == [
        "dual_lora-seed0",
        "fedit-seed0",
        "dual_lora-seed7",
        "fedit-seed7",
        "dual_lora-seed0-without-site-2",
        "fedit-seed0-without-site-2",
        "dual_lora-seed7-without-site-2",
        "fedit-seed7-without-site-2",
    ]


def test_plans_of_two_runs_differ_in_method_seed_and_sites_alone(compare: Callable[..., Comparison]) -> None:
    comparison = compare("dual_lora", "fedit", unseen=("site-1",), seeds=(0, 1))
    plans = [comparison.plan(run).to_json() for run in comparison.runs()]
    changed = {key for plan in plans for key, value in plan.items() if value != plans[0][key]}
    assert changed == {"experiment", "method", "seed", "sites"}
    assert [plan["sites"] for plan in plans[-2:]] == [["site-2", "site-3"]] * 2


def test_a_method_for_one_site_gets_the_pool(compare: Callable[..., Comparison]) -> None:
    comparison = compare("centralised", "local", unseen=("site-1",))
    pooled = Run(method="centralised", seed=0, held_out="site-1")
    assert comparison.plan(pooled).sites == ("pooled",)
    assert comparison.members(pooled) == ("site-2", "site-3")
    assert comparison.is_pooled("centralised")
    assert not comparison.is_pooled("local")


def test_methods_that_compare_with_texts_take_the_bundles_prompts(
    text_task: Callable[..., Task], tmp_path: Path
) -> None:
    comparison = text_task(tmp_path, "clip_zero_shot", "fedit", "pfedst", "prompt_tuning").comparison
    prompts = {run.method: comparison.plan(run).prompts for run in comparison.runs()}
    own = bundle_prompts(TEXTS)
    assert prompts == {"clip_zero_shot": own, "fedit": None, "pfedst": own, "prompt_tuning": own}
    assert all(comparison.training(method)["cache_features"] for method in comparison.methods)


def test_features_are_kept_where_the_method_allows_it(compare: Callable[..., Comparison]) -> None:
    plain = compare("dual_lora", "fedavg")
    assert [plain.training(method)["cache_features"] for method in plain.methods] == [True, False]
    assert not plain.training("dual_lora")["augment"]
    views = {"dual_lora": {"augment": True, "augmented_views": 0}, "fedit": {"augment": True}}
    augmented = compare(methods=views)
    assert all(augmented.training(method)["cache_features"] for method in augmented.methods)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"methods": {}}, "--methods"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"seeds": (-1,)}, "seed"),
        ({"unseen": ("site-9",)}, "site-9"),
        ({"unseen": ("only",), "data": {"only": "0"}}, "single site"),
        ({"data": {"pooled": "0", "site-1": "0"}}, "pooled"),
        ({"new_site_cases": (5, 5)}, "growing"),
        ({"new_site_cases": (0, 5)}, "growing"),
        ({"rounds": 0}, "rounds"),
        ({"methods": {"dual_lora": {"rank": 0}}}, "rank"),
        ({"methods": {"dual_lora": {"batch_size": float("nan")}}}, "batch_size"),
    ],
)
def test_settings_that_make_no_comparison_are_refused(
    compare: Callable[..., Comparison], changes: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        compare("dual_lora", **changes)


def test_a_run_is_known_by_everything_its_result_depends_on(compare: Callable[..., Comparison]) -> None:
    def identity(held_out: str | None = None, **changes: Any) -> dict[str, Any]:
        return compare("dual_lora", unseen=("site-1",), **changes).identity(
            Run(method="dual_lora", seed=0, held_out=held_out)
        )

    same = identity()
    assert differences(same, identity(seeds=(0, 1))) == []
    assert differences(same, identity(new_site_cases=(3,))) == []
    assert differences(same, identity(rounds=2)) == ["plan.rounds: 1, now 2"]
    assert differences(identity("site-1"), identity("site-1", new_site_cases=(3,))) == [
        "new_site_cases: [2, 4], now [3]"
    ]
    data = {"site-1": "0", "site-2": "0", "site-3": "0"}
    assert [line.partition(":")[0] for line in differences(same, identity(data=data))] == [
        f"data.{site}" for site in data
    ]


def test_common_settings_go_to_the_methods_that_know_them() -> None:
    found = assigned(["fedavg", "dual_lora"], {"rank": 4, "batch_size": 2}, {"fedavg": {"learning_rate": 0.1}})
    assert found == {"fedavg": {"batch_size": 2, "learning_rate": 0.1}, "dual_lora": {"rank": 4, "batch_size": 2}}
    own = assigned(["fedit", "dual_lora"], {"rank": 4}, {"fedit": {"rank": 2}})
    assert own == {"fedit": {"rank": 2}, "dual_lora": {"rank": 4}}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((["fedavg"], {"rank": 4}, {}), "rank"),
        ((["dual_lora"], {"rnk": 4}, {}), "did you mean 'rank'"),
        ((["dual_lora"], {}, {"dual_lora": {"batchsize": 4}}), "did you mean 'batch_size'"),
        ((["fedavg", "fedavg"], {}, {}), "different"),
        ((["fedavg"], {}, {"fedit": {"rank": 2}}), "fedit"),
        ((["fedavgg"], {}, {}), "did you mean 'fedavg'"),
    ],
)
def test_settings_of_no_method_are_refused(arguments: tuple[Any, Any, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        assigned(*arguments)


def test_facts_are_those_of_the_adapters_shapes() -> None:
    """Rank 8, two blocks, q and kv of width 16; the heads are two linear layers of 16 to 2."""
    adapters = 2 * (8 * 16 + 16 * 8 + 8 * 16 + 32 * 8)
    head = 2 * (16 * 2 + 2)
    dual = method_facts("dual_lora", {}, size=SIZE, names=2, task=CLASSIFICATION)
    assert (dual.shared, dual.private) == (adapters + head, adapters)
    assert dual.bytes_up == dual.bytes_down == 2 * (adapters + head)
    assert dual.has_shared_model
    assert dual.can_keep_features
    assert not dual.private_head
    private = method_facts("dual_lora", {"head": "private"}, size=SIZE, names=2, task=CLASSIFICATION)
    assert (private.shared, private.private, private.private_head) == (adapters, adapters + head, True)
    assert not private.has_shared_model
    local = method_facts("local", {}, size=SIZE, names=2, task=CLASSIFICATION)
    assert (local.bytes_up, local.shared, local.private) == (0, 0, adapters + head)
    assert not local.has_shared_model


@pytest.mark.slow
@pytest.mark.parametrize("method", method_names())
def test_every_method_has_facts(method: str) -> None:
    size = "clip_demo" if get_method(method).reads_text else SIZE
    facts = method_facts(method, {}, size=size, names=3, task=CLASSIFICATION)
    assert (facts.shared + facts.private > 0) == (method != "clip_zero_shot")
    assert (facts.bytes_up > 0) == (facts.shared > 0)


def test_a_model_of_which_nothing_travels_is_a_shared_one_where_nothing_is_private() -> None:
    facts = method_facts("clip_zero_shot", {}, size="clip_demo", names=3, task=CLASSIFICATION)
    assert (facts.bytes_up, facts.bytes_down, facts.shared, facts.private) == (0, 0, 0, 0)
    assert facts.has_shared_model
    assert facts.can_keep_features


def test_rows_of_one_method_differ_in_their_settings_alone(compare: Callable[..., Comparison]) -> None:
    comparison = compare(
        methods={
            "fedit": {"batch_size": 2},
            "adam": {"batch_size": 2, "server_optimizer": "fedadam", "server_tau": 0.01},
            "tuned": {"batch_size": 2, "fine_tune_epochs": 3, "rank": 2},
        },
        registered={"adam": "fedit", "tuned": "fedit"},
    )
    plain, adam, tuned = (comparison.plan(run) for run in comparison.runs())
    assert [plan.experiment for plan in (plain, adam, tuned)] == ["fedit-seed0", "adam-seed0", "tuned-seed0"]
    assert dataclasses.replace(adam, experiment=plain.experiment, server_optimizer=None) == plain
    assert adam.server_optimizer == FedAdam(tau=0.01)
    assert (tuned.method, tuned.method_args, tuned.fine_tune_epochs) == ("fedit", {"rank": 2}, 3)
    assert comparison.facts["tuned"].shared < comparison.facts["fedit"].shared == comparison.facts["adam"].shared
    assert comparison.training("adam") == comparison.training("fedit")


def test_a_row_whose_server_has_nothing_to_step_with_is_refused_before_any_run(
    compare: Callable[..., Comparison],
) -> None:
    with pytest.raises(ConfigError, match="flora cannot have a server_optimizer"):
        compare(methods={"own": {"server_optimizer": "fedadam"}}, registered={"own": "flora"})


def test_a_pooled_model_is_not_trained_on_by_sites(compare: Callable[..., Comparison]) -> None:
    with pytest.raises(ConfigError, match=r"one model of all sites' cases.*fedit.fine_tune_epochs=2"):
        compare(methods={"centralised": {"fine_tune_epochs": 2}, "fedit": {}})
    compare(methods={"centralised": {}, "fedit": {"fine_tune_epochs": 2}})


def test_settings_of_rows_are_checked_against_their_methods() -> None:
    registered = {"adam": "fedit"}
    found = assigned(
        ["local", "adam"], {"rank": 4, "averaging": "product"}, {"adam": {"server_optimizer": "fedadam"}}, registered
    )
    own = {"rank": 4, "averaging": "product", "server_optimizer": "fedadam"}
    assert found == {"local": {"rank": 4}, "adam": own}
    with pytest.raises(ConfigError, match=r"server_optimiser.*server_optimizer"):
        assigned(["adam"], {}, {"adam": {"server_optimiser": "fedadam"}}, registered)
    with pytest.raises(ConfigError, match="a row of dual_lora cannot be called 'local', which is another method"):
        assigned(["fedit", "local"], {}, {}, {"local": "dual_lora"})
