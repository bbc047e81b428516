"""The federation by this toolkit: an NVFlare job, or all sites in one process.

python -m _frameworks.ours nvflare work.json
python -m _frameworks.ours in_process work.json
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from _frameworks.work import BUNDLE, Work


def plan_of(work: Work) -> Any:
    """The work as a plan."""
    from monai_fedlora.federated.plan import Plan
    from monai_fedlora.files import sha256

    return Plan(
        experiment="frameworks",
        bundle=BUNDLE,
        method=work.method,
        method_args=work.method_args,
        sites=work.names,
        classes=work.classes,
        rounds=work.rounds,
        local_epochs=work.epochs,
        size=work.size,
        seed=work.seed,
        backbone_sha256=sha256(work.backbone),
        training={"batch_size": work.batch_size, "augment": False, "warmup_epochs": 0},
    )


def in_process(work: Work) -> Mapping[str, Any]:
    """Run all sites one after the other in this process."""
    import torch

    from _frameworks.timed import timed
    from monai_fedlora.federated import rounds

    torch.set_num_threads(1)
    build = rounds.Site
    rounds.Site = lambda **settings: timed(build(**settings))  # type: ignore[assignment, misc]
    return rounds.run_in_process(
        plan_of(work), folder=Path(work.folder) / "run", data_root=work.data, backbone=work.backbone
    )


def nvflare(work: Work) -> Mapping[str, Any]:
    """Run the job in NVFlare's simulator, with executors that note when they train."""
    from monai_fedlora.federated.initial import build_shared, needs_backbone
    from monai_fedlora.federated.jobs import write_job
    from monai_fedlora.federated.simulator import simulate
    from monai_fedlora.files import read_json, write_json

    plan, job = plan_of(work), Path(work.folder) / "job"
    manifest, _ = build_shared(plan, backbone=work.backbone if needs_backbone(plan) else None)
    write_job(plan, manifest, job)
    client = job / "app" / "config" / "config_fed_client.json"
    config = read_json(client)
    config["executors"][0]["executor"]["path"] = "_frameworks.timed_executor.TimedExecutor"
    write_json(client, config)
    return simulate(
        job, workspace=Path(work.folder) / "run", data=work.data, backbone=work.backbone, threads=work.at_once
    )


WAYS: dict[str, Callable[[Work], Mapping[str, Any]]] = {"nvflare": nvflare, "in_process": in_process}


def main(way: str, path: str) -> None:
    """Run, and leave the bytes that travelled."""
    work = Work.read(path)
    results = WAYS[way](work)
    if results["refused"]:
        raise RuntimeError(f"refused: {results['refused'][0]}")
    answers = [answer for entry in results["rounds"][1:] for answer in entry["sites"].values()]
    work.write_outcome(
        payload_bytes=results["payload_bytes"],
        **{key: statistics.mean(answer.get(key, 0) for answer in answers) for key in ("bytes_sent", "bytes_received")},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
