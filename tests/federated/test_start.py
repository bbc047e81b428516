"""Every runner begins with the same tensors, and a run that was killed goes on to the bits of one that was not."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.cli import main
from monai_fedlora.errors import ConfigError, PrivacyError, WeightsError
from monai_fedlora.federated.initial import build_manifest, build_shared, needs_backbone, save_shared
from monai_fedlora.federated.job_files import CONFIG, INITIAL_NAME
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import STATE_LOST
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.start import Start
from monai_fedlora.files import load_tensors, read_json, write_json
from monai_fedlora.scope import Manifest
from tests.federated.conftest import Prepared, same_bits
from tests.helpers import make_plan

JOBS = Path(__file__).resolve().parents[2] / "nvflare_jobs"
PLAN = make_plan(method="fedit", rounds=3)


def job_of(plan: Plan, folder: Path, *, stored: Plan | None = None, after: int = 0) -> Path:
    """A job folder; with ``stored``, it goes on from ones that this plan stored after a round."""
    manifest, shared = build_shared(plan)
    initial = None
    if stored is not None:
        initial = folder / "stored.safetensors"
        save_shared(initial, {key: value + 1 for key, value in shared.items()}, plan=stored, round_number=after)
    write_job(plan, manifest, folder / "job", initial=initial)
    return folder / "job"


@pytest.mark.slow
@pytest.mark.parametrize("config", sorted(JOBS.glob(f"*/{CONFIG}")), ids=lambda path: path.parents[1].name)
def test_the_manifest_of_a_shipped_job_follows_from_its_plan_without_any_weight(config: Path) -> None:
    assert build_manifest(Plan.load(config / "plan.json")) == Manifest.load(config / "manifest.json")


def test_a_job_without_stored_tensors_begins_at_its_seed(tmp_path: Path) -> None:
    start = Start.of_job(job_of(PLAN, tmp_path) / CONFIG)
    assert start.plan == PLAN
    assert start.manifest == build_shared(PLAN)[0]
    assert same_bits(start.shared, build_shared(PLAN)[1])
    assert same_bits(start.shared, Start.of_plan(PLAN).shared)


def test_a_job_with_stored_tensors_begins_with_them(tmp_path: Path) -> None:
    later = dataclasses.replace(PLAN, start_round=1, rounds=2)
    for plan, folder in ((PLAN, tmp_path / "anew"), (later, tmp_path / "on")):
        start = Start.of_job(job_of(plan, folder, stored=PLAN) / CONFIG)
        assert same_bits(start.shared, {key: value + 1 for key, value in build_shared(PLAN)[1].items()})


def test_a_job_whose_manifest_was_changed_is_refused(tmp_path: Path) -> None:
    job = job_of(PLAN, tmp_path, stored=PLAN)
    entries = read_json(job / CONFIG / "manifest.json")
    entries["encoder.blocks.4.attn.q.lora_A.private.weight"] = {"shape": [8, 96], "dtype": "float16"}
    write_json(job / CONFIG / "manifest.json", entries)
    with pytest.raises(PrivacyError, match="manifest does not fit its plan"):
        Start.of_job(job / CONFIG)


@pytest.mark.parametrize(
    "stored, after, said",
    [
        (None, 0, "does not exist"),
        (PLAN, 1, "stored after round 1"),
        (PLAN, -1, "stored after round -1"),
        (dataclasses.replace(PLAN, experiment="other"), 0, "another experiment"),
    ],
    ids=["none", "later", "before the first", "other experiment"],
)
def test_a_later_round_begins_only_with_what_the_round_before_has_left(
    tmp_path: Path, stored: Plan | None, after: int, said: str
) -> None:
    job = job_of(dataclasses.replace(PLAN, start_round=1, rounds=2), tmp_path, stored=stored, after=after)
    with pytest.raises(ConfigError, match=said):
        Start.of_job(job / CONFIG)


def test_a_plan_that_goes_on_with_other_settings_has_to_say_so(tmp_path: Path) -> None:
    later = dataclasses.replace(PLAN, start_round=1, rounds=3, seed=7, training={"batch_size": 2})
    said = r"rounds: 3 in all -> 4 in all.*seed: 0 -> 7|seed: 0 -> 7.*rounds: 3 in all -> 4 in all"
    with pytest.raises(ConfigError, match=said) as caught:
        Start.of_job(job_of(later, tmp_path / "silent", stored=PLAN) / CONFIG)
    assert "training.batch_size: not set -> 2" in str(caught.value)
    assert "--accept-changes" in str(caught.value)
    accepted = dataclasses.replace(later, changed=("rounds", "seed", "training.batch_size"))
    assert Start.of_job(job_of(accepted, tmp_path / "said", stored=PLAN) / CONFIG).plan == accepted


def test_a_plan_alone_cannot_begin_in_a_later_round() -> None:
    with pytest.raises(ConfigError, match="job folder"):
        Start.of_plan(dataclasses.replace(PLAN, start_round=1))


def test_stored_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    job = job_of(PLAN, tmp_path)
    save_shared(job / CONFIG / INITIAL_NAME, {"a": np.zeros(3, np.float32)}, plan=PLAN, round_number=4)
    with pytest.raises(WeightsError, match=r"initial_shared\.safetensors does not fit"):
        Start.of_job(job / CONFIG)


class Killed(Exception):
    """What ends a run from outside."""


def check_recovery(plan: Plan, prepared: Prepared, folder: Path, *, after: int = 3) -> None:
    """Kill a run after so many answers, go on as the guide says, and compare with a run that nobody disturbed."""
    whole, killed = folder / "whole", folder / "killed"
    job = folder / "jobs" / plan.experiment
    manifest, _ = build_shared(plan, backbone=str(prepared.backbone) if needs_backbone(plan) else None)
    write_job(plan, manifest, job)
    expected = run_in_process(job, folder=whole, **prepared.places)

    def kill(results: Mapping[str, Any]) -> None:
        if sum(len(entry["sites"]) for entry in results["rounds"]) == after:
            raise Killed

    with pytest.raises(Killed):
        run_in_process(job, folder=killed, **prepared.places, on_progress=kill)
    assert load_tensors(killed / "shared.safetensors")[1]["round"] == "0"

    rest = folder / "jobs" / "rest"
    settings = [f"--set={name}={json.dumps(value)}" for name, value in {**plan.method_args, **plan.training}.items()]
    settings += [f"--experiment={plan.experiment}", f"--sites={','.join(plan.sites)}"]
    settings += [f"--backbone={prepared.backbone}", f"--size={plan.size}", f"--bundle={plan.bundle}"]
    settings += [f"--classes={','.join(plan.classes)}", f"--wire={plan.wire_dtype}", f"--top-k={plan.top_k}"]
    start = f"--start-from={killed / 'shared.safetensors'}"
    assert main(["job", plan.method, f"--output={rest}", start, "--resume", *settings]) == 0
    data = [f"--data={prepared.data}", f"--backbone={prepared.backbone}"]
    assert main(["simulate", str(rest), f"--workspace={killed}", "--in-process", *data]) == 0

    found = read_json(killed / "results.json")
    assert [entry["round"] for entry in found["rounds"]] == list(range(1, plan.rounds))
    for site in plan.sites:
        assert found["final"][site] | {"seconds": 0} == expected["final"][site] | {"seconds": 0}
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*.safetensors")) if "evidence" not in path.name]
    assert len(names) >= 2 + 2 * len(plan.sites) - 1
    for name in names:
        if name.name == "best_shared.safetensors":
            continue
        one, other = load_tensors(whole / name)[0], load_tensors(killed / name)[0]
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_undisturbed_bits(prepared: Prepared, tmp_path: Path) -> None:
    """With private adapters, moments of the optimiser, and changes that were not sent yet."""
    check_recovery(prepared.plan(wire_dtype="int8", top_k=0.1), prepared, tmp_path)


@pytest.mark.slow
def test_a_site_that_lost_its_private_folder_is_recorded(prepared: Prepared, tmp_path: Path) -> None:
    plan = prepared.plan(method="local", rounds=1)
    run_in_process(plan, folder=tmp_path / "run", **prepared.places)
    later = dataclasses.replace(plan, start_round=1)
    write_job(later, build_manifest(later), tmp_path / "job", initial=tmp_path / "run" / "shared.safetensors")
    shutil.rmtree(tmp_path / "run" / "private" / "trial" / "site-2")
    results = run_in_process(tmp_path / "job", folder=tmp_path / "run", **prepared.places)
    assert results["restarted"] == [{"round": 1, "site": "site-2", "code": STATE_LOST, "restored_rounds": 0}]
    had = {site: report["restored_rounds"] for site, report in results["rounds"][0]["sites"].items()}
    assert had == {"site-1": 1, "site-2": 0}
    assert {report["restored_rounds"] for report in results["final"].values()} == {2}
    assert results["status"] == "finished"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": "fedavg"}, marks=pytest.mark.long),
        {"method": "ditto", "training": {"batch_size": 2, "warmup_epochs": 0}},
        {"method": "fedbn"},
        {"method": "flexlora", "method_args": {"ranks": [2, 8]}, "rounds": 3},
        {"method": "local"},
    ],
    ids=["fedavg", "ditto", "fedbn", "flexlora", "local"],
)
def test_a_killed_run_of_any_kind_of_method_goes_on(
    prepared: Prepared, tmp_path: Path, changes: dict[str, Any]
) -> None:
    check_recovery(prepared.plan(**changes), prepared, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_the_bits_do_not_depend_on_the_machines_threads(
    prepared: Prepared, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plan = prepared.plan(method="local", rounds=1, sites=("site-1",))
    torch.set_num_threads(threads)
    try:
        run_in_process(
            plan, folder=tmp_path, **prepared.places, on_progress=lambda _: seen.append(torch.get_num_threads())
        )
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert set(seen) == {1}
