"""Run the model of a bundle that passed the check once, in a process of its own with limits on time and memory.

A static check cannot find out how long a model computes or how much memory it takes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT, PROGRAM = "models/model.ts", "models/model.pt2"
_SIZES = {"photograph": (64, 80), "MR": (64, 60, 4)}
"""Spatial size of the test image by modality; a model for arrays is tested with its own size."""
SEGMENTATION = "segmentation"
"""Format of a model's output that is a mask."""
SECONDS = 120
"""Time limit for loading the model and classifying one small image (ours)."""

MEMORY = 8 << 30
"""Limit of the memory in bytes, in addition to that of torch itself (ours)."""


def run_problem(bundle: Path, *, seconds: float = SECONDS, memory: int = MEMORY) -> str | None:
    """Why the model of a bundle could not be run; None if it could.

    Args:
        bundle: a folder that passed :func:`monai_fedlora.exporting.check.checker.check_bundle`, in a private copy.
        seconds: limit of the whole process.
        memory: limit in bytes, in addition to that of torch itself.
    """
    command = [sys.executable, "-m", __name__, str(bundle), str(memory)]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"did not classify a small image within {seconds:g} seconds"
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.strip()] or [f"status {found.returncode}"]
        return f"does not run: {lines[-1][:200]}"
    return None


def _main(bundle: Path, memory: int) -> None:
    import resource

    import torch

    torch.set_num_threads(1)
    tempfile.gettempdir()  # writes a file to find it, which the limits below forbid; torch.export.load needs it
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    image = metadata["network_data_format"]["inputs"]["image"]
    size = _SIZES.get(image["modality"]) or image["spatial_shape"]
    batch = torch.rand(1, int(image["num_channels"]), *size, generator=torch.Generator().manual_seed(0))
    affines = [torch.diag(torch.tensor([1.4, 1.4, 8.0, 1.0], dtype=torch.float64))[None]] if "affine" in image else []
    with torch.no_grad():
        if (bundle / SCRIPT).is_file():
            network = torch.jit.load(str(bundle / SCRIPT), map_location="cpu").eval()
        else:
            network = torch.export.load(str(bundle / PROGRAM)).module()
        found = network(batch, *affines)
    answer = metadata["network_data_format"]["outputs"]["pred"]
    if answer["format"] == SEGMENTATION:
        if (found.dtype == torch.uint8) != (bundle / SCRIPT).is_file() or found.shape[-len(size) :] != batch.shape[2:]:
            raise ValueError("the model gives no mask on the grid of a small image")
    elif found.dim() != 2 or not bool(torch.isfinite(found).all()):
        raise ValueError("the model gives no finite logits for a small image")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
