"""A site trains on its own, remembers what is private, and believes nothing that it did not expect."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.engines.on_device import held_on
from monai_fedlora.errors import Aborted, ConfigError, DataError, PrivacyError, WeightsError
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.kept_runs import forget
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_evaluation import SiteEvaluation
from monai_fedlora.federated.update import Update
from monai_fedlora.files import load_tensors, read_json, save_tensors, sha256, write_json
from monai_fedlora.scope import Role
from monai_fedlora.site_report import MetricsForm, Report
from tests.federated.conftest import Prepared, same_bits

Build = Callable[..., Site]
Payload = dict[str, np.ndarray]
KEPT = ("logits", "shared_logits")


@pytest.fixture
def build(prepared: Prepared, tmp_path: Path) -> Build:
    """Construct a site as a new process would; private state is in ``tmp_path / "private"``."""

    def construct(plan: Plan | None = None, *, name: str = "site-1", **changes: Any) -> Site:
        places = {name: changes.pop(name, place) for name, place in prepared.places.items()}
        arguments = {"private_root": tmp_path / "private", "source": Installed(**places), **changes}
        return Site(name=name, plan=plan or prepared.plan(), **arguments)

    return construct


def first_shared(plan: Plan, prepared: Prepared) -> Payload:
    return build_shared(plan, backbone=str(prepared.backbone))[1]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def states_in(folder: Path) -> dict[str, bytes]:
    """What a site goes on from; an answer that the server has accepted is another name of the same state."""
    return {
        name.replace("answered", "round"): data
        for name, data in files_in(folder).items()
        if name != "answer.safetensors"
    }


def without_clock(report: Report) -> Report:
    return dataclasses.replace(report, seconds=None)


class Run:
    """Two rounds and the final evaluation of one site; the server sends back what it got."""

    def __init__(self, plan: Plan, prepared: Prepared, folder: Path, *, restarts: bool, name: str = "site-1") -> None:
        def construct() -> Site:
            return Site(name=name, plan=plan, private_root=folder, source=prepared.source)

        self.plan, self.site, self.updates = plan, construct(), []
        shared = first_shared(plan, prepared)
        for number in range(2):
            if restarts and number:
                self.site = construct()
            self.updates.append(self.site.train_round(number, shared))
            shared = self.updates[-1].tensors
        if restarts:
            self.site = construct()
        self.final = self.site.finish(shared)

    @property
    def last(self) -> Update:
        return self.updates[-1]


@pytest.fixture(scope="module")
def uninterrupted(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(prepared.plan(), prepared, tmp_path_factory.mktemp("uninterrupted"), restarts=False)


def test_a_round_returns_exactly_the_manifest_and_a_report_that_may_travel(uninterrupted: Run) -> None:
    manifest = uninterrupted.site.scope.manifest
    for number, update in enumerate(uninterrupted.updates):
        assert update.tensors.keys() == manifest.entries.keys()
        manifest.check(update.tensors)
        assert (
            Report.parse(update.report.to_json(), form=MetricsForm(classes=2), splits=("validation",)) == update.report
        )
        assert update.report.round == number
        assert set(update.report.to_json()) == {
            *("round", "cases", "images", "restored_rounds", "validation", "train_loss", "seconds")
        }


def test_the_reported_cases_are_those_of_the_training_split(uninterrupted: Run, prepared: Prepared) -> None:
    listed = read_json(prepared.data / "site-1" / "datalist.json")
    assert uninterrupted.last.report.cases == len(listed["training"])
    assert uninterrupted.final.test["personal"]["n"] == len(listed["test"])
    assert uninterrupted.final.validation["personal"]["n"] == len(listed["validation"])


def test_training_changes_shared_and_private_tensors_and_nothing_else(
    uninterrupted: Run, prepared: Prepared, tmp_path: Path
) -> None:
    before = Site(
        name="site-1", plan=uninterrupted.plan, private_root=tmp_path, source=prepared.source
    ).network.state_dict()
    scope, after = uninterrupted.site.scope, uninterrupted.site.network.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {*scope.keys(Role.SHARED), *scope.keys(Role.PRIVATE)}


def test_metrics_are_reported_with_the_private_part_on_and_off(uninterrupted: Run) -> None:
    for views in (uninterrupted.updates[0].report.validation, uninterrupted.final.validation, uninterrupted.final.test):
        assert set(views) == {"personal", "shared"}
    untrained = uninterrupted.updates[0].report.validation
    assert untrained["personal"] == untrained["shared"]  # a LoRA starts as nothing
    assert uninterrupted.final.test["personal"] != uninterrupted.final.test["shared"]


def test_features_leave_the_device_while_a_site_rests(
    uninterrupted: Run, build: Build, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_fedlora.engines.features.room_on", lambda device: 10**9)
    site = build(uninterrupted.plan)
    first = site.train_round(0, first_shared(uninterrupted.plan, prepared))
    assert len({inferer for inferer in site._resting._inferers if inferer._on_device}) == 2
    assert held_on(torch.device("cpu")) > 0
    site.rest()
    assert held_on(torch.device("cpu")) == 0
    assert same_bits(site.train_round(1, first.tensors).tensors, uninterrupted.updates[1].tensors)


@pytest.mark.slow
def test_a_site_that_restarts_after_every_task_computes_the_same_bits(
    uninterrupted: Run, prepared: Prepared, tmp_path: Path
) -> None:
    restarted = Run(uninterrupted.plan, prepared, tmp_path, restarts=True)
    for one, other in zip(uninterrupted.updates, restarted.updates, strict=True):
        assert same_bits(one.tensors, other.tensors)
        assert without_clock(one.report) == without_clock(other.report)
    assert without_clock(uninterrupted.final) == without_clock(restarted.final)
    stores = uninterrupted.site.store.folder, restarted.site.store.folder
    names = ["round-00001.safetensors"]
    assert all(not (store / "answer.safetensors").exists() for store in stores)
    assert [files_in(stores[0])[name] for name in names] == [files_in(stores[1])[name] for name in names]
    final, again = (load_tensors(store / "final.safetensors")[0] for store in stores)
    assert final.keys() == again.keys()
    assert all(torch.equal(final[key], again[key]) for key in final)


def test_the_stored_round_holds_private_tensors_and_all_of_the_optimiser(uninterrupted: Run) -> None:
    tensors, metadata = load_tensors(uninterrupted.site.store.folder / "round-00001.safetensors")
    scope = uninterrupted.site.scope
    private, trained = scope.keys(Role.PRIVATE), {*scope.keys(Role.SHARED), *scope.keys(Role.PRIVATE)}
    slots = {f"optimiser/{key}/{slot}" for key in trained for slot in ("step", "exp_avg", "exp_avg_sq")}
    assert set(tensors) == {f"private/{key}" for key in private} | slots
    assert json.loads(metadata["numbers"]) == {"round": 1, "epoch": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, key: tensors.pop(key), "lacks exp_avg_sq"),
        (lambda tensors, key: tensors.update({key: tensors[key][:1]}), "unlike its parameter"),
    ],
)
def test_an_optimiser_state_that_lacks_something_is_refused(
    build: Build, uninterrupted: Run, change: Callable[[dict[str, torch.Tensor], str], None], said: str
) -> None:
    tensors, metadata = load_tensors(uninterrupted.site.store.folder / "round-00001.safetensors")
    key = next(key for key in tensors if key.endswith("lora_A.shared.weight/exp_avg_sq"))
    change(tensors, key)
    site = build()
    save_tensors(site.store.folder / "round-00001.safetensors", tensors, metadata)
    with pytest.raises(WeightsError, match=said):
        site.train_round(2, {key: np.asarray(value) for key, value in uninterrupted.last.tensors.items()})


def test_the_final_model_is_the_last_shared_and_private_tensors(uninterrupted: Run) -> None:
    tensors, metadata = load_tensors(uninterrupted.site.store.folder / "final.safetensors")
    scope = uninterrupted.site.scope
    keys = {f"shared/{key}" for key in scope.keys(Role.SHARED)} | {f"private/{key}" for key in scope.keys(Role.PRIVATE)}
    assert set(tensors) == keys
    for key, value in uninterrupted.last.tensors.items():
        np.testing.assert_array_equal(tensors[f"shared/{key}"].numpy(), value.astype(np.float32))
    stored = load_tensors(uninterrupted.site.store.folder / "round-00001.safetensors")[0]
    assert all(torch.equal(tensors[key], value) for key, value in stored.items() if key.startswith("private/"))
    assert json.loads(metadata["record"]) == uninterrupted.final.to_json()


def test_what_calibrates_the_final_model_is_kept_beside_it_and_nowhere_else(uninterrupted: Run) -> None:
    folder = uninterrupted.site.store.folder
    tensors, metadata = load_tensors(folder / "evidence.safetensors")
    assert metadata["final_sha256"] == sha256(folder / "final.safetensors")
    assert (folder / "evidence.safetensors").stat().st_mode & 0o077 == 0
    for split in ("validation", "test"):
        found = classification_metrics(tensors[f"{split}/logits"].softmax(dim=1), tensors[f"{split}/labels"])
        reported = uninterrupted.final.to_json()[split]["personal"]
        assert found.pop("confusion_matrix") == reported["confusion_matrix"]
        assert found == {name: pytest.approx(reported[name], abs=0.6e-4) for name in found}
    cases = {split: len(tensors[f"{split}/labels"]) for split in ("training", "validation", "test")}
    assert cases["training"] == uninterrupted.final.cases
    for split, count in cases.items():
        assert len(tensors[f"{split}/logits"]) == len(tensors[f"{split}/units"]) == count
        assert len(tensors[f"{split}/features"]) == count
        assert bool(torch.isfinite(tensors[f"{split}/features"]).all())
    known = {"round", "cases", "restored_rounds", "validation", "test", "seconds"}
    assert uninterrupted.final.to_json().keys() == known


def test_what_the_models_say_of_every_test_case_is_kept_beside_them(uninterrupted: Run, prepared: Prepared) -> None:
    path = uninterrupted.site.store.folder / "test_scores.csv"
    assert path.stat().st_mode & 0o077 == 0
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    cases = [case["subject"] for case in read_json(prepared.data / uninterrupted.site.name / "datalist.json")["test"]]
    logits = load_tensors(path.with_name("evidence.safetensors"))[0]
    labels = logits["test/labels"].tolist()
    for view, key in (("personal", "test/logits"), ("shared", "test/shared_logits")):
        found = [line for line in lines if line["view"] == view]
        assert [line["case"] for line in found] == cases
        probabilities = logits[key].softmax(dim=1)
        right = [float(int(row.argmax()) == label) for row, label in zip(probabilities, labels, strict=True)]
        assert [float(line["score"]) for line in found] == right
        written = [[float(line["probability_NOR"]), float(line["probability_ABN"])] for line in found]
        assert torch.allclose(torch.tensor(written), probabilities, atol=1e-5)


@pytest.mark.slow
def test_a_personal_model_outlives_an_evaluation_after_the_states_were_removed(
    build: Build, prepared: Prepared, tmp_path: Path
) -> None:
    plan = prepared.plan(rounds=1)
    site = build(plan)
    update = site.train_round(0, first_shared(plan, prepared))
    site.finish(update.tensors, accepted=0)
    site.store.release()
    folder = tmp_path / "private" / plan.experiment / "site-1"
    trained = (folder / "final.safetensors").read_bytes()
    forget(tmp_path / "private", plan.experiment)
    for _ in range(2):
        build(plan).finish(update.tensors, accepted=0)
    assert (folder / "_earlier-1" / "final.safetensors").read_bytes() == trained
    assert (folder / "_earlier-1" / "evidence.safetensors").is_file()
    assert [path.name for path in folder.glob("_earlier-*")] == ["_earlier-1"]
    assert (folder / "final.safetensors").read_bytes() != trained


def test_round_zero_starts_fresh_even_where_an_older_run_left_its_state(
    build: Build, prepared: Prepared, uninterrupted: Run
) -> None:
    site, shared = build(), first_shared(uninterrupted.plan, prepared)
    site.train_round(0, shared)
    site.finish(site.train_round(1, shared).tensors)
    again = site.train_round(0, shared)
    assert (site.store.rounds(), site.store.rounds("answered")) == ([], [0])
    assert not (site.store.folder / "final.safetensors").exists()
    assert {path.name for path in (site.store.folder / "_earlier-1").iterdir()} == {
        "round-00001.safetensors",
        "final.safetensors",
        "evidence.safetensors",
        "test_scores.csv",
    }
    assert same_bits(again.tensors, uninterrupted.updates[0].tensors)


def test_a_late_joiner_starts_fresh(build: Build, prepared: Prepared, uninterrupted: Run) -> None:
    site = build()
    update = site.train_round(1, first_shared(uninterrupted.plan, prepared))
    expected = uninterrupted.updates[0]
    assert same_bits(update.tensors, expected.tensors)
    assert update.report.round == 1
    assert site.store.rounds("answered") == [1]


def test_a_site_that_missed_a_round_goes_on_from_its_last_one(
    build: Build, prepared: Prepared, uninterrupted: Run
) -> None:
    build().train_round(0, first_shared(uninterrupted.plan, prepared))
    site = build()
    update = site.train_round(5, uninterrupted.updates[0].tensors)
    assert same_bits(update.tensors, uninterrupted.updates[1].tensors)
    assert (site.store.rounds(), site.store.rounds("answered")) == ([0], [5])


def test_a_server_that_goes_back_too_far_is_refused(build: Build, prepared: Prepared) -> None:
    site = build()
    shared = first_shared(site.plan, prepared)
    site.train_round(5, shared)
    with pytest.raises(PrivacyError, match=r"holds rounds \[5\].*round 4"):
        site.train_round(4, shared)


def spoilt(payload: Payload) -> Iterator[Payload]:
    """A payload with every kind of mistake."""
    key = sorted(payload)[0]
    yield {**payload, "encoder.blocks.0.attn.q.lora_A.private.weight": payload[key]}
    yield {name: value for name, value in payload.items() if name != key}
    yield {**payload, key: np.full_like(payload[key], np.nan)}
    yield {**payload, key: payload[key][:1]}
    yield {**payload, key: payload[key].astype(np.float64)}


def test_unexpected_tensors_from_the_server_are_refused_and_change_nothing(
    build: Build, prepared: Prepared, uninterrupted: Run
) -> None:
    site, shared = build(), first_shared(uninterrupted.plan, prepared)
    update = site.train_round(0, shared)
    files, state = files_in(site.store.folder), {k: v.clone() for k, v in site.network.state_dict().items()}
    for bad in spoilt(update.tensors):
        for number in (0, 1):
            with pytest.raises(PrivacyError):
                site.train_round(number, bad)
        with pytest.raises(PrivacyError):
            site.finish(bad)
    assert files_in(site.store.folder) == files
    assert all(torch.equal(state[key], value) for key, value in site.network.state_dict().items())
    assert same_bits(site.train_round(1, update.tensors).tensors, uninterrupted.updates[1].tensors)


def test_a_new_process_can_repeat_a_round_that_failed_half_way(
    build: Build, prepared: Prepared, uninterrupted: Run
) -> None:
    site = build()
    update = site.train_round(0, first_shared(uninterrupted.plan, prepared))

    def fail(*_: Any) -> None:
        raise OSError("the disk is gone")

    with site._optimiser.register_step_post_hook(fail), pytest.raises(OSError, match="gone"):
        site.train_round(1, update.tensors)
    assert (site.store.rounds(), site.store.rounds("answered")) == ([0], [])
    assert same_bits(build().train_round(1, update.tensors).tensors, uninterrupted.updates[1].tensors)


def test_other_classes_than_the_plans_name_the_file(build: Build, prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match=r"site-1/datalist\.json has the classes \['NOR', 'ABN'\].*\['NOR', 'HCM'\]"):
        build(prepared.plan(classes=("NOR", "HCM")))
    with pytest.raises(ConfigError, match=r"datalist\.json"):
        build(prepared.plan(classes=("ABN", "NOR")))


def test_another_backbone_than_the_pinned_one_is_refused(build: Build, prepared: Prepared) -> None:
    with pytest.raises(WeightsError, match=r"backbone\.safetensors.*SHA-256"):
        build(prepared.plan(backbone_sha256="0" * 64))


def test_data_and_backbone_come_from_the_sites_environment(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in prepared.environment.items():
        monkeypatch.setenv(name, value)
    assert Site(name="site-1", plan=prepared.plan(), private_root=tmp_path).network
    monkeypatch.setenv("MONAI_FEDLORA_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"site-1/datalist\.json does not exist"):
        Site(name="site-1", plan=prepared.plan(), private_root=tmp_path)


@pytest.mark.parametrize(
    ("bundle", "phantom"),
    [("cine_cmr_dual_lora_classification", "cine"), ("image_2d_fedopal_classification", "dermoscopy")],
)
def test_a_site_without_data_has_the_phantom_of_its_bundle(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle: str, phantom: str
) -> None:
    def look(site: str, **where: Any) -> Path:
        raise DataError(f"{site}: {where}")

    monkeypatch.setattr("monai_fedlora.federated.materials.site_data", look)
    with pytest.raises(
        DataError, match=f"site-1: {{'data_root': None, 'phantom': '{phantom}', 'task': 'classification'"
    ):
        Site(name="site-1", plan=prepared.plan(bundle=bundle), private_root=tmp_path)


def test_a_setting_that_the_bundle_does_not_have_is_named(
    build: Build, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai_fedlora.resources import bundle_path

    config = read_json(bundle_path(prepared.plan().bundle) / "configs" / "train.json")
    del config["save_checkpoints"]
    config |= read_json(bundle_path(prepared.plan().bundle).parent / "training.json")  # complete in itself
    write_json(tmp_path / "bundles" / "reduced" / "configs" / "train.json", config)
    monkeypatch.setenv("MONAI_FEDLORA_BUNDLES", str(tmp_path / "bundles"))
    with pytest.raises(ConfigError, match="bundle reduced has no setting 'save_checkpoints'"):
        build(prepared.plan(bundle="reduced"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"method_args": {"rank": 4}}, {"method_args": {"alpha": 8}}, {"method": "fedit"}],
    ids=["rank", "alpha", "method"],
)
def test_private_state_of_another_experiment_is_refused(
    build: Build, prepared: Prepared, change: dict[str, Any]
) -> None:
    site = build()
    site.train_round(0, first_shared(site.plan, prepared))
    files = states_in(site.store.folder)
    other = build(prepared.plan(**change))
    with pytest.raises(PrivacyError, match=r"round-00000\.safetensors belongs to another experiment"):
        other.train_round(1, first_shared(other.plan, prepared))
    assert states_in(site.store.folder) == files


def test_private_state_of_another_site_is_refused(build: Build, prepared: Prepared, tmp_path: Path) -> None:
    site = build()
    shared = first_shared(site.plan, prepared)
    site.train_round(0, shared)
    site.store.release()
    site.store.folder.rename(site.store.folder.with_name("site-2"))
    with pytest.raises(PrivacyError, match="another experiment, method, backbone or site"):
        build(name="site-2").train_round(1, shared)


def test_sites_differ_and_the_same_site_repeats(build: Build, prepared: Prepared, uninterrupted: Run) -> None:
    one, same, other = build(), build(), build(name="site-2")
    private = one.scope.keys(Role.PRIVATE)
    factors = [key for key in private if ".lora_A." in key]
    state, again, elsewhere = (site.network.state_dict() for site in (one, same, other))
    assert factors
    assert all(torch.equal(state[key], again[key]) for key in private)
    assert all(not torch.equal(state[key], elsewhere[key]) for key in factors)
    reseeded = build(prepared.plan(seed=1)).network.state_dict()
    assert all(not torch.equal(state[key], reseeded[key]) for key in factors)


def test_training_follows_the_plans_settings(build: Build, prepared: Prepared) -> None:
    site = build(prepared.plan(local_epochs=3, training={"batch_size": 2, "learning_rate": 0.5, "warmup_epochs": 0}))
    steps: list[float] = []
    site._optimiser.register_step_post_hook(lambda optimiser, *_: steps.append(optimiser.param_groups[0]["lr"]))
    update = site.train_round(0, first_shared(site.plan, prepared))
    per_epoch = -(-update.report.cases // 2)
    assert len(steps) == 3 * per_epoch
    assert steps[0] == 0.5
    assert 0.25 < steps[-1] < 0.5  # two rounds are planned, so the first ends half way down


def test_a_site_without_validation_and_test_cases_takes_part(prepared: Prepared, tmp_path: Path) -> None:
    listed = read_json(prepared.data / "site-1" / "datalist.json")
    write_json(tmp_path / "site-1" / "datalist.json", {**listed, "validation": [], "test": []})
    places = {**prepared.places, "data_root": str(tmp_path)}
    site = Site(name="site-1", plan=prepared.plan(), private_root=tmp_path / "private", source=Installed(**places))
    update = site.train_round(0, first_shared(site.plan, prepared))
    assert update.report.validation == {"personal": {}, "shared": {}}
    assert site.finish(update.tensors).test == {"personal": {}, "shared": {}}


@pytest.mark.slow
def test_a_round_that_is_given_up_ends_early_and_leaves_nothing(build: Build, prepared: Prepared) -> None:
    stopped = iter([False, False, False, True, True])  # in the first step of the second round
    site = build(prepared.plan(local_epochs=2), should_stop=lambda: next(stopped, False))
    shared = first_shared(site.plan, prepared)
    first = site.train_round(0, shared)
    before = states_in(site.store.folder)
    with pytest.raises(Aborted):
        site.train_round(1, first.tensors)
    assert next(stopped, None) is None
    assert states_in(site.store.folder) == before
    again, other = site.train_round(1, first.tensors), build(site.plan).train_round(1, first.tensors)
    assert same_bits(again.tensors, other.tensors)


def test_a_round_that_is_given_up_in_its_last_step_is_not_finished(build: Build, prepared: Prepared) -> None:
    stopped = iter([False, True, True])
    site = build(should_stop=lambda: next(stopped))
    with pytest.raises(Aborted):
        site.train_round(0, first_shared(site.plan, prepared))
    assert site.store.rounds() == []


@pytest.mark.slow
def test_local_keeps_everything(prepared: Prepared, tmp_path: Path) -> None:
    run = Run(prepared.plan(method="local"), prepared, tmp_path, restarts=True)
    assert [update.tensors for update in run.updates] == [{}, {}]
    assert run.site.scope.manifest.nbytes == 0
    assert set(run.final.test) == {"personal"}
    final = load_tensors(run.site.store.folder / "final.safetensors")[0]
    stored = load_tensors(run.site.store.folder / "round-00001.safetensors")[0]
    assert final.keys() == {f"private/{key}" for key in run.site.scope.keys(Role.PRIVATE)}
    assert all(torch.equal(value, stored[key]) for key, value in final.items())


@pytest.mark.slow
def test_fedavg_sends_everything_that_trains_and_has_one_model(
    build: Build, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = build(prepared.plan(method="fedavg", rounds=1))
    before = first_shared(site.plan, prepared)
    update = site.train_round(0, before)
    assert site.scope.keys(Role.PRIVATE) == []
    assert update.tensors.keys() == {name for name, p in site.network.named_parameters() if p.requires_grad}
    assert all(not np.array_equal(before[key], value) for key, value in update.tensors.items())
    last = build(site.plan)
    runs, run = list[str](), SiteEvaluation.of_network
    monkeypatch.setattr(SiteEvaluation, "of_network", lambda self, split: (runs.append(split), run(self, split))[1])
    test = last.finish(update.tensors).test
    assert test["personal"] == test["shared"]
    assert runs == ["validate", "test"]  # both are one model
    assert torch.equal(*(load_tensors(last.store.folder / "evidence.safetensors")[0][f"test/{k}"] for k in KEPT))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedrep", "feddpa", "ditto", "pfedst"])
def test_a_site_that_would_never_train_a_part_is_refused_before_anything_is_scored(
    build: Build, prepared: Prepared, tmp_path: Path, method: str
) -> None:
    alternating = {"classifier": "linear", "schedule": "alternate"} if method == "pfedst" else {}
    training = {"batch_size": 32, "warmup_epochs": 0}
    plan = prepared.plan(method=method, method_args=alternating, training=training, rounds=1)
    with pytest.raises(
        ConfigError, match=r"site-1 has \d+ training cases, in batches of 32: .*1 optimiser step .* 2 phases"
    ):
        build(plan)
    assert files_in(tmp_path / "private") == {}
    build(dataclasses.replace(plan, local_epochs=2))
    build(dataclasses.replace(plan, rounds=2))
