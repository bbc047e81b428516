"""Whether the toolkit is right on a GPU, and how fast: seven stages, each with a time limit, a JSON line per stage.

The command needs PyTorch, this repository and, where they are not installed, the wheels that `make gpu-wheels`
collects:

    python -m pip install --no-index --no-deps --target site build/gpu-wheels/*.whl
    PYTHONPATH=site:. python benchmarks/gpu.py --output gpu.jsonl

Every stage is a process of its own, so that a failed one leaves the others alone; all together take at most eight
minutes. Times are those of CUDA events after a warm-up. Without a GPU the same stages run at a tiny size, which shows
that they run and measures nothing of use.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STAGES = {
    "correct": 110,
    "step": 100,
    "cached": 60,
    "compiled": 75,
    "repeats": 30,
    "processes": 60,
    "clinic": 45,
}
"""Of eight minutes, the seconds that each stage may take."""


def one_stage(name: str, device: str, tiny: bool) -> dict[str, Any]:
    """Run a stage in this process."""
    import torch
    from _gpu.place import Place

    if tiny:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Place(device=device, tiny=tiny, folder=Path(folder))
        if name == "site":
            from _gpu.processes import site

            return site(place)
        result: dict[str, Any] = importlib.import_module(f"_gpu.{name}").run(place)
        return result


def in_process(name: str, device: str, tiny: bool, limit: float) -> dict[str, Any]:
    """Run a stage in a process of its own: its result, or why there is none."""
    command = [sys.executable, __file__, "--stage", name, "--device", device, *(["--tiny"] if tiny else [])]
    started = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"status": "time limit", "seconds": limit}
    row: dict[str, Any] = {"status": "done", "seconds": round(time.monotonic() - started, 1)}
    if done.returncode:
        return {**row, "status": "failed", "said": done.stderr.strip().splitlines()[-15:]}
    result = json.loads(done.stdout.splitlines()[-1])
    return {**row, "status": "done" if result.get("passed", True) else "wrong", "result": result}


def about(device: str) -> dict[str, Any]:
    """The machine, and of a GPU its name, memory and number of processors."""
    import torch
    from _machine import machine

    found = machine()
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpu_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found


def main() -> None:
    """Run from the command line; the exit code is 1 where a stage failed, was wrong or had no time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help='"cuda:0" or "cpu" (default: a GPU if there is one)')
    parser.add_argument(
        "--stages", type=lambda text: text.split(","), default=list(STAGES), help=f"some of {','.join(STAGES)}"
    )
    parser.add_argument("--tiny", action="store_true", help="small networks and few cases; always so on a CPU")
    parser.add_argument("--seconds", type=float, default=480, help="that all stages may take (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write the lines to this file")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    device = arguments.device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    tiny = arguments.tiny or device == "cpu"
    if arguments.stage:
        print(json.dumps(one_stage(arguments.stage, device, tiny)))
        return
    if unknown := sorted(set(arguments.stages) - STAGES.keys()):
        parser.error(f"there is no stage {', '.join(unknown)}; choose from {', '.join(STAGES)}")
    rows = [{"stage": "machine", "device": device, "tiny": tiny, **about(device)}]
    print(json.dumps(rows[0]), flush=True)
    for name in arguments.stages:
        limit = arguments.seconds * STAGES[name] / sum(STAGES[chosen] for chosen in arguments.stages)
        rows.append({"stage": name, **in_process(name, device, tiny, limit)})
        print(json.dumps(rows[-1]), flush=True)
        if arguments.output:
            arguments.output.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    raise SystemExit(any(row.get("status", "done") != "done" for row in rows))


if __name__ == "__main__":
    main()
