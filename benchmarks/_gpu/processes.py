"""Stage 6: sites that share one device, and one training over several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import monai_fedlora
from _gpu.cached import epoch
from _gpu.place import CINE, IMAGE, Place, Training, trainer
from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
from monai_fedlora.data.site import CACHE, site_data
from monai_fedlora.resources import bundle_configs

_SCRIPT = Path(__file__).resolve().parents[1] / "gpu.py"


def run(place: Place) -> dict[str, Any]:
    """One site alone and two at once; then a training of one process per device, and of one too many."""
    alone = together(1, place)[0]
    both = together(place.choose(2, 1), place)
    devices = torch.cuda.device_count() if place.on_gpu else 1
    ranks = {"as_many_as_devices": distributed(devices, place)}
    if place.on_gpu:
        ranks["one_too_many"] = distributed(devices + 1, place)
    return {
        "alone": alone,
        "together": both,
        "times_slower_together": max(row["milliseconds"] for row in both) / alone["milliseconds"],
        "ranks": ranks,
        "passed": ranks["as_many_as_devices"]["exit_code"] == 0
        and (not place.on_gpu or ranks["one_too_many"]["exit_code"] != 0),
    }


def site(place: Place) -> dict[str, Any]:
    """What one of several processes on a device does: epochs with kept features."""
    bundle, size, cases, batch = place.choose((CINE, "base", 16, 8), (IMAGE, "vit_demo", 4, 2))
    return epoch(trainer(Training(bundle=bundle, size=size, cases=cases, batch_size=batch), place), place)


def together(count: int, place: Place) -> list[dict[str, Any]]:
    """The results of processes that train at the same time."""
    command = [sys.executable, str(_SCRIPT), "--device", place.device, "--stage", "site"]
    command += ["--tiny"] if place.tiny else []
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def distributed(ranks: int, place: Place) -> dict[str, Any]:
    """Exit code and last lines of a training over so many processes, as the documentation starts it."""
    environment = {**os.environ, CACHE: str(place.folder / "cache"), "PYTHONPATH": os.pathsep.join(sys.path)}
    if not place.on_gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    os.environ[CACHE] = environment[CACHE]
    datalist = site_data(
        "site-1", phantom="dermoscopy", settings=PhotoPhantomSettings(training=8, validation=4, test=4)
    )
    shared = Path(str(monai_fedlora.__file__)).parents[1] / "bundles" / "multi_gpu_train.json"
    files = [str(file) for file in bundle_configs(IMAGE)] + [str(shared)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    command += ["-m", "monai.bundle", "run", "--config_file", str(files)]
    with tempfile.TemporaryDirectory(dir=place.folder) as output:
        options = {"dataset_dir": str(datalist.parent), "output_dir": output, "epochs": "1", "batch_size": "2"}
        command += [part for name, value in options.items() for part in (f"--{name}", value)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=output)
    return {"ranks": ranks, "exit_code": done.returncode, "said": done.stderr.strip().splitlines()[-12:]}
