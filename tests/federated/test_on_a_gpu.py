"""Every method in a federation whose sites compute on a GPU, which is pretended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
import torch

import monai_fedlora as fl
from monai_fedlora.engines.trainer import CaseTrainer
from monai_fedlora.methods import method_names
from tests.federated.conftest import SITES, Prepared
from tests.pretended_gpu import PretendedGPU, Steps

BATCH = "engines/dataset.py"
"""What moves a batch's labels, and its images where nothing of the network is frozen."""
SETTINGS: dict[str, dict[str, Any]] = {"flexlora": {"ranks": [2, 8]}, "flora": {"ranks": [8, 4]}}


class Interrupted(Exception):
    """What stops a run within its second round."""


def interrupt(results: Mapping[str, Any]) -> None:
    if len(results["rounds"]) > 1 and results["rounds"][1]["sites"]:
        raise Interrupted


def watch(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch the steps of all trainers."""
    run, seen = CaseTrainer.run, WeakSet[CaseTrainer]()

    def watched(self: CaseTrainer) -> None:
        if self not in seen:
            steps.attach(self)
        seen.add(self)
        run(self)

    monkeypatch.setattr(CaseTrainer, "run", watched)


def run_interrupted(name: str, photographs: Prepared, image_backbone: Path, folder: Path) -> fl.Run:
    """Two rounds, the second one by another process after it had begun, and the evaluation of what they gave."""
    method = fl.method(name, **SETTINGS.get(name, {}))
    size, backbone = ("clip_demo", photographs.backbone) if method.method.reads_text else ("micro_vit", image_backbone)
    names = SITES[: method.method.most_sites or 2]
    sites = {site: fl.SiteData.prepared(photographs.data / site) for site in names}
    settings: dict[str, Any] = {"rounds": 2, "local_epochs": 2, "batch_size": 3, "warmup_epochs": 0, "augment": False}
    settings |= {"folder": folder, "backbone": str(backbone)}
    with pytest.raises(Interrupted):
        fl.federate(size, method, sites, on_progress=interrupt, **settings)
    run = fl.federate(size, method, sites, resume=True, **settings)
    assert (run.results["status"], run.results["refused"]) == ("finished", [])
    return run


EXPORTED = ("dual_lora", "fedavg", "fedbn", "pfedst")
"""One of adapters, of all that trains, of statistics and of a side network; the others' exports differ in names."""


@pytest.mark.parametrize(
    "name", [name if name == "dual_lora" else pytest.param(name, marks=pytest.mark.slow) for name in method_names()]
)
def test_a_run_goes_on_after_an_interruption_and_gives_its_models(
    name: str,
    gpu: PretendedGPU,
    monkeypatch: pytest.MonkeyPatch,
    photographs: Prepared,
    image_backbone: Path,
    tmp_path: Path,
) -> None:
    steps = Steps(gpu)
    watch(steps, monkeypatch)
    run = run_interrupted(name, photographs, image_backbone, tmp_path)
    assert len(steps.found) >= 2 * 2 * 2 * len(run.plan.sites)
    for _, step in (found for found in steps.found if found[0] % 2 == 0):  # the second epoch of a round
        assert sum(step.waits.values()) == 1, step.events
        assert {event.where.partition(":")[0] for event in step.events if event.kind == "to device"} == {BATCH}
    images = torch.rand(2, 3, *((32, 32) if run.plan.size == "micro_vit" else (48, 48)))
    for site in run.plan.sites:
        personal = run.personal(site)
        expected = personal(images)
        found = personal.to("cuda")(images.to("cuda"))
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in EXPORTED else pytest.param(name, marks=pytest.mark.long) for name in method_names()]
)
def test_a_bundle_is_written_where_there_is_a_gpu(
    name: str, gpu: PretendedGPU, photographs: Prepared, image_backbone: Path, tmp_path: Path
) -> None:
    run = run_interrupted(name, photographs, image_backbone, tmp_path / "run")
    with gpu.unwatched():
        run.export(SITES[0], tmp_path / "bundle")
    assert (tmp_path / "bundle" / "models" / "model.pt").is_file()
