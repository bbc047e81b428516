"""Bytes that a site uploads per round, as NVFlare's own transfer statistics count them.

Runs a federation of two sites for one round at the given backbone size on a handful of synthetic patients, with a
randomly initialised backbone, and reads both the per-site count of ``results.json`` and NVFlare's statistics file.

    python benchmarks/upload.py --size base
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from _machine import machine
from _policy import allow_small_sites

from monai_fedlora.files import write_json

RESULTS = Path(__file__).parent / "results"
SITES = ("site-1", "site-2")


def run(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make data, backbone and job in ``folder``, simulate, and read the counts."""
    import shutil

    import torch

    from monai_fedlora.data.site import PhantomSettings, site_data
    from monai_fedlora.federated.initial import build_shared
    from monai_fedlora.federated.jobs import write_job
    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.federated.simulator import simulate
    from monai_fedlora.files import save_tensors, sha256
    from monai_fedlora.networks.cinema import convvit

    for site in SITES:
        source = site_data(site, settings=PhantomSettings(training=2, validation=1, test=1)).parent
        shutil.copytree(source, folder / "data" / site)
    torch.manual_seed(0)
    network = convvit(settings["size"], out_chans=2)
    backbone = folder / "backbone.safetensors"
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(network.head_prefixes)}
    save_tensors(backbone, state)
    plan = Plan(
        experiment="upload",
        bundle="cine_cmr_dual_lora_classification",
        method=settings["method"],
        sites=SITES,
        classes=("NOR", "ABN"),
        rounds=1,
        size=settings["size"],
        backbone_sha256=sha256(backbone),
        wire_dtype=settings["wire"],
        training={"batch_size": 1},
    )
    manifest, _ = build_shared(plan)
    write_job(plan, manifest, folder / "job")
    results = simulate(
        folder / "job", workspace=folder / "run", data=str(folder / "data"), backbone=str(backbone), threads=2
    )
    statistics = json.loads((folder / "run/nvflare/server/pool_stats/simulator_cell_stats.json").read_text())
    streams = statistics["received_stream_sizes"]["pool"]["cat_data"]
    answers = streams["server.simulate_job:stream:server_command:submit_update"]
    return {
        "settings": settings,
        "machine": machine(),
        "manifest_bytes": manifest.nbytes,
        "tensors": len(manifest.entries),
        "uploaded_per_site": {site: results["rounds"][0]["sites"][site]["bytes_sent"] for site in SITES},
        "nvflare_answers_per_site_all_tasks": round(
            2**20 * sum(entry["total"] for entry in answers if entry) / len(SITES)
        ),
    }


def main() -> None:
    """Run from the command line and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--method", default="dual_lora")
    parser.add_argument("--wire", default="float16", choices=("float16", "float32"))
    settings = vars(parser.parse_args())
    allow_small_sites()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(settings, Path(scratch))
    path = RESULTS / f"upload_{settings['method']}_{settings['size']}_{settings['wire']}.json"
    write_json(path, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
