"""Where the stages run, how large their work is, and what trains in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_fedlora.data.site import CACHE, PhantomSettings, site_data
from monai_fedlora.methods.build import UNTRAINED
from monai_fedlora.resources import bundle_configs

CINE, IMAGE = "cine_cmr_dual_lora_classification", "image_2d_fedopal_classification"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A device and the size of the work.

    Attributes:
        device: "cuda:0" or "cpu".
        tiny: networks and numbers of cases for a processor, which show that the stages run and time nothing of use.
        folder: for phantoms and what trainings write; removed by the caller.
    """

    device: str
    tiny: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        """Whether CUDA computes."""
        return self.device.startswith("cuda")

    def choose(self, full: Any, tiny: Any) -> Any:
        """The one that fits the size of the work."""
        return tiny if self.tiny else full

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training of a bundle on its phantoms.

    Attributes:
        bundle: its name.
        size: of the backbone, which is not trained beforehand unless ``settings`` say so.
        method: its name.
        cases: of the phantom's training split.
        batch_size: cases in a step.
        settings: others of the bundle's.
    """

    bundle: str = IMAGE
    size: str = "vit_demo"
    method: str = "dual_lora"
    cases: int = 8
    batch_size: int = 4
    settings: Mapping[str, Any] = field(default_factory=dict)


def trainer(training: Training, place: Place, *, device: str | None = None) -> Any:
    """The bundle's trainer, on the place's device unless another one is named."""
    datalist = _phantom(training, place.folder)
    config = ConfigParser()
    config.read_config(bundle_configs(training.bundle))
    overrides = {
        "device": {"_target_": "monai_fedlora.engines.config.pick_device", "name": device or place.device},
        "dataset_dir": str(datalist.parent),
        "output_dir": str(place.folder / "run"),
        "size": training.size,
        "backbone": UNTRAINED,
        "method": training.method,
        "method_args": {},
        "batch_size": training.batch_size,
        "augment": False,
        "warmup_epochs": 0,
        "val_interval": 0,
        "save_checkpoints": False,
        "show_progress": False,
        **training.settings,
    }
    for key, value in overrides.items():
        config[key] = value
    with _cache(place.folder):
        return config.get_parsed_content("train::trainer")


def _phantom(training: Training, folder: Path) -> Path:
    with _cache(folder):
        if training.bundle == CINE:
            settings: Any = PhantomSettings(training=training.cases, validation=0, test=0)
            return site_data("site-1", settings=settings)
        from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

        settings = PhotoPhantomSettings(training=training.cases, validation=0, test=0)
        return site_data("site-1", phantom="dermoscopy", settings=settings)


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Keep phantoms and features in a folder that goes with the stage."""
    before = os.environ.get(CACHE)
    os.environ[CACHE] = str(folder / "cache")
    try:
        yield
    finally:
        if before is None:
            del os.environ[CACHE]
        else:
            os.environ[CACHE] = before
