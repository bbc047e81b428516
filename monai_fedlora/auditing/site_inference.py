"""Whether a released shared model tells which sites were behind it.

The attacker has the model and patients of a hospital, none of whom anybody trained on, and asks whether that hospital
took part. Runs of the same plan with all sites, and with each of them left out, say how well that can be told: where
the loss of a site's test cases in a run lies below its mean over all runs, the site is taken for a member of that run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from monai_fedlora.errors import ExportError
from monai_fedlora.exporting.attacks import Attack, rate_at_low_error, roc_area
from monai_fedlora.exporting.intervals import area, wilson
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.plan import Plan

SITES = "sites"
SHARED_MODEL = "shared model"
FEWEST_SITES = 3
"""Of which one is left out; two sites without one are no federation."""


def without(plan: Plan, site: str) -> Plan:
    """The plan of the same run, from its first round to its last, without one of the sites.

    Raises:
        ExportError: too few sites would be left, the run started from stored tensors, which the site may have moved, or
            its sites have settings of their own.
        ConfigError: the method or its rule does not take so few sites.
    """
    if len(plan.sites) < FEWEST_SITES:
        raise ExportError(f"the run has {len(plan.sites)} sites, and it takes {FEWEST_SITES} to leave one out")
    if plan.start is not None:
        raise ExportError(f"the run started from {plan.start.name}, which nobody can tell without the site")
    if any(plan.site_method(name) != plan.build_method() for name in plan.sites):
        raise ExportError(f"{plan.method} has settings of each site's own, which leaving one out would move")
    return dataclasses.replace(
        plan,
        sites=tuple(name for name in plan.sites if name != site),
        declared_cases={name: count for name, count in plan.declared_cases.items() if name != site},
        rounds=plan.start_round + plan.rounds,
        start_round=0,
        changed=(),
        participation=Participation(sample=plan.participation.sample),
    )


def participation(losses: Tensor, inside: Tensor, sites: Sequence[str]) -> Attack:
    """How well the losses tell which sites were in which run.

    Args:
        losses: (R, S) mean loss of each site's test cases in the shared model of each run.
        inside: (R, S) bool, which sites were in which run.
        sites: S names.

    Returns:
        The attack, of pairs of a run and a site. The interval takes pairs for independent of each other, which they
        are not quite, and is wide with few sites.

    Raises:
        ExportError: a loss is not finite, or every site was in all runs or in none.
    """
    if losses.shape != inside.shape or losses.shape[1] != len(sites):
        raise ValueError(f"losses {tuple(losses.shape)} of {len(sites)} sites, inside {tuple(inside.shape)}")
    if not bool(torch.isfinite(losses).all()):
        raise ExportError("a loss of a shared model is not finite")
    if bool(inside.all()) or not bool(inside.any()):
        raise ExportError("there is no run without one of the sites")
    told = losses.double().mean(dim=0) - losses.double()
    members, others = told[inside], told[~inside]
    auc = roc_area(members, others)
    found, rate = rate_at_low_error(members, others)
    return Attack(
        name=f"participation, {len(losses)} runs",
        target=SHARED_MODEL,
        members=(SITES,),
        n_members=len(members),
        n_others=len(others),
        auc=auc,
        interval_95=area(auc, len(members), len(others)),
        tpr=found / len(members),
        tpr_interval_95=wilson(found, len(members)),
        fpr=rate,
    )
