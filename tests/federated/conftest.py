"""Phantom sites, a backbone file that means nothing, and plans that name them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_fedlora.data.cases import Case, Datalist
from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.phantom.layouts import write_acdc_patient
from monai_fedlora.data.phantom.patient import make_patient
from monai_fedlora.data.phantom.vendors import VENDORS, Vendor
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import site_data
from monai_fedlora.federated.initial import build_shared
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.materials import Installed
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import read_json, save_tensors, sha256, write_json
from monai_fedlora.networks.cinema import convvit
from tests.networks.clip import write_towers

SITES = ("site-1", "site-2", "site-3")
BUNDLE = "cine_cmr_dual_lora_classification"
TEXTS = "image_2d_pfedst_classification"


@dataclass(frozen=True)
class Prepared:
    """What a federation finds on its machines."""

    data: Path
    backbone: Path
    backbone_sha256: str

    def plan(self, **changes: Any) -> Plan:
        """A plan for two sites whose rounds take a second."""
        settings: dict[str, Any] = {
            "experiment": "trial",
            "bundle": BUNDLE,
            "method": "dual_lora",
            "sites": SITES[:2],
            "classes": ("NOR", "ABN"),
            "rounds": 2,
            "backbone_sha256": self.backbone_sha256,
            "training": {"batch_size": 4, "warmup_epochs": 0},
        }
        return Plan(**{**settings, **changes})

    @property
    def places(self) -> dict[str, Any]:
        """Where sites find their data and backbone."""
        return {"data_root": str(self.data), "backbone": str(self.backbone)}

    @property
    def source(self) -> Installed:
        """The same as a site's constructor takes it."""
        return Installed(**self.places)

    @property
    def environment(self) -> dict[str, str]:
        """The same as a site's own environment variables."""
        return {"MONAI_FEDLORA_DATA": str(self.data), "MONAI_FEDLORA_BACKBONE": str(self.backbone)}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Three prepared sites with eight cases each, and a random backbone of size small.

    Two sites have four phantoms of their own vendor, the third has some of both. Each image is trained on, and
    stands in the validation or the test split once more: nobody here asks how well a model generalises.
    """
    root = tmp_path_factory.mktemp("prepared")
    own = {
        site: _scan(root / "images", site, vendor) for site, vendor in zip(SITES[:2], VENDORS.values(), strict=False)
    }
    own["site-3"] = own["site-1"][2:] + own["site-2"][:2]
    for site, patients in own.items():
        _write_datalist(root, site, patients)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = convvit("small", out_chans=2)
    backbone = root / "backbone.safetensors"
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(network.head_prefixes)}
    save_tensors(backbone, state)
    return Prepared(root / "data", backbone, sha256(backbone))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Two sites with a few synthetic photographs, and the towers of a CLIP with random weights."""
    root = tmp_path_factory.mktemp("photographs")
    backbone = write_towers(root)
    few = PhotoPhantomSettings(training=6, validation=4, test=4, size=48)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONAI_FEDLORA_CACHE", str(root / "cache"))
        for site in SITES[:2]:
            listed = load_datalist(site_data(site, phantom="dermoscopy", settings=few))
            write_json(root / "data" / site / "datalist.json", listed.to_json())
    return Prepared(root / "data", backbone, sha256(backbone))


def _scan(images: Path, site: str, vendor: Vendor) -> list[str]:
    """Write four phantoms of coarse pixels as ``<images>/<name>/ed.nii.gz`` and ``es.nii.gz``; return the names."""
    coarse = dataclasses.replace(
        vendor, pixel=2 * vendor.pixel, matrix=(vendor.matrix[0] // 2, vendor.matrix[1] // 2), slices=(6, 6)
    )
    names = []
    for number, group in enumerate(("NOR", "DCM", "NOR", "HCM")):
        names.append(f"{site}-{group}-{number}")
        write_acdc_patient(make_patient(group, coarse, (number, *site.encode())), images / names[-1])
    return names


def _write_datalist(root: Path, site: str, patients: list[str]) -> None:
    def case(split: str, name: str) -> Case:
        folder = root / "images" / name
        ed, es = (str(path.relative_to(folder.parent)) for path in sorted(folder.glob("*_frame??.nii.gz")))
        group = name.split("-")[-2]
        return Case(subject=f"{split}-{name}", label=int(group != "NOR"), group=group, ed=ed, es=es)

    splits = {"training": patients, "validation": patients[:2], "test": patients[2:]}
    datalist = Datalist(
        site=site,
        dataset="phantom",
        task="binary",
        classes=("NOR", "ABN"),
        image_root=root / "images",
        seed=0,
        **{split: tuple(case(split, name) for name in names) for split, names in splits.items()},
    )
    write_json(root / "data" / site / "datalist.json", datalist.to_json())


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two payloads are the same to the bit."""
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and one[key].tobytes() == other[key].tobytes() for key in one
    )


def written_job(
    plan: Plan, folder: Path, *, executor: str | None = None, components: Iterable[Mapping[str, Any]] = ()
) -> Path:
    """Write a plan's job folder; with an ``executor`` it carries the code in ``tests/federated/custom``.

    Args:
        plan: the experiment.
        folder: the job's parent; the job is called after the experiment.
        executor: class that takes the place of the sites' executor.
        components: additional ones of the server.
    """
    job = folder / plan.experiment
    manifest, _ = build_shared(plan)
    write_job(plan, manifest, job)
    if executor:
        client, server = (job / "app" / "config" / f"config_fed_{end}.json" for end in ("client", "server"))
        config = read_json(client)
        config["executors"][0]["executor"]["path"] = executor
        write_json(client, config)
        config = read_json(server)
        config["components"] += components
        write_json(server, config)
        for path in (Path(__file__).parent / "custom").glob("*.py"):
            shutil.copy(path, job / "app" / "custom")
    return job
