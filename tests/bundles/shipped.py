"""The bundles of the repository, and how a test runs one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.site import PhotoPhantomSettings
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.methods import method_names

KINDS = {"train": "train", "evaluate": "eval", "inference": "infer"}
UNTRAINED = {"backbone": "untrained"}


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A bundle.

    Attributes:
        name: of its folder.
        phantom: what its synthetic data show.
        few: settings of a site of a few synthetic cases.
        method: that it trains unless told otherwise.
        other: another method on the same layers.
        classes: of its inference.
        overrides: names of configs that are given after another one.
    """

    name: str
    phantom: str
    few: PhantomSettings | PhotoPhantomSettings
    method: str
    other: str
    classes: tuple[str, ...]
    overrides: tuple[str, ...] = ("multi_gpu_train",)

    @property
    def folder(self) -> Path:
        """Where the bundle lies."""
        return Path(__file__).resolve().parents[2] / "bundles" / self.name

    def config(self, name: str) -> Path:
        """Path of a config."""
        return self.folder / "configs" / f"{name}.json"

    def site(self) -> Path:
        """Path of the datalist of a few synthetic cases."""
        return site_data("site-1", phantom=self.phantom, settings=self.few)

    def workflow(self, name: str, *, overrides: Sequence[str] = (), **settings: Any) -> ConfigWorkflow:
        """MONAI's workflow of a config, followed by overrides."""
        files = [str(self.config(part)) for part in (name, *overrides)]
        return ConfigWorkflow(files, workflow_type=KINDS[name], logging_file=False, **{**UNTRAINED, **settings})

    def run(self, name: str, *, overrides: Sequence[str] = (), **settings: Any) -> ConfigWorkflow:
        """Run a config."""
        prepared = self.workflow(name, overrides=overrides, **settings)
        prepared.initialize()
        prepared.run()
        return prepared

    def command(
        self, names: str | Sequence[str], *arguments: str, cwd: Path, launcher: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run one or several configs as a person does, in a process of its own."""
        named = str(self.config(names)) if isinstance(names, str) else str([str(self.config(name)) for name in names])
        command = ["-m", "monai.bundle", "run", "--config_file", named, *arguments, "--backbone", "untrained"]
        return subprocess.run(
            [sys.executable, *launcher, *command],
            cwd=cwd,
            env={**os.environ, "MONAI_EVAL_EXPR": "0", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )


CINE = Shipped(
    name="cine_cmr_dual_lora_classification",
    phantom="cine",
    few=PhantomSettings(training=5, validation=4, test=4),
    method="dual_lora",
    other="fedit",
    classes=("NOR", "ABN"),
)
PHOTOGRAPHS = Shipped(
    name="image_2d_fedopal_classification",
    phantom="dermoscopy",
    few=PhotoPhantomSettings(training=9, validation=6, test=6, size=48),
    method="fedopal",
    other="dual_lora",
    classes=("NV", "MEL", "BKL", "VASC"),
    overrides=("multi_gpu_train", *(f"methods/{name}" for name in method_names())),
)
BUNDLES = (CINE, PHOTOGRAPHS)


def root_cause(error: BaseException) -> BaseException:
    """What was wrong below the parser's own errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def copy_studies(datalist: Path, folder: Path) -> list[str]:
    """Copy the test cases into a folder, named as a person would bring them; return the studies' names."""
    folder.mkdir()
    items = load_datalist(datalist).items("test")
    for item in items:
        for key in ("ed", "es"):
            if key in item:
                shutil.copy(item[key], folder / f"{item['subject']}_{key}.nii.gz")
        if "image" in item:
            shutil.copy(item["image"], folder / f"{item['subject']}{Path(item['image']).suffix}")
    return [str(item["subject"]) for item in items]


def strings(value: Any) -> Iterator[str]:
    """Every string in a config, keys among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def targets(value: Any) -> Iterator[str]:
    """Everything that a config calls."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value["_target_"]
        for part in value.values():
            yield from targets(part)
    elif isinstance(value, list):
        for part in value:
            yield from targets(part)
