"""A run is the federation's own code; what runs share changes nothing; a pooled model is seen by every site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.comparison_settings import Run
from monai_fedlora.comparison.execute import execute
from monai_fedlora.comparison.facts import method_facts
from monai_fedlora.comparison.runner import Task
from monai_fedlora.engines.memory import Memory
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.tasks.classification import CLASSIFICATION
from tests.comparison.conftest import SIZE
from tests.federated.conftest import SITES, Prepared


@pytest.fixture
def do(make_task: Callable[..., Task], memory: Memory, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(method: str, *, held_out: str | None = None, use: Memory | None = None, **changes: Any) -> dict[str, Any]:
        on_progress = changes.pop("on_progress", lambda share: None)
        task = make_task(tmp_path, method, **changes)
        name = f"{method}-{len(list(tmp_path.iterdir()))}"
        result, scores = execute(
            task.comparison,
            Run(method=method, seed=0, held_out=held_out),
            datalists=task.datalists,
            backbone=task.backbone,
            folder=tmp_path / name,
            memory=memory if use is None else use,
            on_progress=on_progress,
        )
        check_scores(result, scores)
        return result

    return run


def check_scores(result: dict[str, Any], scores: Sequence[CaseScore]) -> None:
    """Every metric of classes follows from the scores that are kept beside it."""
    by_model: dict[Any, list[CaseScore]] = defaultdict(list)
    for each in scores:
        by_model[each.site, each.view, each.cases].append(each)
    assert by_model.keys() == views(result).keys()
    for model, metrics in views(result).items():
        rows = by_model[model]
        assert len({row.case for row in rows}) == len(rows) == metrics["n"]
        classes = [[row.score or 0.0 for row in rows if row.label == name] for name in ("NOR", "ABN")]
        assert fmean(fmean(found) for found in classes if found) == pytest.approx(
            metrics["balanced_accuracy"], abs=1e-4
        )
        probabilities = [[row.more["probability_NOR"], row.more["probability_ABN"]] for row in rows]
        labels = [("NOR", "ABN").index(row.label) for row in rows]
        assert classification_metrics(probabilities, labels)["ece"] == pytest.approx(metrics["ece"], abs=1e-4)


def views(result: dict[str, Any]) -> dict[tuple[str, str, int | None], dict[str, Any]]:
    names = ("site", "view", "cases")
    return {
        (entry["site"], entry["view"], entry["cases"]): {k: v for k, v in entry.items() if k not in names}
        for entry in result["metrics"]
    }


def test_a_run_gives_what_the_federation_gives(
    do: Callable[..., dict[str, Any]], make_task: Callable[..., Task], prepared: Prepared, tmp_path: Path
) -> None:
    result = do("dual_lora", rounds=2)
    task = make_task(tmp_path, "dual_lora", rounds=2)
    plan = task.comparison.plan(Run(method="dual_lora", seed=0))
    direct = run_in_process(plan, folder=tmp_path / "direct", data_root=str(prepared.data), backbone=task.backbone)
    found = views(result)
    assert found.keys() == {(site, view, None) for site in SITES for view in ("personal", "shared")}
    for site in SITES:
        assert found[site, "personal", None] == direct["final"][site]["test"]["personal"]
        assert found[site, "shared", None] == direct["final"][site]["test"]["shared"]
    assert result["scores"] == [entry["score"] for entry in direct["rounds"]]
    facts = method_facts("dual_lora", {}, size=SIZE, names=2, task=CLASSIFICATION)
    assert (result["bytes_up"], result["bytes_down"]) == (facts.bytes_up, facts.bytes_down)
    assert result["bytes_up"] == direct["payload_bytes"]
    assert 0 <= result["seconds_shared"] <= result["seconds"]


@pytest.mark.slow
def test_a_site_whose_updates_never_counted_has_no_score(
    do: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = SharedAverage.accept

    def refuse(self: SharedAverage, site: str, update: Any) -> None:
        if site == "site-2":
            raise Refusal("too large")
        accept(self, site, update)

    monkeypatch.setattr(SharedAverage, "accept", refuse)
    result = do("fedit")
    assert {entry["site"] for entry in result["metrics"]} == {"site-1", "site-3"}
    assert [refusal["site"] for refusal in result["refused"]] == ["site-2"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "fedavg"])
def test_what_other_runs_have_computed_changes_no_result(do: Callable[..., dict[str, Any]], method: str) -> None:
    shared = Memory()
    alone = do(method, use=Memory())
    do("fedit", use=shared)
    kept = set(shared._kept)
    after = do(method, use=shared)
    assert alone["metrics"] == after["metrics"]
    assert alone["seconds_shared"] > after["seconds_shared"] == 0
    assert set(shared._kept) == kept


@pytest.mark.slow
def test_the_pooled_model_is_evaluated_at_every_site(do: Callable[..., dict[str, Any]]) -> None:
    result = do("centralised")
    found = views(result)
    assert found.keys() == {(site, "personal", None) for site in SITES}
    assert all(entry["n"] == 2 for entry in found.values())
    assert result["bytes_up"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "batch", "changes", "told"),
    [
        ("fedrep", 32, {}, {"steps": 1, "shared": 0.5, "private": 0.5}),
        ("ditto", 2, {"equal_steps": True}, {"steps": 4, "shared": 2, "private": 2}),
        ("centralised", 2, {"equal_steps": True}, {"steps": 2, "cases": 6}),
        ("fedit", 2, {"fine_tune": 3}, {"steps": 2, "after": 6}),
    ],
)
def test_the_steps_that_are_told_are_taken_whatever_a_site_asks_of_messages(
    do: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    batch: int,
    changes: dict[str, Any],
    told: dict[str, float],
) -> None:
    """Four cases at each of three sites, one step a round and fewer than 16 patients among them."""
    monkeypatch.delenv("MONAI_FEDLORA_POLICY")
    taken = 0

    def count(*_: Any) -> None:
        nonlocal taken
        taken += 1

    settings = {"batch_size": batch, "warmup_epochs": 0}
    if epochs := changes.pop("fine_tune", 0):
        settings["fine_tune_epochs"] = epochs
    hook = register_optimizer_step_post_hook(count)
    try:
        result = do(method, methods={method: settings}, rounds=2, **changes)
    finally:
        hook.remove()
    counts = list(result["steps"].values())
    assert all(told.items() <= each.items() for each in counts)
    assert taken == sum(2 * each["steps"] + each["after"] for each in counts)
    assert {site for site, view, _ in views(result) if view == "personal"} == set(SITES)


@pytest.mark.slow
def test_progress_grows_to_the_end(do: Callable[..., dict[str, Any]]) -> None:
    told: list[float] = []
    do("fedit", rounds=2, on_progress=told.append)
    assert told == pytest.approx([(i + 1) / 9 for i in range(9)])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "cases"),
    [("dual_lora", [0, 2, 4]), ("fedit", [0]), ("local", [2, 4]), ("fedper", [2, 4]), ("centralised", [0])],
)
def test_a_held_out_site_is_seen_at_once_and_with_its_own_cases(
    do: Callable[..., dict[str, Any]], method: str, cases: list[int]
) -> None:
    result = do(method, held_out="site-3")
    assert list(views(result)) == [("site-3", "new", n) for n in cases]
    assert result["identity"]["held_out"] == "site-3"
    trained = result["identity"]["plan"]["sites"]
    assert trained == (["pooled"] if method == "centralised" else ["site-1", "site-2"])
    assert len(result["scores"]) == (0 if method == "local" else 1)


@pytest.mark.slow
def test_more_cases_than_the_new_site_has_are_left_out(do: Callable[..., dict[str, Any]]) -> None:
    result = do("local", held_out="site-3", new_site_cases=(3, 5))
    assert [entry["cases"] for entry in result["metrics"]] == [3]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "cases"), [("clip_zero_shot", [0]), ("pfedst", [0, 2])])
def test_what_compares_with_texts_is_compared_at_members_and_at_a_new_site(
    text_task: Callable[..., Task], memory: Memory, tmp_path: Path, method: str, cases: list[int]
) -> None:
    """Where nothing is shared, no federation has to come before a new site."""
    task = text_task(tmp_path, method, unseen=("site-2",))

    def do(held_out: str | None) -> dict[str, Any]:
        return execute(
            task.comparison,
            Run(method=method, seed=0, held_out=held_out),
            datalists=task.datalists,
            backbone=task.backbone,
            folder=tmp_path / str(held_out),
            memory=memory,
        )[0]

    member, new = do(None), do("site-2")
    assert list(views(member)) == [(site, view, None) for site in SITES[:2] for view in ("personal", "shared")]
    assert list(views(new)) == [("site-2", "new", n) for n in cases]
    assert len(new["scores"]) == (0 if method == "clip_zero_shot" else 1)
    if method == "clip_zero_shot":
        assert views(new)["site-2", "new", 0] == views(member)["site-2", "personal", None]
        assert (member["bytes_up"], member["bytes_down"]) == (0, 0)


@pytest.mark.slow
def test_a_new_site_with_too_few_cases_for_its_phases_has_no_number_and_ends_no_run(
    do: Callable[..., dict[str, Any]],
) -> None:
    """Two cases in batches of two are one step, and the head and the base need one each."""
    found = views(do("fedrep", held_out="site-3", unseen=("site-3",)))
    assert found.keys() == {("site-3", "new", 4)}


BUDGET = {"batch_size": 2, "warmup_epochs": 0, "dp_epsilon": 8.0, "dp_delta": 1e-5, "dp_clip": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "centralised", "local"])
def test_under_a_budget_the_scores_are_those_that_sites_keep_to_themselves(
    do: Callable[..., dict[str, Any]], method: str
) -> None:
    """A method that sends nothing is as it was."""
    result = do(method, methods={method: BUDGET})
    places = {"dual_lora": ("personal", "shared")}.get(method, ("personal",))
    assert views(result).keys() == {(site, view, None) for site in SITES for view in places}
    assert all(value is not None for value in result["validation"].values())
    assert result["scores"] == [None] * len(result["scores"]) or method == "local"
    assert ("privacy" in result["identity"]["plan"]) == (method != "local")
    if method == "dual_lora":
        steps = result["steps"]["site-1"]
        assert (steps["shared"], steps["private"], steps["after"]) == (steps["steps"], 0, steps["steps"])


def test_equal_steps_are_not_of_a_budget(make_task: Callable[..., Task], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--equal-steps is about phases"):
        make_task(tmp_path, methods={"dual_lora": BUDGET}, equal_steps=True)
