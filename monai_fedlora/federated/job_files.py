"""What a job's folder holds, and reading its plan no further than the reader's own policy allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monai_fedlora.catalogues import trust
from monai_fedlora.federated.site_policy import Policy, site_policy

if TYPE_CHECKING:
    from monai_fedlora.federated.plan import Plan

CONFIG = Path("app") / "config"
"""Where a job folder keeps its plan, its manifest and what it starts from."""
PLAN_NAME = "plan.json"
MANIFEST_NAME = "manifest.json"
FORM_NAME = "report_form.json"
"""Which metrics a report may have, as the plan says; jobs of earlier versions have no such file."""
INITIAL_NAME = "initial_shared.safetensors"


def trust_as_policy_says(local: Path | None) -> Policy:
    """Allow plug-ins only of the packages that this end's policy trusts, and return the policy.

    Args:
        local: folder of what this end's jobs cannot change; None outside of a workspace.
    """
    policy = site_policy(local)
    trust(policy.plugins, source=policy.source)
    return policy


def trusted_plan(path: Path, local: Path | None) -> Plan:
    """Read a job's plan, whose names can stand for code of other packages.

    Args:
        path: of the plan.
        local: see :func:`trust_as_policy_says`.

    Raises:
        PolicyError: it names a plug-in of a package that this end does not trust, of which nothing was imported.
    """
    from monai_fedlora.federated.plan import Plan

    policy = trust_as_policy_says(local)
    plan = Plan.load(path)
    policy.check_plugins(plan)
    return plan
