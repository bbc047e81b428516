"""A federation in one process: a complete record, and a result that does not depend on who goes first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.errors import DataError, ExportError
from monai_fedlora.exporting.finished import read_personal
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.one_backbone import FrozenTensors
from monai_fedlora.federated.participation import NotReady, Participation, TooFewAnswers
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.site_state import KeptAnswer, SiteState, SiteStore
from monai_fedlora.files import load_tensors, read_json, write_json
from monai_fedlora.networks.checkpoint_files import CheckpointFiles
from tests.federated.conftest import SITES, Prepared


@pytest.fixture(scope="module")
def plan(prepared: Prepared) -> Plan:
    return prepared.plan(sites=SITES, rounds=1)


@pytest.fixture(scope="module")
def run(plan: Plan, prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    return folder, run_in_process(plan, folder=folder, **prepared.places)


def test_the_record_is_complete(run: tuple[Path, Mapping[str, Any]], plan: Plan, prepared: Prepared) -> None:
    folder, results = run
    assert read_json(folder / "results.json") == results
    assert results["status"] == "finished"
    assert results["refused"] == []
    assert Plan.from_json(results["plan"]) == plan
    (only,) = results["rounds"]
    assert only["round"] == 0
    assert 0 <= only["score"] <= 1
    assert set(only["sites"]) == set(results["final"]) == set(SITES)
    for site in SITES:
        listed = read_json(prepared.data / site / "datalist.json")
        assert only["sites"][site]["cases"] == len(listed["training"])
        assert results["final"][site]["test"]["personal"]["n"] == len(listed["test"])


@pytest.mark.slow
def test_the_shared_tensors_are_the_average_of_the_sites_updates(
    run: tuple[Path, Mapping[str, Any]], plan: Plan, prepared: Prepared, tmp_path: Path
) -> None:
    manifest, shared = build_shared(plan)
    average = SharedAverage(method=plan.build_method(), manifest=manifest, sites=SITES)
    average.begin(0, shared)
    for name in SITES:
        update = Site(name=name, plan=plan, private_root=tmp_path, source=prepared.source).train_round(0, shared)
        average.accept(name, update)
    stored, metadata = load_tensors(run[0] / "shared.safetensors")
    for key, value in average.aggregate().items():
        np.testing.assert_array_equal(stored[key].numpy(), value)
    assert metadata["round"] == "0"
    for name in SITES:
        final = load_tensors(run[0] / "private" / plan.experiment / name / "final.safetensors")[0]
        assert all(torch.equal(final[f"shared/{key}"], value.float()) for key, value in stored.items())


@pytest.mark.slow
def test_the_order_of_the_sites_does_not_matter(
    run: tuple[Path, Mapping[str, Any]], plan: Plan, prepared: Prepared, tmp_path: Path
) -> None:
    run_in_process(dataclasses.replace(plan, sites=SITES[::-1]), folder=tmp_path, **prepared.places)
    one, other = (load_tensors(folder / "shared.safetensors")[0] for folder in (run[0], tmp_path))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    results = read_json(tmp_path / "results.json")
    assert results["rounds"][0]["score"] == run[1]["rounds"][0]["score"]
    assert {site: final["test"] for site, final in results["final"].items()} == {
        site: final["test"] for site, final in run[1]["final"].items()
    }


@pytest.mark.slow
def test_progress_is_told_whenever_a_site_has_answered(prepared: Prepared, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    results = run_in_process(
        prepared.plan(rounds=2),
        folder=tmp_path,
        **prepared.places,
        on_progress=lambda now: seen.append((sum(len(entry["sites"]) for entry in now["rounds"]), len(now["final"]))),
    )
    assert seen == [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 2)]
    assert results["status"] == "finished"


@pytest.mark.slow
def test_a_round_in_which_no_answer_counts_is_tried_three_times_and_ends_the_run(
    prepared: Prepared, tmp_path: Path
) -> None:
    plan = prepared.plan(sites=SITES[:1], rounds=1, max_update_rms=1e-9)
    with pytest.raises(TooFewAnswers, match=r"round 0 was tried 3 times .* 0 answers counted.* above 1e-09"):
        run_in_process(plan, folder=tmp_path, **prepared.places)
    results = read_json(tmp_path / "results.json")
    assert [(entry["round"], entry["site"]) for entry in results["refused"]] == [(0, "site-1")] * 3
    assert [entry["round"] for entry in results["repeated"]] == [0] * 3
    assert (results["status"], results["interrupted_by"]) == ("interrupted", "too_few_answers")
    assert (results["stage"], results["final"]) == ("training", {})
    assert not (tmp_path / "shared.safetensors").exists()


@pytest.mark.slow
def test_a_round_that_counts_in_the_second_attempt_is_that_of_a_run_without_mishap(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = prepared.plan(rounds=2, participation=Participation(min_sites=2))
    train, failures, trained = Site.train_round, ["site-2 in round 1"], list[str]()

    def once(self: Site, round_number: int, *args: Any, **more: Any) -> Any:
        if f"{self.name} in round {round_number}" in failures:
            failures.clear()
            raise OSError("the power of the ward")
        update = train(self, round_number, *args, **more)
        trained.append(f"{self.name} in round {round_number}: {update.report.seconds}")
        return update

    monkeypatch.setattr(Site, "train_round", once)
    results = run_in_process(plan, folder=tmp_path / "one", record_failures=True, **prepared.places)
    monkeypatch.undo()
    run_in_process(plan, folder=tmp_path / "other", **prepared.places)
    assert [(entry["round"], entry["reason"]) for entry in results["repeated"]] == [
        (1, "1 answers counted, of at least 2")
    ]
    assert results["status"] == "finished"
    assert results["restarted"] == []
    assert len(trained) == 5 and len(set(trained)) == 4  # site-1 has answered round 1 twice, the second time as before
    one, other = (load_tensors(tmp_path / run / "shared.safetensors")[0] for run in ("one", "other"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    finals = [tmp_path / run / "private" / "trial" / "site-1" / "final.safetensors" for run in ("one", "other")]
    one, other = (load_tensors(final)[0] for final in finals)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture
def broken(prepared: Prepared, tmp_path: Path) -> dict[str, Any]:
    """Places of the sites, of which site-2 lists an image that is not there."""
    for site in SITES[:2]:
        value = read_json(prepared.data / site / "datalist.json")
        if site == "site-2":
            value["training"][0]["ed"] = "patient-of-the-ward.nii.gz"
        write_json(tmp_path / "data" / site / "datalist.json", value)
    return {**prepared.places, "data_root": str(tmp_path / "data")}


@pytest.mark.slow
def test_a_site_that_fails_is_refused_and_the_others_go_on(
    broken: dict[str, Any], prepared: Prepared, tmp_path: Path
) -> None:
    folder, alone = tmp_path / "run", tmp_path / "alone"
    plan = prepared.plan(rounds=1, participation=Participation(min_sites=1))
    results = run_in_process(plan, folder=folder, record_failures=True, **broken)
    assert results["ready"]["site-1"] == {"codes": []}
    assert results["ready"]["site-2"]["codes"] == ["IMAGES_MISSING"]
    assert results["rounds"][0]["sites"].keys() == results["final"].keys() == {"site-1"}
    assert [(entry["round"], entry["site"]) for entry in results["refused"]] == [(0, "site-2")] * 2
    assert all("failed (DataError)" in entry["reason"] for entry in results["refused"])
    assert results["status"] == "finished" and not results["lacks"]
    assert "no answer of site-2 ever counted" in results["absent"]
    assert "patient-of-the-ward" not in (folder / "results.json").read_text()
    errors = folder / "private" / "errors.log"
    assert "patient-of-the-ward.nii.gz" in errors.read_text()
    assert errors.stat().st_mode & 0o077 == 0
    run_in_process(prepared.plan(rounds=1, sites=SITES[:1]), folder=alone, **prepared.places)
    one, other = (load_tensors(run / "shared.safetensors")[0] for run in (folder, alone))
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_a_run_that_needs_a_site_which_is_not_ready_ends_before_anybody_trains(
    broken: dict[str, Any], prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Site, "train_round", lambda self, *given, **named: pytest.fail("it trains"))
    with pytest.raises(NotReady, match=r"site-2: .*\(IMAGES_MISSING\).*--min-sites") as caught:
        run_in_process(prepared.plan(rounds=1), folder=tmp_path / "run", record_failures=True, **broken)
    assert "site-1: " not in str(caught.value)
    results = read_json(tmp_path / "run" / "results.json")
    assert "patient-of-the-ward" not in (tmp_path / "run" / "results.json").read_text()
    assert (results["status"], results["interrupted_by"], results["rounds"]) == ("interrupted", "not_ready", [])
    assert results["ready"]["site-2"]["codes"] == ["IMAGES_MISSING"]


@pytest.mark.slow
def test_a_site_that_failed_once_goes_on_as_after_a_restart(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failures = SiteStore.save, ["site-2 in round 1"]

    def once(self: SiteStore, state: SiteState, answer: KeptAnswer) -> None:
        if f"{self.folder.name} in round {state.round}" in failures:
            failures.clear()
            raise OSError("no space left on the disk of the ward")
        save(self, state, answer)

    monkeypatch.setattr(SiteStore, "save", once)
    results = run_in_process(prepared.plan(rounds=3), folder=tmp_path, record_failures=True, **prepared.places)
    assert [(entry["round"], entry["site"]) for entry in results["refused"]] == [(1, "site-2")]
    assert "the ward" not in results["refused"][0]["reason"]
    assert results["rounds"][2]["sites"]["site-2"]["restored_rounds"] == 1
    assert results["status"] == "finished"


@pytest.mark.slow
def test_a_site_that_never_trained_has_no_score_of_a_personal_model(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SiteStore.save

    def fail(self: SiteStore, state: SiteState, answer: KeptAnswer) -> None:
        if self.folder.name == "site-2":
            raise OSError("no space left on the disk")
        save(self, state, answer)

    monkeypatch.setattr(SiteStore, "save", fail)
    results = run_in_process(prepared.plan(rounds=1), folder=tmp_path, record_failures=True, **prepared.places)
    assert results["final"]["site-1"]["test"].keys() == {"personal", "shared"}
    assert results["final"]["site-2"]["test"].keys() == {"shared"}
    assert results["final"]["site-2"]["validation"].keys() == {"shared"}
    scores = (tmp_path / "private" / "trial" / "site-2" / "test_scores.csv").read_text()
    assert "shared" in scores and "personal" not in scores
    with pytest.raises(ExportError, match="site-2 has trained no round"):
        read_personal(tmp_path / "private" / "trial" / "site-2" / "final.safetensors", "site-2")


def test_a_failure_ends_the_run_unless_it_shall_be_recorded(
    broken: dict[str, Any], prepared: Prepared, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="patient-of-the-ward"):
        run_in_process(prepared.plan(rounds=1), folder=tmp_path / "run", **broken)


def test_where_no_site_can_begin_the_run_does_not_either(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(NotReady, match=r"site-2: .*\(SETTINGS_DIFFER\).*ConfigError: .* has the classes"):
        run_in_process(prepared.plan(classes=("NOR", "ILL")), folder=tmp_path, record_failures=True, **prepared.places)
    assert read_json(tmp_path / "results.json")["interrupted_by"] == "not_ready"


@pytest.mark.slow
def test_all_sites_train_on_one_backbone_and_as_they_would_with_their_own(
    plan: Plan, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = dataclasses.replace(plan, rounds=2)
    run_in_process(longer, folder=tmp_path / "one", **prepared.places)
    built: list[Site] = []
    monkeypatch.setattr(FrozenTensors, "share", lambda self, network, keys: None)
    monkeypatch.setattr(Site, "rest", lambda self: built.append(self))
    run_in_process(longer, folder=tmp_path / "own", **prepared.places)
    assert built
    for name in SITES:
        one, own = (
            load_tensors(tmp_path / run / "private" / plan.experiment / name / "final.safetensors")[0]
            for run in ("one", "own")
        )
        assert all(torch.equal(one[key], own[key]) for key in own)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dual_lora", "fedavg"])
def test_sites_at_rest_hold_one_backbone_and_nothing_that_trains(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    sites: list[Site] = []
    rest = Site.rest
    monkeypatch.setattr(Site, "rest", lambda self: (sites.append(self), rest(self)))
    run_in_process(prepared.plan(method=method, rounds=1), folder=tmp_path, **prepared.places)
    first, second = (dict(site.network.named_parameters()) for site in sites[:2])
    for site in sites:
        assert not site._optimiser.state
    frozen = [name for name, parameter in first.items() if not parameter.requires_grad]
    assert bool(frozen) is (method == "dual_lora")
    assert all(first[name].data_ptr() == second[name].data_ptr() for name in frozen)
    for parameter in (network[name] for network in (first, second) for name in network.keys() - set(frozen)):
        assert parameter.untyped_storage().nbytes() == parameter.element_size()
        assert parameter.grad is None


@pytest.mark.slow
def test_the_backbone_is_read_once(
    plan: Plan, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    check = CheckpointFiles.check_pin
    monkeypatch.setattr(CheckpointFiles, "check_pin", lambda self, pin: (read.append(self.path), check(self, pin))[1])
    run_in_process(plan, folder=tmp_path, **prepared.places)
    assert read == [prepared.backbone]
