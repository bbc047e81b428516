"""Stage 7: an exported model on the device: its answers beside a processor's, and what a bad image does to it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

import monai_fedlora as fl
from _gpu.place import Place
from monai_fedlora.clinic.bundle import open_bundle
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import CACHE, site_data
from monai_fedlora.errors import FedLoraError

LARGEST = 1e-3


def run(place: Place) -> dict[str, Any]:
    """Train a round, export, and ask the classifier and the program, with a bad image in between."""
    os.environ[CACHE] = str(place.folder / "cache")
    folder = site_data("site-1", phantom="dermoscopy", settings=PhotoPhantomSettings(training=16, validation=8, test=8))
    run = fl.federate("vit_demo", fl.method("fedopal"), {"site-1": folder.parent, "site-2": folder.parent}, rounds=1)
    bundle = Path(fl.export(run, site="site-1", output=place.folder / "bundle").folder)
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    classifier = open_bundle(bundle)
    started = time.perf_counter()
    found = classifier.probabilities(image)
    first = time.perf_counter() - started
    bad = _refused(lambda: classifier.probabilities(image * float("nan")))
    again = classifier.probabilities(image)
    program = torch.export.load(bundle / "models" / "model.pt2").module()
    on_cpu = program(image[None])
    apart = float((torch.tensor(found) - on_cpu.softmax(1)[0]).abs().max())
    return {
        "device": str(classifier.device),
        "first_seconds": first,
        "apart_from_the_program_on_a_processor": apart,
        "bad_image": bad,
        "works_after_a_bad_image": again == found,
        "passed": apart <= LARGEST and again == found and bad is not None,
    }


def _refused(work: Any) -> str | None:
    try:
        work()
    except (FedLoraError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return None
