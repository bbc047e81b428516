"""In NVFlare's simulator, a site whose policy does not allow the job is left out, and says nothing but that."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.files import read_json, write_json
from tests.federated.conftest import SITES, Prepared, written_job

pytestmark = pytest.mark.slow


def test_a_site_with_too_few_cases_is_left_out_and_the_others_train(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """site-2 has three cases, of which the policy of all asks for four."""
    for site in SITES[:2]:
        value = read_json(prepared.data / site / "datalist.json")
        few = value["training"][: 3 if site == "site-2" else None]
        write_json(tmp_path / "data" / site / "datalist.json", {**value, "training": few})
    write_json(tmp_path / "policy.json", {"least_cases": 4, "least_steps": 1})
    monkeypatch.setenv("MONAI_FEDLORA_POLICY", str(tmp_path / "policy.json"))
    job = written_job(prepared.plan(rounds=1, participation=Participation(min_sites=1)), tmp_path)
    workspace = tmp_path / "workspace"
    results = simulate(
        job, workspace=workspace, data=str(tmp_path / "data"), backbone=str(prepared.backbone), threads=2
    )
    trained = {site for site, answer in results["rounds"][0]["sites"].items() if "cases" in answer}
    assert trained == set(results["final"]) == {"site-1"}
    assert {(entry["site"], entry["round"]) for entry in results["refused"]} == {("site-2", 0)}
    assert {entry["code"] for entry in results["refused"]} == {"POLICY_FORBIDS"}
    assert results["ready"]["site-2"]["codes"] == ["POLICY_FORBIDS"]
    assert {site: set(said) for site, said in results["ready"].items()} == {
        "site-1": {"codes", "versions", "bundle", "free_mb", "needed_mb"},  # it has fewer than five cases to speak of
        "site-2": {"codes", "versions", "bundle", "free_mb", "needed_mb", "reason"},
    }
    assert "PolicyError: least_cases: the site trains on 3 patients" in (workspace / "private/errors.log").read_text()
    for path in (workspace / "nvflare").rglob("*"):
        assert not path.is_file() or b"least_cases" not in path.read_bytes()
    assert not (workspace / "private" / "trial" / "site-2").exists()
