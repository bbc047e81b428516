"""A plan's numbers as settings of a training bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from monai_fedlora.engines.seeds import mix
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.plan_budget import SETTINGS


def plan_settings(plan: Plan, site: str, *, output: Path) -> dict[str, Any]:
    """What a plan puts in the place of a bundle's own settings.

    Args:
        plan: the experiment.
        site: one of its sites.
        output: folder for what the bundle would write.
    """
    settings: dict[str, Any] = {
        "site": site,
        "output_dir": str(output),
        "size": plan.size,
        "backbone_sha256": plan.backbone_sha256,
        "method": plan.method,
        "method_args": dataclasses.asdict(plan.site_method(site)),
        "epochs": plan.total_epochs,
        "seed": mix(plan.seed, site),
        "trackers": [],
        "save_checkpoints": False,
        "early_stopping_patience": 0,
        "val_interval": 0,
        "show_progress": False,
        **plan.task_of.settings,
        **plan.training,
    }
    if plan.epochs_after:
        settings["fine_tune_epochs"] = plan.epochs_after
    if plan.privacy is not None:
        settings |= {**SETTINGS, **plan.training}
    if plan.prompts is not None:
        settings["prompts"] = list(plan.prompts.templates)
        settings["class_texts"] = dict(plan.prompts.class_texts)
    return settings
