"""At a resume a site may come that was never there, and one may be gone for good."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.initial import build_manifest
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import load_tensors
from tests.federated.conftest import SITES, Prepared


@pytest.mark.slow
def test_a_site_that_left_keeps_its_model_and_one_that_comes_begins_with_what_all_have_learnt(
    prepared: Prepared, tmp_path: Path
) -> None:
    run, private = tmp_path / "run", tmp_path / "run" / "private" / "trial"
    run_in_process(prepared.plan(rounds=1), folder=run, **prepared.places)
    left = {path.name: path.read_bytes() for path in (private / SITES[1]).glob("*.safetensors")}
    shared = run / "shared.safetensors"
    learnt = load_tensors(shared)[0]

    unsaid = prepared.plan(sites=(SITES[0], SITES[2]), start_round=1, rounds=1)
    write_job(unsaid, build_manifest(unsaid), tmp_path / "unsaid", initial=shared)
    with pytest.raises(ConfigError, match=r"sites: .*--accept-changes"):
        run_in_process(tmp_path / "unsaid", folder=run, **prepared.places)

    plan = prepared.plan(sites=(SITES[0], SITES[2]), start_round=1, rounds=1, changed=("sites",))
    write_job(plan, build_manifest(plan), tmp_path / "job", initial=shared)
    results = run_in_process(tmp_path / "job", folder=run, **prepared.places)

    assert (results["status"], results["restarted"], results["refused"]) == ("finished", [], [])
    sites = results["rounds"][0]["sites"]
    assert {site: said["restored_rounds"] for site, said in sites.items()} == {SITES[0]: 1, SITES[2]: 0}
    assert set(results["final"]) == {SITES[0], SITES[2]}
    assert {path.name: path.read_bytes() for path in (private / SITES[1]).glob("*.safetensors")} == left
    assert "final.safetensors" in left
    after = load_tensors(run / "shared.safetensors")[0]
    assert not all(torch.equal(after[key], value) for key, value in learnt.items())
    begun = load_tensors(run / "before-round-1" / "shared.safetensors")[0]
    assert all(torch.equal(begun[key], value) for key, value in learnt.items())
