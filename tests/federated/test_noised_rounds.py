"""Under a budget what leaves is noised, charged and little else, and the private part stays out of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.environment import POLICY
from monai_fedlora.errors import Aborted, ConfigError, Diverged, PolicyError, PrivacyError
from monai_fedlora.exporting.finished import read_personal, rebuild
from monai_fedlora.federated import noised_rounds
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.federation_settings import of_federation
from monai_fedlora.federated.initial import build_shared, changes_since
from monai_fedlora.federated.noised_rounds import NoisedRound
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import POLICY_FORBIDS, SITE_FAILED
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.files import load_tensors, save_tensors, write_json
from monai_fedlora.privacy.accounting import epsilon_of
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.privacy.randomness import Randomness
from monai_fedlora.scope import Role
from tests.federated.conftest import Prepared, written_job
from tests.helpers import make_plan

SETTINGS: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-5, "clip": 0.5}
CASES = {"site-1": 8, "site-2": 8}
SAID = {"round", "cases", "restored_rounds", "images"}


def budget(**changes: Any) -> PrivacySettings:
    return PrivacySettings(**{**SETTINGS, **changes})


def plan_of(patients: int = 100, *, noise: float | None = 100.0, **changes: Any) -> Plan:
    return make_plan(privacy=budget(noise=noise), declared_cases={"north": patients}, **changes)


def test_everything_about_the_noise_follows_from_the_plan() -> None:
    plan = plan_of(100, local_epochs=3, rounds=2)
    found = NoisedRound.of(plan, "north", batch_size=16)
    assert found.mechanism == Mechanism(noise_multiplier=100.0, sample_rate=0.16, steps=3 * 7)
    assert found.of_epoch.steps == 7
    assert found.expected == pytest.approx(16)


def test_a_site_with_few_patients_has_all_of_them_in_every_step() -> None:
    found = NoisedRound.of(plan_of(5), "north", batch_size=16)
    assert (found.mechanism.sample_rate, found.mechanism.steps, found.expected) == (1, 1, 5)


@pytest.mark.slow
def test_all_rounds_together_stay_within_epsilon_with_little_to_spare() -> None:
    """Those of a run that is gone on with, too."""
    found = NoisedRound.of(plan_of(noise=None, rounds=3, start_round=2), "north", batch_size=25)
    assert 0.97 * 8 <= epsilon_of([found.mechanism] * 5, delta=1e-5) <= 8


@pytest.mark.slow
def test_rounds_to_spare_are_in_the_noise() -> None:
    """So many charges more stay within epsilon; that of one round more would not."""
    plan = plan_of(noise=None, rounds=3)
    plan = dataclasses.replace(plan, privacy=budget(spare_rounds=2))
    found = NoisedRound.of(plan, "north", batch_size=25)
    assert 0.97 * 8 <= epsilon_of([found.mechanism] * 5, delta=1e-5) <= 8
    given = dataclasses.replace(plan, privacy=budget(spare_rounds=3, noise=found.mechanism.noise_multiplier))
    with pytest.raises(ConfigError, match=r"3 rounds and 3 to spare of 4 steps"):
        NoisedRound.of(given, "north", batch_size=25)


@pytest.mark.slow
def test_too_little_noise_for_the_budget_is_refused_and_the_least_is_said() -> None:
    with pytest.raises(
        ConfigError, match=r"with a noise of 0\.3, 2 rounds of 7 steps on 100 patients of north"
    ) as caught:
        NoisedRound.of(plan_of(noise=0.3), "north", batch_size=16)
    least = float(str(caught.value).partition("it takes ")[2].partition(",")[0])
    assert NoisedRound.of(plan_of(noise=least), "north", batch_size=16).mechanism.noise_multiplier == least


def test_a_site_whose_patients_nobody_declared_is_refused() -> None:
    with pytest.raises(ConfigError, match="it does not of south: --cases"):
        NoisedRound.of(plan_of(), "south", batch_size=16)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"method": "fedper"}, "fedper cannot keep a budget: its head stays in the site"),
        ({"method": "dual_lora", "method_args": {"head": "private"}}, "dual_lora cannot keep a budget"),
        ({"training": {"class_weights": "balanced"}}, "class_weights is 'balanced', which counts"),
        ({"training": {"accumulation_steps": 2}}, "accumulation_steps is 2"),
        ({"training": {"compiler": "default"}}, "compiler is 'default'"),
        ({"declared_cases": {"north": 100_001}}, "delta is 1e-05, above one over the 100001 patients of north"),
    ],
)
def test_a_plan_that_could_not_keep_its_budget_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_plan(privacy=budget(), **changes)


def test_a_budget_is_written_and_read_and_stands_in_no_other_plan() -> None:
    plan = plan_of(training={"class_weights": [1.0, 2.0]})
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert "privacy" not in make_plan().to_json()


def test_a_budget_is_among_the_settings_of_a_federation() -> None:
    given = {"dp_epsilon": 8, "dp_delta": 1e-5, "dp_clip": 0.5, "fine_tune_epochs": 3}
    assert of_federation(given) == {"privacy": PrivacySettings(epsilon=8, delta=1e-5, clip=0.5), "fine_tune_epochs": 3}
    assert of_federation({**given, "dp_spare_rounds": 2})["privacy"].spare_rounds == 2
    with pytest.raises(ConfigError, match="give dp_delta too"):
        of_federation({"dp_epsilon": 8, "dp_clip": 1})


Make = Callable[..., Site]


@pytest.fixture
def make(prepared: Prepared, tmp_path: Path) -> Make:
    def construct(*, private: str = "private", **changes: Any) -> Site:
        return Site(
            name="site-1", plan=noised(prepared, **changes), private_root=tmp_path / private, source=prepared.source
        )

    return construct


def noised(prepared: Prepared, **changes: Any) -> Plan:
    return prepared.plan(**{"privacy": budget(), "declared_cases": CASES, "fine_tune_epochs": 1, **changes})


def first(site: Site, prepared: Prepared) -> dict[str, np.ndarray]:
    return build_shared(site.plan, backbone=str(prepared.backbone))[1]


@pytest.mark.slow
def test_a_round_sends_noised_tensors_and_next_to_nothing_about_itself(make: Make, prepared: Prepared) -> None:
    site = make(declared_cases={"site-1": 9})
    shared = first(site, prepared)
    before = site.scope.private_state(site.network)
    update = site.train_round(0, shared)
    assert set(update.report.to_json()) == SAID
    assert update.report.cases == 9  # as declared; the site has 8
    again = make(private="other", declared_cases={"site-1": 9}).train_round(0, shared)
    assert all(not np.array_equal(update.tensors[key], again.tensors[key]) for key in update.tensors)
    assert all(torch.equal(value, before[key]) for key, value in site.scope.private_state(site.network).items())


@pytest.mark.slow
def test_an_answer_is_charged_once_and_sent_again_only_where_it_was_charged(
    make: Make, prepared: Prepared, tmp_path: Path
) -> None:
    site = make()
    shared = first(site, prepared)
    tensors = site.train_round(0, shared).tensors
    assert charges(tmp_path) == 1
    again = make().train_round(0, shared).tensors
    assert all(np.array_equal(tensors[key], again[key]) for key in tensors)
    assert charges(tmp_path) == 1
    shutil.rmtree(tmp_path / "private" / ".ledger")
    with pytest.raises(PrivacyError, match="its ledger knows nothing of it"):
        make().train_round(0, shared)


def charges(tmp_path: Path) -> int:
    text = (tmp_path / "private" / ".ledger" / "charges.jsonl").read_text(encoding="utf-8")
    return sum('"answer"' in line for line in text.splitlines())


@pytest.mark.slow
def test_a_round_that_came_to_nothing_costs_another_charge(
    make: Make, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ends between the charge and the answer has told nobody anything, and nobody can know that."""
    site = make()
    shared = first(site, prepared)
    with monkeypatch.context() as patch:
        patch.setattr(site.store, "save", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            site.train_round(0, shared)
    assert charges(tmp_path) == 1
    make().train_round(0, shared)
    assert charges(tmp_path) == 2


@pytest.mark.slow
def test_a_spent_budget_trains_nothing(make: Make, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make()
    shared = first(site, prepared)
    for number in range(2):
        shared = site.train_round(number, shared).tensors
    monkeypatch.setattr(site._trainer, "run_epochs", lambda *_: pytest.fail("trained"))
    with pytest.raises(PolicyError, match="answers have spent"):
        site.train_round(2, shared)


@pytest.mark.slow
@pytest.mark.parametrize("spare", [0, 1])
def test_a_site_that_lost_an_answer_goes_on_as_often_as_the_plan_has_rounds_to_spare(
    make: Make, prepared: Prepared, monkeypatch: pytest.MonkeyPatch, spare: int
) -> None:
    site = make(rounds=1, privacy=budget(spare_rounds=spare))
    shared = first(site, prepared)
    for _ in range(1 + spare):
        with monkeypatch.context() as patch:
            patch.setattr(site.store, "save", lambda *_: (_ for _ in ()).throw(OSError("killed")))
            with pytest.raises(OSError, match="killed"):
                site.train_round(0, shared)
    with pytest.raises(PolicyError, match=rf"{1 + spare} answers have spent.*dp-spare-rounds"):
        site.train_round(0, shared)


@pytest.mark.slow
def test_seeded_noise_never_leaves(make: Make, prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noised_rounds, "Randomness", lambda: Randomness.seeded(0))
    site = make()
    with pytest.raises(PrivacyError, match="drawn from a seed"):
        site.train_round(0, first(site, prepared))
    assert site.store.kept_answer(0, sent="", after=None) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "ditto", "fedopal"])
def test_the_private_part_is_trained_after_the_last_round_and_nothing_of_it_is_said(
    make: Make, prepared: Prepared, tmp_path: Path, method: str
) -> None:
    site = make(method=method, rounds=1, method_args={"blocks": 1} if method == "fedopal" else {})
    shared = site.train_round(0, first(site, prepared)).tensors
    before = site.scope.private_state(site.network)
    said = site.finish(shared)
    assert set(said.to_json()) == SAID - {"images"}
    stored, metadata = load_tensors(site.store.folder / "final.safetensors")
    record = json.loads(metadata["record"])
    assert {"validation", "test"} <= record.keys()
    for key, value in shared.items():
        assert np.array_equal(stored[f"shared/{key}"].numpy().astype(value.dtype), value)
    assert not any(key.startswith("tuned/") for key in stored)
    moved = [key for key, value in before.items() if not torch.equal(stored[f"private/{key}"], value)]
    assert len(moved) == len(before) > 0
    assert all(p.requires_grad for name, p in site.network.named_parameters() if name in site.scope.keys(Role.SHARED))
    model = read_personal(site.store.folder / "final.safetensors", "site-1")
    exported = rebuild(model, str(prepared.backbone)).state_dict()
    assert all(torch.equal(exported[key], stored[f"private/{key}"]) for key in before)


@pytest.mark.slow
def test_a_method_without_a_private_part_may_train_further_for_itself(make: Make, prepared: Prepared) -> None:
    site = make(method="fedit", rounds=1)
    site.finish(site.train_round(0, first(site, prepared)).tensors)
    stored, _ = load_tensors(site.store.folder / "final.safetensors")
    assert any(key.startswith("tuned/") for key in stored)


@pytest.mark.slow
def test_nobody_is_told_that_the_private_part_diverged(
    make: Make,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = make(rounds=1)
    shared = site.train_round(0, first(site, prepared)).tensors

    def fail(error: Exception) -> Callable[[int], None]:
        def run(_epochs: int) -> None:
            raise error

        return run

    monkeypatch.setattr(site._tuner, "run_epochs", fail(Diverged("the loss is nan")))
    assert set(site.finish(shared).to_json()) == SAID - {"images"}
    assert "the loss is nan" in caplog.text
    assert {record.name for record in caplog.records if record.exc_info} == {"monai_fedlora.site"}
    assert "the loss is nan" in (tmp_path / "private" / "errors.log").read_text(encoding="utf-8")
    assert not (site.store.folder / "final.safetensors").exists()
    monkeypatch.setattr(site._tuner, "run_epochs", fail(Aborted("stopped")))
    with pytest.raises(Aborted):
        site.finish(shared)


@pytest.mark.slow
def test_a_site_that_is_built_anew_after_the_last_round_answers_again_and_ends(make: Make, prepared: Prepared) -> None:
    site = make(rounds=1)
    shared = first(site, prepared)
    tensors = site.train_round(0, shared).tensors
    again = make(rounds=1)
    assert all(np.array_equal(tensors[key], value) for key, value in again.train_round(0, shared).tensors.items())
    again.finish(tensors)
    assert (again.store.folder / "final.safetensors").exists()


@pytest.mark.slow
def test_what_was_trained_without_a_budget_is_not_gone_on_with_under_one(make: Make, prepared: Prepared) -> None:
    """The optimiser's moments would carry it out."""
    site = make(rounds=1, privacy=None)
    tensors = site.train_round(0, first(site, prepared)).tensors
    later = make(rounds=1, start_round=1, changed=("privacy",))
    with pytest.raises(PrivacyError, match="was trained without a budget for privacy"):
        later.train_round(1, tensors)


def test_no_job_goes_on_under_a_budget_from_tensors_without_one(tmp_path: Path) -> None:
    path = tmp_path / "shared.safetensors"
    save_tensors(path, {"a": torch.zeros(1)}, {"plan": json.dumps(make_plan().to_json())})
    with pytest.raises(ConfigError, match="by a run without a budget for privacy"):
        changes_since(path, plan=plan_of(start_round=1, changed=("privacy",)))
    save_tensors(path, {"a": torch.zeros(1)}, {"plan": json.dumps(plan_of().to_json())})
    assert "privacy" not in changes_since(path, plan=plan_of(start_round=1))[0]


@pytest.mark.slow
def test_a_whole_run_says_what_it_withholds(prepared: Prepared, tmp_path: Path) -> None:
    results = run_in_process(noised(prepared), folder=tmp_path / "run", **prepared.places)
    assert results["status"] == "finished"
    assert results["withheld"] == ["train_loss", "validation", "test", "seconds"]
    for entry in results["rounds"]:
        assert entry["score"] is None
        assert all(set(said) <= SAID for said in entry["sites"].values())
    assert all(set(said) <= SAID for said in results["final"].values())
    assert {said["cases"] for said in results["final"].values()} == {8}
    again = run_in_process(noised(prepared), folder=tmp_path / "run", overwrite=True, **prepared.places)
    assert again["status"] == "finished"  # its simulated sites begin with nothing told


@pytest.mark.slow
def test_in_nvflare_a_site_whose_budget_is_too_small_says_so_before_anybody_trains_and_the_others_go_on(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same noise one of few patients tells more: epsilon is 2.52 at the first site, and 0.70 at the second."""
    plan = noised(
        prepared,
        privacy=budget(noise=2.0),
        declared_cases={"site-1": 8, "site-2": 80},
        participation=Participation(min_sites=1),
    )
    policy = tmp_path / "policy.json"
    write_json(policy, {"least_cases": 1, "least_steps": 1, "budget": {"epsilon": 1.0, "delta": 1e-5}})
    monkeypatch.setenv(POLICY, str(policy))
    job, run = written_job(plan, tmp_path), tmp_path / "run"
    results = simulate(job, workspace=run, data=str(prepared.data), backbone=str(prepared.backbone), threads=2)
    assert {site: said["codes"] for site, said in results["ready"].items()} == {
        "site-1": [POLICY_FORBIDS],
        "site-2": [],
    }
    said = [entry["code"] for entry in results["refused"] if entry["site"] == "site-1"]
    assert len(said) == len(results["refused"]) and set(said) == {POLICY_FORBIDS, SITE_FAILED}  # of no task it says why
    charged = {path.parents[1].name: path.read_text(encoding="utf-8") for path in run.rglob("charges.jsonl")}
    assert {site: text.count('"answer"') for site, text in charged.items()} == {"site-2": 2}
    assert "2 more would make it 2.52" in (run / "private" / "errors.log").read_text(encoding="utf-8")
