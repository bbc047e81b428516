"""A federation in NVFlare's simulator that goes on without a slow site, and takes it in again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.files import load_tensors
from tests.federated.conftest import Prepared, written_job


@pytest.mark.slow
def test_a_site_that_is_late_comes_back_and_the_run_is_one_in_which_it_never_answered_that_round(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = prepared.plan(
        rounds=3, participation=Participation(min_sites=1, round_timeout=10, first_round_timeout=240, final_timeout=240)
    )
    job = written_job(plan, tmp_path, executor="slow.SlowExecutor")
    places = {"data": str(prepared.data), "backbone": str(prepared.backbone)}
    results = simulate(job, workspace=tmp_path / "run", threads=2, **places)
    answered = [{site for site, said in entry["sites"].items() if "round" in said} for entry in results["rounds"]]
    assert (answered[0], answered[1]) == ({"site-1", "site-2"}, {"site-1"})
    assert [entry["reason"] for entry in results["refused"] if entry["round"] == 1][:1] == ["no answer in time"]
    assert results["final"]["site-2"]["restored_rounds"] == (3 if "site-2" in answered[2] else 1)
    assert (results["status"], results["restarted"]) == ("finished", [])

    train = Site.train_round

    def in_time(self: Site, round_number: int, *args: Any, **more: Any) -> Any:
        if self.name not in answered[round_number]:
            raise OSError("not asked")
        return train(self, round_number, *args, **more)

    monkeypatch.setattr(Site, "train_round", in_time)
    run_in_process(plan, folder=tmp_path / "other", record_failures=True, **prepared.places)
    for name in (
        "shared.safetensors",
        "private/trial/site-1/final.safetensors",
        "private/trial/site-2/final.safetensors",
    ):
        one, other = (load_tensors(tmp_path / run / name)[0] for run in ("run", "other"))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
