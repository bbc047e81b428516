"""CPU time per case of a training step whose features are all kept, outside the network, now and at an earlier commit.

The bundle's own trainer runs on phantoms with augmented views. What is frozen gives random numbers of the right shape,
and what trains is one bias, so that the rest is measured: from the sampler to the optimiser. Every measurement is a
process of its own with one thread; this code and the earlier one, which `git archive` puts into a temporary folder,
take turns, and the smallest time of each counts. "On a device" is this code with features on PyTorch's meta device,
where kernels are launched and compute nothing: what a GPU that holds them leaves to the processor, without the driver's
own time. "Conversion" is the part of a step on a processor that turns float16 into float32, by itself.

    python benchmarks/cached_step.py --before dfed8a4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _machine import machine
from monai.bundle import ConfigParser

from monai_fedlora import resources
from monai_fedlora.data.site import CACHE, PhantomSettings, site_data
from monai_fedlora.engines.frozen import FrozenPrefix
from monai_fedlora.files import write_json
from monai_fedlora.methods.build import UNTRAINED

ROOT = Path(__file__).resolve().parents[1]
RESULT = Path(__file__).parent / "results" / "cached_step.json"
VIEWS = 4
SIZES: dict[str, tuple[str, str, int, tuple[int, ...]]] = {
    "vit_demo": ("image_2d_fedopal_classification", "dermoscopy", 64, (8, 32)),
    "vit_base_16": ("image_2d_fedopal_classification", "dermoscopy", 32, (8, 32)),
    "small": ("cine_cmr_dual_lora_classification", "cine", 32, (1, 8)),
    "base": ("cine_cmr_dual_lora_classification", "cine", 8, (1, 8)),
}
"""Of each backbone: the bundle, its phantom, the number of cases, and sizes of batches."""


def without_the_network(network: Any) -> dict[Any, Any]:
    """Let the frozen part give random numbers, and logits be one bias that trains; return the numbers' shapes."""
    compute = FrozenPrefix.compute
    shapes: dict[Any, Any] = {}

    def features(part: FrozenPrefix, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if images.shape not in shapes:
            shapes[images.shape] = [(each.shape, each.dtype) for each in compute(part, images)]
        return tuple(torch.rand(shape, dtype=dtype) for shape, dtype in shapes[images.shape])

    def logits(part: FrozenPrefix, parts: Any, network: Any) -> torch.Tensor:
        return bias.new_zeros(len(parts[0]), len(bias)) + bias

    *_, bias = (p for name, p in network.named_parameters() if name.startswith(network.head_prefixes) and p.dim() == 1)
    FrozenPrefix.compute, FrozenPrefix.logits = features, logits  # type: ignore[assignment,method-assign]
    return shapes


def on_meta() -> None:
    """Let kept features lie on the meta device, and batches be gathered there."""
    from monai_fedlora.engines import features
    from monai_fedlora.engines.joining import joined
    from monai_fedlora.engines.on_device import OnDevice

    class OnMeta(OnDevice):
        def keep(self, key: Any, row: Any) -> Any:
            self._rows[key] = tuple(part.to("meta") for part in row)
            return self._rows[key]

    def gathered(place: int, rows: Any, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        return joined(place, rows, device=torch.device("meta"), dtype=dtype)

    features.OnDevice, features.joined = OnMeta, gathered  # type: ignore[misc,assignment]


def conversion(shapes: Any, batch: int) -> float:
    """Milliseconds of CPU time per case to turn a batch's features of float16 into float32, in memory used before."""
    rows = [[torch.rand(shape).half() for shape in shapes] for _ in range(batch)]
    places = [torch.empty(batch, *shape[1:]) for shape in shapes]
    taken = []
    for _ in range(20):
        started = time.process_time()
        for place, column in zip(places, zip(*rows, strict=True), strict=True):
            for target, row in zip(place, column, strict=True):
                target.copy_(row[0])
        taken.append(time.process_time() - started)
    return 1e3 * min(taken) / batch


def configs(bundle: str) -> Any:
    """The files of a bundle's training, which was one at first."""
    if hasattr(resources, "bundle_configs"):
        return resources.bundle_configs(bundle)
    return resources.bundle_path(bundle) / "configs" / "train.json"


def measure(size: str, epochs: int, device: str) -> dict[int, dict[str, float]]:
    """Milliseconds of CPU time per case, by the size of the batch and what was measured."""
    torch.set_num_threads(1)
    bundle, phantom, cases, batches = SIZES[size]
    found: dict[int, dict[str, float]] = {}
    shapes: dict[Any, Any] = {}
    if device == "meta":
        on_meta()
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE] = cache
        if phantom == "cine":
            datalist = site_data("site-1", settings=PhantomSettings(training=cases, validation=0, test=0))
        else:
            from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings

            settings = PhotoPhantomSettings(training=cases, validation=0, test=0)
            datalist = site_data("site-1", phantom=phantom, settings=settings)
        for batch in batches:
            config = ConfigParser()
            config.read_config(configs(bundle))
            overrides = {
                "dataset_dir": str(datalist.parent),
                "output_dir": str(datalist.parent / "run"),
                "size": size,
                "backbone": UNTRAINED,
                "method": "dual_lora",
                "method_args": {},
                "augmented_views": VIEWS,
                "batch_size": batch,
                "val_interval": 0,
                "save_checkpoints": False,
                "show_progress": False,
            }
            for key, value in overrides.items():
                config[key] = value
            trainer = config.get_parsed_content("train::trainer")
            seen = without_the_network(trainer.network)
            trainer.run_epochs(2 * VIEWS)  # made in the first turn of the views, opened in the second
            taken = []
            for _ in range(epochs):
                started = time.process_time()
                trainer.run_epochs(VIEWS)
                taken.append((time.process_time() - started) / (VIEWS * cases))
            found[batch] = {"on_a_device" if device == "meta" else "on_a_processor": 1e3 * min(taken)}
            if device != "meta":
                (parts,) = (shapes := shapes or seen).values()
                found[batch]["conversion"] = conversion([shape for shape, _ in parts], batch)
    return found


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Measure both kinds of code in turns."""
    with tempfile.TemporaryDirectory() as earlier:
        archive = subprocess.run(["git", "archive", settings["before"]], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", earlier], input=archive.stdout, check=True)
        rows: dict[str, dict[str, Any]] = {}
        for turn in range(settings["turns"]):
            for size in settings["sizes"]:
                kinds = (("before", earlier, "cpu"), ("now", str(ROOT), "cpu"), ("on_a_device", str(ROOT), "meta"))
                for when, place, device in kinds:
                    command = [sys.executable, __file__, "--measure", size, "--epochs", str(settings["epochs"])]
                    environment = {**os.environ, "PYTHONPATH": place}
                    done = subprocess.run(
                        [*command, "--device", device], env=environment, cwd=place, capture_output=True, text=True
                    )
                    if done.returncode:
                        raise SystemExit(done.stderr)
                    for batch, values in json.loads(done.stdout.splitlines()[-1]).items():
                        row = rows.setdefault(f"{size}, batches of {batch}", {})
                        for what, value in values.items():
                            name = what if what == "conversion" else when
                            row[name] = min(value, row.get(name, value))
                print(turn + 1, {name: row for name, row in rows.items() if name.startswith(f"{size},")}, flush=True)
    for row in rows.values():
        row["times_less"] = row["before"] / row["now"]
    return {"settings": settings, "machine": machine(), "milliseconds_per_case": rows}


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="dfed8a4", help="commit to compare with (default: %(default)s)")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=list(SIZES))
    parser.add_argument("--epochs", type=int, default=3, help="turns of the views that are timed in a process")
    parser.add_argument("--turns", type=int, default=2, help="processes for each kind of code")
    parser.add_argument("--measure", choices=list(SIZES), help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cpu", "meta"), default="cpu", help=argparse.SUPPRESS)
    settings = vars(parser.parse_args())
    size, device = settings.pop("measure"), settings.pop("device")
    if size:
        print(json.dumps(measure(size, settings["epochs"], device)))
        return
    result = run(settings)
    write_json(RESULT, result)
    for name, row in result["milliseconds_per_case"].items():
        print(f"{name:28}{row['before']:9.3f} ms{row['now']:9.3f} ms{row['times_less']:8.1f} times less", end="")
        print(f"{row['on_a_device']:9.3f} ms on a device, {row['conversion']:.3f} ms conversion")


if __name__ == "__main__":
    main()
