"""Finished runs of micro networks, made without training, their bundles, and short-axis pairs of a beating disc.

A plug-in of pytest, so that every folder of tests has the same run and the same bundle, made once in a process.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from monai_fedlora.data.origin import Origin
from monai_fedlora.engines.metrics import classification_metrics
from monai_fedlora.exporting import bundle_export
from monai_fedlora.exporting.bundle_export import Exported, export_bundle
from monai_fedlora.exporting.directions import PublicFeatures
from monai_fedlora.federated.initial import save_shared
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_state import SiteStore
from monai_fedlora.files import save_tensors, sha256, write_json
from monai_fedlora.methods.build import build_network
from monai_fedlora.networks import catalogue, cinema
from monai_fedlora.networks.catalogue import Architecture, Network, build_backbone
from monai_fedlora.networks.cinema import ConvViTSize
from monai_fedlora.networks.head_inputs import head_inputs, joined
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.scope import Role
from monai_fedlora.tasks.task import OUTPUTS
from monai_fedlora.transforms.orientation import reference_affine

CLASSES = ("NOR", "ABN")
MICRO = ConvViTSize(
    image_size=(32, 32, 4),
    spacing=(5.0, 5.0, 10.0),
    patch_size=(2, 2, 1),
    scale_factor=(2, 2, 1),
    conv_chans=(4, 8),
    conv_n_blocks=1,
    embed_dim=24,
    depth=3,
    n_heads=2,
)
MICRO_VIT = Architecture(
    name="micro_vit",
    shape=ViTSettings(image_size=(32, 32), patch=8, dim=24, depth=3, n_heads=2),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.25, 0.3),
    source="made for tests",
)
REAL_IMAGES = Origin(kind="real", name="acdc", source="made for tests")
SITES = ("site-1", "clinic-b", "clinic-c")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A workspace as a simulation leaves it, with the networks its files must reproduce."""

    workspace: Path
    plan: Plan
    backbone: Path
    networks: dict[str, Network]

    def personal(self, site: str = "site-1") -> Path:
        return self.workspace / "private" / self.plan.experiment / site / "final.safetensors"

    def options(self, output: Path, site: str = "site-1", **changes: Any) -> dict[str, Any]:
        """Arguments of an export into ``output``."""
        return {
            "run": self.workspace,
            "site": site,
            "output": output,
            "backbone": str(self.backbone),
            **changes,
        }


@pytest.fixture(scope="session")
def micro() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cinema.SIZES, "micro", MICRO)
        patch.setitem(catalogue.IMAGE_SIZES, "micro_vit", MICRO_VIT)
        patch.setattr(bundle_export, "public_features", noise_features)
        yield


def noise_features(network: Any, images: Any, modality: Any, **_: Any) -> PublicFeatures:
    """In place of phantoms, which take a minute: what a network reads of noise of several brightnesses."""
    generator = torch.Generator().manual_seed(11)
    groups: dict[str, torch.Tensor] = {}
    with torch.no_grad(), head_inputs(network) as inputs:
        for index, name in enumerate((*images.ordinary, *modality.foreign)):
            network(torch.rand(8, *modality.input_shape, generator=generator) * (1 + index) / 4)
            groups[name] = joined(inputs)
    return PublicFeatures(
        ordinary={name: groups[name] for name in images.ordinary},
        foreign={name: groups[name] for name in modality.foreign},
    )


def write_backbone(path: Path, size: str) -> Path:
    torch.manual_seed(1)
    save_tensors(path, build_backbone(size, out_chans=2).state_dict(), {})
    return path


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, micro: None) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "cine#1.safetensors", "micro")


@pytest.fixture(scope="session")
def image_backbone(tmp_path_factory: pytest.TempPathFactory, micro: None) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "vit.safetensors", "micro_vit")


def temperature_of(exported: Exported) -> float:
    """What the exported model divides its logits by; one that does nothing would hide a mistake."""
    temperature = exported.metadata["calibration"]["temperature"]
    assert temperature > 1.2
    return float(temperature)


def metrics(seed: int, cases: int = 12) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet((1, 1), size=cases)
    return classification_metrics(probabilities, np.arange(cases) % 2)


def finished_run(
    workspace: Path,
    backbone: Path,
    *,
    method: str = "dual_lora",
    experiment: str = "hearts",
    size: str = "micro",
    sites: tuple[str, ...] = SITES,
    evidence: bool = True,
    origin: Origin = REAL_IMAGES,
    given_views: Mapping[str, Any] | None = None,
    task: str = "classification",
    classes: tuple[str, ...] = CLASSES,
    **changes: Any,
) -> Run:
    """Write what a finished run of untrained, but random and distinct, trainable parts would have left.

    Args:
        evidence: also what it keeps of the site's cases; False for a run of an earlier version.
        origin: of the cases of every site.
        given_views: metrics by view; None for some in which the personal model of the first site does better.
    """
    plan = Plan(
        experiment=experiment,
        bundle="cine_cmr_dual_lora_classification",
        method=method,
        sites=sites,
        classes=classes,
        task=task,
        rounds=3,
        local_epochs=2,
        size=size,
        backbone_sha256=sha256(backbone),
        seed=4,
        **changes,
    )
    generator = torch.Generator().manual_seed(7)
    networks: dict[str, Network] = {}
    shared: dict[str, np.ndarray] = {}
    results: dict[str, Any] = {"plan": plan.to_json(), "status": "finished", "final": {}}
    for index, site in enumerate(plan.sites):
        network = build_network(
            size=size,
            out_chans=plan.task_of.outputs(len(classes)),
            backbone=str(backbone),
            method=method,
            method_args=asdict(plan.site_method(site)),
            classes=plan.classes,
            prompts=plan.prompts,
            masks=plan.task_of.gives_masks,
        )
        scope = plan.scope(network)
        state = network.state_dict()
        for key in [*scope.keys(Role.SHARED), *scope.keys(Role.PRIVATE)]:
            state[key].copy_(0.5 * torch.randn(state[key].shape, generator=generator))
        shared = shared or scope.initial_payload(network)
        scope.load_shared(network, shared)
        plan.site_method(site).begin_round(network, 3)
        networks[site] = network.eval()
        views = {"personal": metrics(index + 20)}
        if plan.build_method().shared_only(network) is not None:
            views["shared"] = metrics(index + 10)
        views = {**views, **(given_views or {})}
        record = {"round": 3, "cases": 20 + index, "seconds": 1.0, "validation": views, "test": views}
        results["final"][site] = record
        state = network.state_dict()
        store = SiteStore(root=workspace / "private", plan=plan, site=site)
        store.save_final(
            shared={key: state[key] for key in scope.manifest.down.entries},
            private=scope.private_state(network),
            record=record,
            origin=origin,
            shared_origin=origin.kind,
        )
        if evidence and OUTPUTS in plan.task_of.sections:
            store.save_evidence(kept(network, input_shape(size), seed=index))
    save_shared(workspace / "shared.safetensors", shared, plan=plan, round_number=2, images=origin.kind)
    write_json(workspace / "results.json", results)
    return Run(workspace=workspace, plan=plan, backbone=backbone, networks=networks)


def input_shape(size: str) -> tuple[int, ...]:
    chosen = catalogue.architecture(size)
    return (2 if chosen.modality == "cine" else 3, *chosen.image_size)


def kept(network: Network, shape: tuple[int, ...], *, seed: int) -> dict[str, torch.Tensor]:
    """Evidence of a model that is twice as sure as it should be, with what its heads read of noise."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for split, cases in (("validation", 60), ("test", 50)):
        logits = 2 * torch.randn(cases, 2, generator=generator)
        found[f"{split}/logits"] = 2 * logits
        found[f"{split}/labels"] = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    for split, cases in (("training", 40), ("validation", 60), ("test", 50)):
        with torch.no_grad(), head_inputs(network) as inputs:
            logits = network(torch.rand(cases, *shape, generator=generator))
        found[f"{split}/features"] = joined(inputs)
        found[f"{split}/units"] = torch.arange(cases)
        found.setdefault(f"{split}/logits", logits)
        found.setdefault(f"{split}/labels", torch.arange(cases) % 2)
    return found


@pytest.fixture
def make_run(tmp_path: Path, backbone: Path) -> Callable[..., Run]:
    """Write a finished run into ``tmp_path / "W"``; keyword arguments go into its plan."""

    def make(workspace: Path = tmp_path / "W", **changes: Any) -> Run:
        return finished_run(workspace, backbone, **changes)

    return make


@pytest.fixture(scope="session")
def stored_run(tmp_path_factory: pytest.TempPathFactory, backbone: Path) -> Run:
    """A finished run that tests only read."""
    return finished_run(tmp_path_factory.mktemp("run") / "W", backbone)


@pytest.fixture
def make_image_run(tmp_path: Path, image_backbone: Path) -> Callable[..., Run]:
    """Write a finished run on photographs; keyword arguments go into its plan."""

    def make(workspace: Path = tmp_path / "W", *, style: str = "dermoscopy", **changes: Any) -> Run:
        return finished_run(workspace, image_backbone, size="micro_vit", training={"style": style}, **changes)

    return make


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory, image_backbone: Path) -> Run:
    """A finished run on dermoscopic photographs that tests only read."""
    return finished_run(
        tmp_path_factory.mktemp("run") / "W", image_backbone, size="micro_vit", training={"style": "dermoscopy"}
    )


@pytest.fixture
def run(stored_run: Run, tmp_path: Path) -> Run:
    """A finished run whose files tests may change."""
    shutil.copytree(stored_run.workspace, tmp_path / "W")
    return replace(stored_run, workspace=tmp_path / "W")


def write_pair(
    folder: Path,
    study: str,
    *,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    placeholder: bool = False,
) -> None:
    """Write ``<study>_ed.nii.gz`` and ``<study>_es.nii.gz``: noise and a bright disc that shrinks."""
    affine = np.diag([*spacing, 1.0]) if placeholder else reference_affine(spacing).numpy()
    generator = np.random.default_rng(len(study) + shape[0])
    x, y = np.meshgrid(*(np.arange(size) - size / 2 for size in shape[:2]), indexing="ij")
    radius = np.hypot(x * spacing[0], y * spacing[1])[..., None]
    for frame, size in (("ed", 30), ("es", 18)):
        voxels = 200 * (radius < size) + generator.normal(100, 10, shape)
        image = nibabel.Nifti1Image(voxels.astype(np.int16), affine)
        nibabel.save(image, folder / f"{study}_{frame}.nii.gz")


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder with three studies of different size and resolution, the last without an orientation."""
    folder = tmp_path / "studies"
    folder.mkdir()
    write_pair(folder, "p1", shape=(60, 50, 5), spacing=(4.0, 4.0, 10.0))
    write_pair(folder, "p.2 b", shape=(90, 100, 9), spacing=(1.5, 1.8, 8.0))
    write_pair(folder, "a_3", shape=(24, 30, 3), spacing=(4.0, 4.0, 10.0), placeholder=True)
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, stored_run: Run) -> Exported:
    """The bundle of the stored run's site-1; tests only read it."""
    return export_bundle(**stored_run.options(tmp_path_factory.mktemp("bundles") / "site-1 model"))


@pytest.fixture(scope="session")
def image_exported(tmp_path_factory: pytest.TempPathFactory, image_run: Run) -> Exported:
    """The bundle of site-1 of the run on photographs; tests only read it."""
    return export_bundle(**image_run.options(tmp_path_factory.mktemp("bundles") / "skin"))
