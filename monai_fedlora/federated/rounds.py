"""A federation inside one process: the same sites and the same averaging, without NVFlare's messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monai_fedlora.federated.aggregation import Refusal, SharedAverage
from monai_fedlora.federated.initial import build_shared, needs_backbone, save_shared
from monai_fedlora.federated.one_backbone import FrozenTensors, return_freed_memory
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.record import LAST_NAME, RunRecord
from monai_fedlora.federated.site import Site
from monai_fedlora.networks.read_once import reading_once
from monai_fedlora.scope import Role


def run_in_process(
    plan: Plan,
    *,
    folder: Path,
    data_root: str | None = None,
    backbone: str | None = None,
    on_progress: Callable[[Mapping[str, Any]], None] = lambda results: None,
) -> Mapping[str, Any]:
    """Run all rounds of a plan and the final evaluation, one site after the other, on one frozen backbone.

    A site that has answered keeps what it needs for the next task where it would after its process ended, so that many
    sites take little more memory than one.

    Args:
        plan: the experiment.
        folder: receives ``results.json``, ``shared.safetensors`` and ``private/``.
        data_root: folder of prepared sites; None generates the phantom.
        backbone: path of the backbone file; None uses each site's own configuration.
        on_progress: called with the content of ``results.json`` whenever a site has answered.

    Returns:
        The content of ``results.json``.
    """
    manifest, shared = build_shared(plan, backbone=(backbone or "demo") if needs_backbone(plan) else None)
    record = RunRecord(folder=folder, plan=plan, manifest=manifest)
    average = SharedAverage.of(plan, manifest)
    sites, frozen = {}, FrozenTensors()
    with reading_once():
        for name in plan.sites:
            site = Site(name=name, plan=plan, private_root=folder / "private", data_root=data_root, backbone=backbone)
            frozen.share(site.network, site.scope.keys(Role.FROZEN))
            _rest(site)
            sites[name] = site
    for number in range(plan.start_round, plan.start_round + plan.rounds):
        record.begin_round(number)
        average.begin(number, shared)
        for name, site in sites.items():
            update = site.train_round(number, shared)
            _rest(site)
            try:
                average.accept(name, update.payload, update.report)
                record.contribution(name, update.report)
            except Refusal as error:
                record.refusal(number, name, str(error))
            on_progress(record.value)
        record.agreement(average.agreement())
        shared = average.aggregate()
        record.end_round(score=average.score(), traffic={})
    save_shared(folder / LAST_NAME, shared, plan=plan, round_number=plan.start_round + plan.rounds - 1)
    for name, site in sites.items():
        record.final(name, site.finish(shared))
        _rest(site)
        on_progress(record.value)
    record.finish()
    return record.value


def _rest(site: Site) -> None:
    """Let a site that has answered take no room that the next one needs."""
    site.rest()
    return_freed_memory()
