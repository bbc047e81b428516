"""An audit of a bundle and of a run: the same figures as an export's own, shadow runs once, and clear refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora import cli
from monai_fedlora.auditing import membership_audit
from monai_fedlora.auditing.membership_audit import Audit, audit_model
from monai_fedlora.auditing.model import open_model
from monai_fedlora.auditing.shadows import alone
from monai_fedlora.clinic import bundle as checked
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.errors import ConfigError, DataError, ExportError, FedLoraError
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.leakage import AUDIT_NAME, Leakage, read_audit
from monai_fedlora.federated.site_policy import Policy
from monai_fedlora.files import read_json, write_json
from monai_fedlora.reporting.found_run import read_run
from monai_fedlora.reporting.page import page

from .conftest import SITE, Trained

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:monai", "ignore::DeprecationWarning:torch")


@pytest.fixture(scope="module")
def audited(bundle: Exported, trained: Trained) -> Audit:
    """Of the bundle, with the site's cases alone."""
    return audit_model(bundle.folder, data=str(trained.data))


def test_a_bundle_tells_what_its_export_measured(audited: Audit, bundle: Exported) -> None:
    exported = {(a["name"], a["target"]): a for a in bundle.metadata["measured_leakage"]["attacks"]}
    found = {(a.name, a.target): a for a in audited.leakage.attacks}
    assert {"loss", "confidence", "entropy"} <= {name.removesuffix(", reversed") for name, _ in found}
    assert exported.keys() == found.keys()
    for key, attack in found.items():
        assert (attack.n_members, attack.n_others) == (exported[key]["n_members"], exported[key]["n_others"])
        assert attack.auc == pytest.approx(exported[key]["auc"], abs=0.03), key


def test_patients_are_the_lesions_of_the_datalist(audited: Audit, trained: Trained) -> None:
    listed = load_datalist(trained.data / SITE / "datalist.json")
    for split in ("training", "validation", "test"):
        cases = listed.cases(split)
        assert audited.facts["images"][split] == len(cases)
        assert audited.facts["patients"][split] == len({case.unit or case.subject for case in cases})
    assert audited.facts["patients"]["training"] < audited.facts["images"]["training"]


def test_the_file_holds_aggregates_alone(audited: Audit, trained: Trained) -> None:
    text = json.dumps(audited.to_json())
    listed = load_datalist(trained.data / SITE / "datalist.json")
    assert not [case.subject for _, case in listed.all_cases() if case.subject in text or f"{case.image}" in text]
    assert str(trained.data) not in text
    assert Leakage.from_json(json.loads(text)).attacks[0].name == audited.leakage.attacks[0].name


@pytest.mark.slow
def test_cases_from_outside_reach_what_the_test_split_is_behind(bundle: Exported, trained: Trained) -> None:
    found = audit_model(bundle.folder, data=str(trained.data), outside=str(trained.outside))
    targets = {attack.target for attack in found.leakage.attacks}
    assert {"test confusion matrix", "test log-likelihood"} <= targets
    assert found.facts["patients"]["outside"] > 20
    (matrix,) = [attack for attack in found.leakage.attacks if attack.target == "test confusion matrix"]
    assert matrix.members == ("test",)
    assert matrix.n_others == found.facts["patients"]["outside"]


@pytest.mark.slow
def test_a_run_trains_each_shadow_model_once_and_its_report_and_export_say_so(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.workspace, tmp_path / "W")
    words = ["audit", str(tmp_path / "W"), "--data", str(trained.data), "--backbone", str(trained.backbone)]
    assert cli.main([*words, "--shadows", "2", "--json", str(tmp_path / "a.json")]) == 0
    assert "kept from an earlier audit" not in capsys.readouterr().out
    final = tmp_path / "W" / trained.final.relative_to(trained.workspace)
    folder = final.parent / "shadows"
    assert folder.stat().st_mode & 0o077 == 0
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    assert len(before) == 2

    assert cli.main([*words, "--shadows", "4", "--fail-above", "0.5"]) == 1
    said = capsys.readouterr().out
    assert said.count("kept from an earlier audit") == 2
    assert "do not let this model out" in said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(folder.rglob("*.safetensors"))) == 4

    audited = read_audit(final)
    assert audited is not None
    (attack,) = [attack for attack in audited.attacks if attack.name.startswith("LiRA")]
    assert attack.name == "LiRA, 4 shadow runs"
    assert {a["name"] for a in read_json(tmp_path / "a.json")["attacks"]} >= {"LiRA, 2 shadow runs"}

    html = page(read_run(tmp_path / "W"))
    assert "Measured leakage" in html
    assert "LiRA, 4 shadow runs" in html
    options = {"site": SITE, "backbone": str(trained.backbone), "program": False}
    card = export_bundle(run=tmp_path / "W", output=tmp_path / "B", **options).folder / "docs" / "README.md"
    assert "LiRA, 4 shadow runs" in card.read_text()

    first = min(before)
    first.write_bytes(first.read_bytes()[:40])
    assert cli.main([*words, "--shadows", "2"]) == 2
    assert f"{first.name} is not a readable" in capsys.readouterr().err

    other = {**read_json(final.with_name(AUDIT_NAME)), "final_sha256": "0" * 64}
    write_json(final.with_name(AUDIT_NAME), other)
    assert "LiRA" not in page(read_run(tmp_path / "W"))
    assert read_audit(final) is None  # of another model
    write_json(final.with_name(AUDIT_NAME), {"format": 1})
    with pytest.raises(ExportError, match=r"audit\.json: these are no figures"):
        read_audit(final)


@pytest.mark.slow
def test_the_limits_of_a_site_s_messages_do_not_hold_for_shadow_runs_which_send_none(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained.workspace, tmp_path / "W")
    Policy(least_cases=10**6, most_rounds=1, methods=(), require_approval=True).save(tmp_path / "policy.json")
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", str(tmp_path / "policy.json"))
    found = audit_model(tmp_path / "W", shadows=2, **trained.options)
    assert "LiRA, 2 shadow runs" in {attack.name.removesuffix(", reversed") for attack in found.leakage.attacks}


@pytest.mark.slow
def test_shadow_runs_that_could_not_be_trained_are_said(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise DataError("too few")

    monkeypatch.setattr(membership_audit, "lira", refuse)
    found = audit_model(trained.workspace, shadows=2, **trained.options)
    assert found.leakage.not_measured["LiRA on weights"] == "too few"
    assert found.leakage.attacks


def test_what_is_attacked_is_the_copy_that_was_checked(
    bundle: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "bundle"))
    check = checked.check_contents

    def then_exchanged(*words: Any, **options: Any) -> Any:
        report = check(*words, **options)
        torch.save({"head.weight": torch.zeros(1)}, copy / "models" / "model.pt")
        write_json(copy / "configs" / "metadata.json", {})
        return report

    monkeypatch.setattr(checked, "check_contents", then_exchanged)
    opened, wanted = open_model(copy), open_model(bundle.folder)
    assert opened.metadata == wanted.metadata
    assert opened.network is not None and wanted.network is not None
    found = opened.network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in wanted.network.state_dict().items())


@pytest.mark.slow
def test_another_split_with_as_many_cases_is_noticed(trained: Trained, tmp_path: Path) -> None:
    value = read_json(trained.data / SITE / "datalist.json")
    value["training"].sort(key=lambda case: case["label"])
    write_json(tmp_path / SITE / "datalist.json", value)
    with pytest.raises(DataError, match="other labels than the training split"):
        audit_model(trained.workspace, shadows=0, **{**trained.options, "data": str(tmp_path)})


def test_what_cannot_be_audited_is_refused(bundle: Exported, trained: Trained, tmp_path: Path) -> None:
    data = str(trained.data)
    with pytest.raises(ConfigError, match="is a bundle, and shadow models"):
        audit_model(bundle.folder, data=data, shadows=4)
    with pytest.raises(ConfigError, match="is the model of site-1, not of site-2"):
        audit_model(bundle.folder, data=data, site="site-2")
    with pytest.raises(ConfigError, match="takes 2 runs or more"):
        audit_model(trained.workspace, data=data, shadows=1)
    with pytest.raises(ConfigError, match="holds the models of none"):
        audit_model(tmp_path, data=data)
    with pytest.raises(FedLoraError, match="no exported bundle"):
        audit_model(tmp_path / "nothing", data=data)
    (tmp_path / "foreign" / "configs").mkdir(parents=True)
    write_json(tmp_path / "foreign" / "configs" / "metadata.json", {"version": "0.1"})
    with pytest.raises(FedLoraError, match="no exported bundle"):
        audit_model(tmp_path / "foreign", data=data)


@pytest.mark.slow
def test_too_few_cases_are_an_error_and_leave_no_file(bundle: Exported, trained: Trained, tmp_path: Path) -> None:
    value = read_json(trained.data / SITE / "datalist.json")
    write_json(tmp_path / SITE / "datalist.json", {**value, "test": value["test"][:1]})
    words = ["audit", str(bundle.folder), "--data", str(tmp_path), "--json", str(tmp_path / "a.json")]
    assert cli.main(words) == 2
    with pytest.raises(DataError, match="--outside"):
        audit_model(bundle.folder, data=str(tmp_path))
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
def test_a_gate_stays_closed_where_an_attack_could_not_be_measured(
    bundle: Exported, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", str(bundle.folder), "--data", str(trained.data), "--fail-above", "1"]
    assert cli.main(words) == 1
    assert "could not be measured" in capsys.readouterr().out
    assert cli.main([*words, "--outside", str(trained.outside)]) == 0


@pytest.mark.parametrize("words", [["--fail-above", "0.4"], ["--fail-above", "1.5"]])
def test_a_gate_lies_between_guessing_and_certainty(words: list[str], tmp_path: Path) -> None:
    assert cli.main(["audit", str(tmp_path), *words]) == 2


def test_shadow_runs_start_where_the_plan_starts(trained: Trained) -> None:
    later = alone(dataclasses.replace(trained.plan, start_round=4), SITE)
    assert (later.start_round, later.rounds, later.sites) == (0, 5, (SITE,))
    assert later.seed == trained.plan.seed
