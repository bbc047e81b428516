"""A site with small synthetic photographs, a run that was trained on them, and its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.rounds import run_in_process
from monai_fedlora.files import save_tensors, sha256, write_json
from monai_fedlora.networks import catalogue
from monai_fedlora.networks.catalogue import build_backbone
from tests.exporting.finished_runs import MICRO_VIT

SITE = "site-1"
CLASSES = ("NV", "MEL")
FEW = {"training": 26, "validation": 12, "test": 20, "size": 48, "classes": CLASSES}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run with its site's data."""

    data: Path
    outside: Path
    backbone: Path
    workspace: Path
    plan: Plan

    @property
    def final(self) -> Path:
        return self.workspace / "private" / self.plan.experiment / SITE / "final.safetensors"

    @property
    def options(self) -> dict[str, Any]:
        """Of an audit of the run."""
        return {"data": str(self.data), "backbone": str(self.backbone)}


@pytest.fixture(autouse=True, scope="session")
def _micro() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.IMAGE_SIZES, "micro_vit", MICRO_VIT)
        yield


def prepare(root: Path, *, seed: int) -> Path:
    """A prepared folder with one site."""
    settings = PhotoPhantomSettings(seed=seed, **FEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(root / "cache"))
        listed = load_datalist(site_data(SITE, phantom="dermoscopy", settings=settings))
    write_json(root / "data" / SITE / "datalist.json", listed.to_json())
    return root / "data"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, _micro: None) -> Trained:
    """A run that tests may write beside, but not change."""
    root = tmp_path_factory.mktemp("trained")
    torch.manual_seed(1)
    backbone = root / "vit.safetensors"
    save_tensors(backbone, build_backbone("micro_vit", out_chans=2).state_dict(), {})
    data, outside = prepare(root / "own", seed=0), prepare(root / "other", seed=7)
    plan = Plan(
        experiment="skin",
        bundle="image_2d_fedopal_classification",
        method="dual_lora",
        sites=(SITE,),
        classes=CLASSES,
        rounds=1,
        local_epochs=3,
        size="micro_vit",
        backbone_sha256=sha256(backbone),
        training={"augment": False, "batch_size": 8, "learning_rate": 0.01, "warmup_epochs": 0},
    )
    workspace = root / "W"
    run_in_process(plan, folder=workspace, data_root=str(data), backbone=str(backbone))
    return Trained(data=data, outside=outside, backbone=backbone, workspace=workspace, plan=plan)


@pytest.fixture(scope="session")
def bundle(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The bundle of the run's one site."""
    return export_bundle(
        run=trained.workspace,
        site=SITE,
        output=tmp_path_factory.mktemp("bundles") / "skin",
        backbone=str(trained.backbone),
        program=False,
    )
