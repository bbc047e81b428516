"""Run a bundle's model once where it can do no harm: in a process of its own, with limits on time and memory.

A static check cannot tell how long a model computes. This says it, for a bundle that passed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPT, PROGRAM = "models/model.ts", "models/model.pt2"
_SIZES = {"photograph": (64, 80), "MR": (64, 60, 4)}
"""Of the small image that each kind of model takes; one for arrays takes its own size alone."""
SECONDS = 120
"""Time that a model has for reading itself and one small image (ours)."""

MEMORY = 8 << 30
"""Bytes that it may take beyond those of torch itself (ours)."""


def run_problem(bundle: Path, *, seconds: float = SECONDS, memory: int = MEMORY) -> str | None:
    """Why the model of a bundle could not be run; None where it could.

    Args:
        bundle: a folder that passed :func:`monai_fedlora.exporting.check.checker.check_bundle`, in a private copy.
        seconds: limit of the whole process.
        memory: limit in bytes, beyond what torch takes.
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
    tempfile.gettempdir()  # found by writing a file, which torch.export.load asks for and the limits forbid
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
        logits = network(batch, *affines)
    if logits.dim() != 2 or not bool(torch.isfinite(logits).all()):
        raise ValueError("the model gives no finite logits for a small image")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
