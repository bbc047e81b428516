"""The bundles of the repository, and how a test runs one."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import PhantomSettings, site_data
from monai_fedlora.methods import method_names
from tests.methods.federation import NEED_TEXTS
from tests.networks.clip import write_towers

KINDS = {"train": "train", "evaluate": "eval", "inference": "infer"}
FILES = {
    "train": ("train", "../../training"),
    "evaluate": ("train", "../../evaluation"),
    "multi_gpu_train": ("../../multi_gpu_train",),
}
"""The files of a config by its name, where these are not one of the bundle's own of this name."""
SHARED = ("training", "evaluation", "multi_gpu_train")
UNTRAINED = {"backbone": "untrained"}


@functools.cache
def random_clip(seed: int = 0) -> str:
    """The file of a CLIP with random weights; a network without any has texts that are all alike."""
    folder = tempfile.TemporaryDirectory(prefix="random-clip-")
    atexit.register(folder.cleanup)
    return str(write_towers(Path(folder.name), seed=seed))


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
        methods: that it has a config for.
        overrides: names of configs that are given after another one, beside these.
        reads_text: whether its backbone has a text tower.
        gives_masks: whether it segments; its classes are structures then.
    """

    name: str
    phantom: str
    few: PhantomSettings | PhotoPhantomSettings
    method: str
    other: str
    classes: tuple[str, ...]
    methods: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    reads_text: bool = False
    gives_masks: bool = False

    @property
    def folder(self) -> Path:
        """Where the bundle lies."""
        return Path(__file__).resolve().parents[2] / "bundles" / self.name

    def config(self, name: str) -> Path:
        """Path of a config."""
        return (self.folder / "configs" / f"{name}.json").resolve()

    def files(self, *names: str) -> list[str]:
        """Paths of what makes up configs, in their order."""
        return [str(self.config(part)) for name in names for part in FILES.get(name, (name,))]

    def merged(self, *names: str) -> dict[str, Any]:
        """The content of configs that are given together."""
        content: dict[str, Any] = ConfigParser.load_config_files(self.files(*names))
        return content

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """Names of all configs that are given after another one."""
        return (*self.overrides, *(f"methods/{name}" for name in self.methods))

    @property
    def weights(self) -> dict[str, str]:
        """The setting of a backbone that means nothing."""
        return {"backbone": random_clip()} if self.reads_text else UNTRAINED

    def site(self) -> Path:
        """Path of the datalist of a few synthetic cases."""
        return site_data("site-1", phantom=self.phantom, settings=self.few)

    def workflow(self, name: str, *, overrides: Sequence[str] = (), **settings: Any) -> ConfigWorkflow:
        """MONAI's workflow of a config, followed by overrides."""
        files = self.files(name, *overrides)
        return ConfigWorkflow(files, workflow_type=KINDS[name], logging_file=False, **{**self.weights, **settings})

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
        named = str(self.files(*([names] if isinstance(names, str) else names)))
        command = [
            "-m",
            "monai.bundle",
            "run",
            "--config_file",
            named,
            *arguments,
            "--backbone",
            self.weights["backbone"],
        ]
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
HEART_MASKS = Shipped(
    name="cine_cmr_dual_lora_segmentation",
    phantom="cine_masks",
    few=PhantomSettings(training=5, validation=4, test=4, task="segmentation"),
    method="dual_lora",
    other="fedit",
    classes=("LV", "MYO", "RV"),
    gives_masks=True,
)
_FEW_PHOTOGRAPHS = PhotoPhantomSettings(training=9, validation=6, test=6, size=48)
PHOTOGRAPHS = Shipped(
    name="image_2d_fedopal_classification",
    phantom="dermoscopy",
    few=_FEW_PHOTOGRAPHS,
    method="fedopal",
    other="dual_lora",
    classes=("NV", "MEL", "BKL", "VASC"),
    methods=tuple(name for name in method_names() if name not in NEED_TEXTS),
    overrides=("segmentation",),
)
TEXTS = Shipped(
    name="image_2d_pfedst_classification",
    phantom="dermoscopy",
    few=_FEW_PHOTOGRAPHS,
    method="pfedst",
    other="clip_adapter",
    classes=PHOTOGRAPHS.classes,
    methods=tuple(method_names()),
    overrides=("fundus",),
    reads_text=True,
)
BUNDLES = (CINE, HEART_MASKS, PHOTOGRAPHS, TEXTS)
CLASSIFIERS = tuple(bundle for bundle in BUNDLES if not bundle.gives_masks)


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
