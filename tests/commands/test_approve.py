"""`monai-fedlora approve` shows all of a job, and approves it alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora import site_report
from monai_fedlora.cli import main
from monai_fedlora.errors import PolicyError
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_policy import Policy, job_hash
from monai_fedlora.files import read_json, write_json
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from tests.helpers import make_manifest, make_plan

BUNDLE = "cine_cmr_dual_lora_classification"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


@pytest.fixture
def plan() -> Plan:
    return make_plan(bundle=BUNDLE, rounds=7, local_epochs=3, seed=41, training={"batch_size": 12})


@pytest.fixture
def job(tmp_path: Path, plan: Plan) -> Path:
    write_job(plan, make_manifest(), tmp_path / "job")
    return tmp_path / "job"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    (tmp_path / "local").mkdir()
    return tmp_path / "local"


def approve(job: Path, local: Path, *more: str) -> int:
    return main(["approve", str(job), "--output", str(local), *more])


def test_everything_of_a_job_stands_on_one_screen(job: Path, plan: Plan, capsys: Any) -> None:
    assert main(["approve", str(job)]) == 0
    lines = capsys.readouterr().out.splitlines()
    said = " ".join(" ".join(lines).split())
    assert len(lines) < 50
    for text in ("dual_lora", BUNDLE, "small", plan.backbone_sha256, "NOR, ABN", "north, south", "batch_size=12"):
        assert text in said
    for text in ("rank=", "learning_rate=", "seed=41", "wire_dtype=", "7 rounds (0 to 6) of 3 local epochs"):
        assert text in said
    for text in ("3 tensors, 44 bytes a round, 308 in all", "b.weight", "no formal guarantee", "in the clear"):
        assert text in said
    assert job_hash(plan, make_manifest()) in said
    assert "BRINGS CODE" not in said


def test_under_a_budget_it_says_what_protects_and_what_is_not_said(tmp_path: Path, plan: Plan, capsys: Any) -> None:
    budget = PrivacySettings(epsilon=8.0, delta=1e-5, clip=1.0, spare_rounds=2)
    private = dataclasses.replace(plan, privacy=budget, declared_cases={"north": 200, "south": 300})
    write_job(private, make_manifest(), tmp_path / "job")
    assert main(["approve", str(tmp_path / "job")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in (
        "epsilon 8, delta 1e-05, over all rounds and 2 that are trained again, by the site's own noise",
        "no loss, no metric, no time",
        "class_weights=None",
        "outside of it",
    ):
        assert text in said
    for text in ("no formal guarantee", "training loss", "confusion_matrix"):
        assert text not in said


def test_every_entry_of_a_plan_is_shown(job: Path, plan: Plan, capsys: Any) -> None:
    main(["approve", str(job)])
    said = capsys.readouterr().out
    own_place = {"experiment", "bundle", "method", "method_args", "sites", "classes", "rounds", "start_round"}
    own_place |= {"local_epochs", "size", "backbone_sha256", "training"}
    for key in plan.to_json().keys() - own_place:
        assert f"{key}=" in said


def test_every_number_that_a_report_may_hold_is_named(job: Path, capsys: Any) -> None:
    main(["approve", str(job)])
    said = capsys.readouterr().out
    for name in (*site_report._METRICS, "confusion_matrix", "training cases", "training loss", "seconds"):
        assert name in " ".join(said.split())


def test_showing_writes_nothing(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    assert main(["approve", str(job)]) == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_an_approval_makes_a_policy_that_trains_this_job_alone(job: Path, plan: Plan, local: Path) -> None:
    assert approve(job, local) == 0
    policy = Policy.load(local / "policy.json")
    assert dataclasses.replace(policy, approved=()) == Policy(require_approval=True)
    (entry,) = policy.approved
    assert (entry.sha256, entry.experiment) == (job_hash(plan, make_manifest()), "trial")
    assert len(entry.date) == 10
    policy.check_approved(plan, make_manifest())
    with pytest.raises(PolicyError):
        policy.check_approved(dataclasses.replace(plan, seed=0), make_manifest())


def test_an_approval_closes_the_gate_for_all_other_tensors(job: Path, local: Path) -> None:
    approve(job, local)
    (scope,) = read_json(local / "privacy.json")["scopes"]
    assert read_json(scope["task_result_filters"][0]["args"]["manifest"]) == make_manifest().to_json()


def rounding(local: Path, job: Path, bits: int) -> None:
    assert main(["privacy", str(job), "--output", str(local)]) == 0
    value = read_json(local / "privacy.json")
    value["scopes"][0]["task_result_filters"][0]["args"]["kept_bits"] = bits
    write_json(local / "privacy.json", value)


def test_a_site_is_told_how_its_own_gate_rounds_what_leaves(job: Path, local: Path, capsys: Any) -> None:
    assert main(["approve", str(job)]) == 0
    assert "with all bits of their values, unless privacy.json" in " ".join(capsys.readouterr().out.split())
    rounding(local, job, 5)
    assert approve(job, local) == 0
    assert "rounded by chance to 5 bits of each value's mantissa" in " ".join(capsys.readouterr().out.split())


def test_encoded_changes_that_the_sites_gate_cannot_round_are_not_approved(
    job: Path, local: Path, plan: Plan, tmp_path: Path, capsys: Any
) -> None:
    rounding(local, job, 5)
    write_job(dataclasses.replace(plan, wire_dtype="int8"), make_manifest(), tmp_path / "encoded")
    assert approve(tmp_path / "encoded", local) == 2
    assert "kept_bits), and the job's changes are encoded (wire_dtype int8" in " ".join(capsys.readouterr().err.split())
    assert not (local / "policy.json").exists()


def test_limits_and_earlier_approvals_stay(job: Path, plan: Plan, local: Path, tmp_path: Path) -> None:
    Policy(least_cases=33, most_rounds=50).save(local / "policy.json")
    approve(job, local)
    approve(job, local)
    resumed = dataclasses.replace(plan, start_round=7)
    write_job(resumed, make_manifest(), tmp_path / "resumed")
    approve(tmp_path / "resumed", local)
    policy = Policy.load(local / "policy.json")
    assert (policy.least_cases, policy.most_rounds, policy.require_approval) == (33, 50, False)
    hashes = [job_hash(each, make_manifest()) for each in (plan, resumed)]
    assert [approval.sha256 for approval in policy.approved] == hashes


def test_a_withdrawn_approval_is_none(job: Path, plan: Plan, local: Path, capsys: Any) -> None:
    approve(job, local)
    assert approve(job, local, "--withdraw") == 0
    with pytest.raises(PolicyError):
        Policy.load(local / "policy.json").check_approved(plan, make_manifest())
    assert approve(job, local, "--withdraw") == 2
    assert "holds no approval of this job" in capsys.readouterr().err


def code(job: Path) -> None:
    (job / "app" / "custom" / "deep").mkdir()
    (job / "app" / "custom" / "deep" / "helper.py").write_text("")


def further_app(job: Path) -> None:
    (job / "other" / "custom").mkdir(parents=True)
    (job / "other" / "custom" / "helper.py").write_text("")
    path = job / "meta.json"
    write_json(path, {**read_json(path), "deploy_map": {"app": ["server"], "other": ["north", "south"]}})


def linked(job: Path) -> None:
    path = job / "app" / "config" / "more"
    path.symlink_to(job.parent)


def executor(job: Path) -> None:
    path = job / "app" / "config" / "config_fed_client.json"
    value = read_json(path)
    value["executors"][0]["executor"] = {"path": "nvflare.app_common.executors.script.Runner", "args": {}}
    write_json(path, value)


def component(job: Path) -> None:
    path = job / "app" / "config" / "config_fed_client.json"
    write_json(path, {**read_json(path), "components": [{"id": "x", "class_path": "os.path"}]})


def unreadable(job: Path) -> None:
    (job / "app" / "config" / "config_fed_client.json").unlink()


def beyond(job: Path) -> None:
    path = job / "app" / "config" / "plan.json"
    write_json(path, {**read_json(path), "rounds": 5000})


def uninstalled(job: Path) -> None:
    path = job / "app" / "config" / "plan.json"
    write_json(path, {**read_json(path), "bundle": "unheard_of"})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (code, "app/custom/deep/helper.py"),
        (further_app, "other/custom/helper.py"),
        (linked, "app/config/more"),
        (executor, "nvflare.app_common.executors.script.Runner"),
        (component, "os.path"),
        (unreadable, "config_fed_client.json does not exist"),
        (beyond, "most_rounds: "),
        (uninstalled, "there is no bundle 'unheard_of'"),
    ],
)
def test_what_cannot_be_approved_is_said_and_changes_nothing(
    job: Path, local: Path, capsys: Any, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(job)
    assert approve(job, local) == 2
    assert said in capsys.readouterr().err
    assert list(local.iterdir()) == []


def test_a_job_that_brings_code_is_marked_where_it_is_shown(job: Path, capsys: Any) -> None:
    code(job)
    assert main(["approve", str(job)]) == 0
    assert "BRINGS CODE" in capsys.readouterr().out


def test_a_gate_for_other_tensors_is_named_and_nothing_is_approved(
    job: Path, local: Path, tmp_path: Path, capsys: Any
) -> None:
    write_job(make_plan(bundle=BUNDLE, experiment="other"), make_manifest("float16"), tmp_path / "other")
    assert approve(tmp_path / "other", local) == 0
    before = {path.name: path.read_bytes() for path in local.iterdir()}
    assert approve(job, local) == 2
    assert "privacy.json lets other tensors through" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in local.iterdir()} == before


def test_a_gate_for_fewer_numbers_is_named(job: Path, local: Path, tmp_path: Path, capsys: Any) -> None:
    write_job(make_plan(bundle=BUNDLE, classes=("NOR", "MINF", "DCM")), make_manifest(), tmp_path / "other")
    approve(tmp_path / "other", local)
    assert approve(job, local) == 2
    assert "numbers about 3 classes" in capsys.readouterr().err


def test_a_policy_that_cannot_be_read_is_left_alone(job: Path, local: Path) -> None:
    (local / "policy.json").write_text("mine")
    assert approve(job, local) == 2
    assert [path.read_text() for path in local.iterdir()] == ["mine"]


def test_withdrawing_needs_to_know_where(job: Path) -> None:
    assert main(["approve", str(job), "--withdraw"]) == 2


def test_withdrawing_where_nothing_was_approved_says_so(job: Path, tmp_path: Path, capsys: Any) -> None:
    assert approve(job, tmp_path / "wrong", "--withdraw") == 2
    assert "nothing was approved there" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_shipped_jobs_can_be_approved(repository: Path, tmp_path: Path) -> None:
    for app in sorted((repository / "nvflare_jobs").glob("*/app")):
        assert approve(app.parent, tmp_path / app.parent.name) == 0


# ---- monai-fedlora policy -------------------------------------------------------------------------------


def test_limits_are_written_and_changed_one_by_one(local: Path, capsys: Any) -> None:
    assert main(["policy", "--output", str(local), "--least-cases", "40", "--methods", "dual_lora,fedit"]) == 0
    assert main(["policy", "--output", str(local), "--most-rounds", "9", "--require-approval"]) == 0
    expected = Policy(least_cases=40, most_rounds=9, methods=("dual_lora", "fedit"), require_approval=True)
    assert Policy.load(local / "policy.json") == expected
    assert main(["policy", "--output", str(local), "--no-require-approval"]) == 0
    assert json.loads((local / "policy.json").read_text())["require_approval"] is False
    assert "dual_lora, fedit" in capsys.readouterr().out


def test_a_budget_is_written_shown_and_taken_away(local: Path, capsys: Any) -> None:
    assert main(["policy", "--output", str(local), "--budget", "8,1e-5"]) == 0
    assert Policy.load(local / "policy.json").budget == Budget(epsilon=8.0, delta=1e-5)
    assert "epsilon 8 at delta 1e-05" in capsys.readouterr().out
    assert main(["policy", "--output", str(local), "--least-cases", "20"]) == 0
    assert Policy.load(local / "policy.json").budget is not None
    assert main(["policy", "--output", str(local), "--budget", "none"]) == 0
    assert Policy.load(local / "policy.json").budget is None


def test_the_limits_that_hold_are_shown(local: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("MONAI_FEDLORA_POLICY")
    assert main(["policy"]) == 0
    shown = capsys.readouterr().out
    for name, value in Policy().to_json().items():
        assert name == "approved" or name in shown
        assert not isinstance(value, int) or str(value) in shown


@pytest.mark.parametrize(
    "options",
    [
        ["--least-cases", "0"],
        ["--least-steps", "-1"],
        ["--methods", "dual_lorra"],
        ["--budget", "8"],
        ["--budget", "0,1e-5"],
    ],
    ids=" ".join,
)
def test_limits_that_are_none_are_refused(local: Path, options: list[str]) -> None:
    assert main(["policy", "--output", str(local), *options]) == 2
    assert list(local.iterdir()) == []


def test_limits_without_a_place_are_refused(capsys: Any) -> None:
    assert main(["policy", "--least-cases", "4"]) == 2
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("option, name", [("--bundles", "cine_cmr_dual_lora_clasification"), ("--methods", "fedtit")])
def test_a_name_that_nothing_here_has_is_corrected(local: Path, capsys: Any, option: str, name: str) -> None:
    assert main(["policy", "--output", str(local), option, f"{name}"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert list(local.iterdir()) == []


def test_a_bundle_that_is_installed_can_be_named(local: Path) -> None:
    assert main(["policy", "--output", str(local), "--bundles", BUNDLE]) == 0
    assert Policy.load(local / "policy.json").bundles == (BUNDLE,)


@pytest.mark.parametrize("command", ["policy", "approve", "privacy"])
def test_a_mistyped_folder_of_a_site_is_not_made(job: Path, tmp_path: Path, capsys: Any, command: str) -> None:
    for name in ("startup", "local"):
        (tmp_path / "north" / name).mkdir(parents=True)
    what = [] if command == "policy" else [str(job)]
    assert main([command, *what, "--output", str(tmp_path / "north" / "locla")]) == 2
    assert "did you mean 'local'" in capsys.readouterr().err
    assert main([command, *what, "--output", str(tmp_path / "nroth" / "local")]) == 2
    assert "is the name mistyped?" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir() and "lo" in path.name) == ["local"]


def test_a_rehearsal_may_have_a_new_folder(tmp_path: Path, capsys: Any) -> None:
    assert main(["policy", "--output", str(tmp_path / "toys"), "--least-cases", "1"]) == 0
    assert "is new" in capsys.readouterr().out
    assert Policy.load(tmp_path / "toys" / "policy.json").least_cases == 1
    assert main(["policy", "--output", str(tmp_path / "toys"), "--least-cases", "2"]) == 0
    assert "is new" not in capsys.readouterr().out
