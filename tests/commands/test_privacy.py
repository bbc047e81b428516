"""`monai-fedlora privacy` writes the gate that a site keeps whatever a job says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FilterKey, FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace
from nvflare.private.fed.app.fl_conf import create_privacy_manager

from monai_fedlora.cli import main
from monai_fedlora.federated.filters import SharedOnly
from monai_fedlora.federated.flare_context import weights_message
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.files import write_json
from monai_fedlora.privacy.accounting import epsilon_of
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.scope import Manifest
from tests.helpers import make_manifest, make_payload, make_plan
from tests.privacy.test_forecast import charged


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_job(make_plan(), make_manifest(), tmp_path / "job")
    return tmp_path / "job"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    for name in ("startup", "local"):
        (tmp_path / "site" / name).mkdir(parents=True)
    return tmp_path / "site" / "local"


def test_the_approved_tensors_are_listed_and_kept_beside_the_policy(job: Path, local: Path, capsys: Any) -> None:
    assert main(["privacy", str(job), "--output", str(local)]) == 0
    said = capsys.readouterr().out
    for key in make_manifest().entries:
        assert re.search(rf"^  {re.escape(key)}  float32\[", said, re.MULTILINE)
    assert "(44 bytes up, 44 down)" in " ".join(said.split())
    approved = local / "approved_manifest_trial.json"
    assert {path.name for path in local.iterdir()} == {"privacy.json", approved.name}
    assert Manifest.load(approved) == make_manifest()
    policy = json.loads((local / "privacy.json").read_text())
    assert policy["default_scope"] == policy["scopes"][0]["name"]


@pytest.mark.parametrize("is_server", [False, True])
def test_nvflare_reads_the_policy_and_gates_both_directions(job: Path, local: Path, is_server: bool) -> None:
    main(["privacy", str(job), "--output", str(local)])
    workspace = Workspace(str(local.parent), site_name="north")
    scope = create_privacy_manager(workspace, names_only=False, is_server=is_server).get_scope(None)
    leaving, coming = (FilterKey.IN, FilterKey.OUT) if is_server else (FilterKey.OUT, FilterKey.IN)
    for chains, direction in ((scope.task_result_filters, leaving), (scope.task_data_filters, coming)):
        assert [type(gate) for gate in chains[direction]] == [SharedOnly]


def test_the_gate_holds_against_a_job_that_declares_more(job: Path, local: Path, tmp_path: Path) -> None:
    main(["privacy", str(job), "--output", str(local)])
    workspace = Workspace(str(local.parent), site_name="north")
    scope = create_privacy_manager(workspace, names_only=False).get_scope(None)
    (gate,) = scope.task_result_filters[FilterKey.OUT]
    greedy = {**make_manifest().to_json(), "secret": {"shape": [3], "dtype": "float32"}}
    write_json(tmp_path / "app" / "config" / "manifest.json", greedy)
    context = FLContext()
    context.set_prop(FLContextKey.APP_ROOT, str(tmp_path / "app"), private=True, sticky=False)
    context.set_prop(FLContextKey.FILTER_DIRECTION, FilterKey.OUT, private=True, sticky=False)
    payload = make_payload(make_manifest())
    gate.process(weights_message(payload), context)
    assert SharedOnly().process(weights_message({**payload, "secret": np.zeros(3, np.float32)}), context)
    with pytest.raises(ContentBlockedException, match="secret"):
        gate.process(weights_message({**payload, "secret": np.zeros(3, np.float32)}), context)


def test_the_policy_works_from_any_folder(
    job: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(local.parent)
    assert main(["privacy", str(job), "--output", "local"]) == 0
    policy = json.loads((local / "privacy.json").read_text())
    path = policy["scopes"][0]["task_result_filters"][0]["args"]["manifest"]
    assert path == str(local.resolve() / "approved_manifest_trial.json")


def test_an_existing_policy_is_refused_and_untouched(job: Path, local: Path, capsys: Any) -> None:
    (local / "privacy.json").write_text("mine")
    assert main(["privacy", str(job), "--output", str(local)]) == 2
    assert "privacy.json" in capsys.readouterr().err
    assert [path.name for path in local.iterdir()] == ["privacy.json"]
    assert (local / "privacy.json").read_text() == "mine"


@pytest.mark.parametrize("damage", ["no folder", "no manifest", "no plan", "loose manifest", "plan with a path"])
def test_a_job_that_cannot_be_read_is_named_and_nothing_is_written(
    job: Path, local: Path, capsys: Any, damage: str
) -> None:
    config = job / "app" / "config"
    if damage == "no folder":
        job = job / "absent"
    elif damage == "no manifest":
        (config / "manifest.json").unlink()
    elif damage == "no plan":
        (config / "plan.json").unlink()
    elif damage == "loose manifest":
        write_json(config / "manifest.json", {"a": {"shape": [3], "dtype": "object"}})
    else:
        write_json(config / "plan.json", {**make_plan().to_json(), "experiment": "../../escape"})
    assert main(["privacy", str(job), "--output", str(local)]) == 2
    assert str(job) in capsys.readouterr().err
    assert list(local.iterdir()) == []


def test_a_budget_is_calculated_before_joining(capsys: Any) -> None:
    options = ["--patients", "400", "--batch-size", "20", "--rounds", "3", "--noise", "2"]
    assert main(["privacy", "--budget", "4,1e-5", *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "3 rounds with 400 patients under epsilon 4 at delta 1e-05" in said
    assert "20 steps, in each of which a patient is with probability 0.05" in said
    assert re.search(r"epsilon after 3 [0-9.]+ of 4", said)
    assert re.search(r"further rounds [1-9][0-9]* with the same noise", said)
    assert re.search(r"guesses who took part right in at most [567][0-9]\.[0-9]% of tries", said)
    assert "think of" in said


def test_rounds_to_spare_are_calculated_beside_the_others(capsys: Any) -> None:
    options = ["--patients", "400", "--batch-size", "20", "--rounds", "3", "--noise", "2", "--spare-rounds", "2"]
    assert main(["privacy", "--budget", "4,1e-5", *options]) == 0
    spent = epsilon_of([Mechanism(noise_multiplier=2.0, sample_rate=0.05, steps=100)], delta=1e-5)
    assert f"and 2 again {spent:.3g} of 4" in " ".join(capsys.readouterr().out.split())


def test_what_a_ledger_has_spent_is_shown_and_begun_with(tmp_path: Path, capsys: Any) -> None:
    options = ["--budget", "4,1e-5", "--private", str(tmp_path)]
    assert main(["privacy", *options]) == 0
    assert "nothing is spent" in capsys.readouterr().out
    charged(tmp_path, "hearts", Mechanism(noise_multiplier=2.0, sample_rate=0.05, steps=400), ["a", "b"], rounds=1)
    calculated = ["--patients", "400", "--batch-size", "20", "--rounds", "1", "--noise", "2"]
    assert main(["privacy", *options, *calculated]) == 0
    said = " ".join(capsys.readouterr().out.split())
    spent = epsilon_of([Mechanism(noise_multiplier=2.0, sample_rate=0.05, steps=420)], delta=1e-5)
    assert "hearts" in said
    assert f"epsilon after 1 {spent:.3g} of 4" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "give a job and --output DIR"),
        (["job"], "give a job and --output DIR"),
        (["job", "--budget", "8,1e-5"], "--budget only calculates"),
        (["--budget", "8,1e-5"], "--patients"),
        (["--budget", "8", "--patients", "9"], "give epsilon and delta"),
        (["--budget", "none", "--patients", "9"], "without a budget"),
        (["--budget", "0,1e-5", "--patients", "9"], "an epsilon above 0"),
        (["--budget", "8,0.5", "--patients", "9"], "above one over 9 patients"),
    ],
)
def test_what_cannot_be_calculated_is_refused(words: list[str], named: str, capsys: Any) -> None:
    assert main(["privacy", *words]) == 2
    assert named in capsys.readouterr().err
