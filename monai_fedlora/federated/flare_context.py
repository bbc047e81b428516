"""Reading a job's own files from inside NVFlare components."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLContextKey, ReturnCode, ServerCommandKey, WorkspaceConstants
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from monai_fedlora.catalogues import trust
from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.site_policy import Policy, site_policy
from monai_fedlora.federated.start import MANIFEST_NAME, PLAN_NAME
from monai_fedlora.federated.tensors import Tensors
from monai_fedlora.scope import Manifest

REPORT_KEY = "report"
TRAIN_TASK = "train"
EVALUATE_TASK = "validate"
RECORD_ID = "record"
REFUSED = ReturnCode.TASK_UNSUPPORTED
"""How a site answers whose own policy does not allow the job; NVFlare itself never sends this code."""
BLOCKED = "monai_fedlora.blocked"
"""Property of the context of a message that the filter has blocked: the reason."""


def config_file(fl_ctx: FLContext, name: str) -> Path:
    """Path of a file beside the job's configuration; an absolute ``name`` is returned as it is."""
    return Path(fl_ctx.get_prop(FLContextKey.APP_ROOT)) / "config" / name


def local_folder(fl_ctx: FLContext) -> Path | None:
    """Where this end, a site or the server, keeps what its jobs cannot change; None outside a workspace."""
    root = fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT)
    return Path(root) / WorkspaceConstants.SITE_FOLDER_NAME if root else None


def trust_as_policy_says(fl_ctx: FLContext) -> Policy:
    """Allow plug-ins only of the packages that this end's policy trusts, and return the policy."""
    policy = site_policy(local_folder(fl_ctx))
    trust(policy.plugins, source=policy.source)
    return policy


def load_plan(fl_ctx: FLContext) -> Plan:
    """Read the job's plan, whose names can stand for code of other packages.

    Raises:
        PolicyError: it names a plug-in of a package that this end does not trust, of which nothing was imported.
    """
    policy = trust_as_policy_says(fl_ctx)
    plan = Plan.load(config_file(fl_ctx, PLAN_NAME))
    policy.check_plugins(plan)
    return plan


def load_manifest(fl_ctx: FLContext, name: str = MANIFEST_NAME) -> Manifest:
    """Read the job's manifest, or the one at an absolute path."""
    return Manifest.load(config_file(fl_ctx, name))


def run_folder(fl_ctx: FLContext) -> Path:
    """Folder of this run in the NVFlare workspace."""
    return Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))


def sender(answer: Shareable) -> str:
    """The site whose answer has arrived at the server.

    It follows from the token that the answer came with; what the message says about its sender can be made up.
    """
    return str(answer.get_header(ServerCommandKey.FL_CLIENT).name)


def weights_message(payload: Mapping[str, Any], report: Mapping[str, Any] | None = None) -> Shareable:
    """Wrap shared tensors, and a report: a site's, or what the server says about the tensors."""
    return DXO(DataKind.WEIGHTS, data=Tensors(payload), meta={REPORT_KEY: report} if report else {}).to_shareable()


def metrics_message(report: dict[str, Any]) -> Shareable:
    """Wrap a report without tensors."""
    return DXO(DataKind.METRICS, data=report).to_shareable()


def refuse_unread(message: Any) -> None:
    """Refuse a message whose tensors were left unread, see :mod:`monai_fedlora.federated.tensors`.

    Raises:
        PrivacyError: they were.
    """
    content = message.get("DXO") if isinstance(message, dict) else None
    data = content.get("data") if isinstance(content, dict) else None
    if isinstance(data, bytes):
        raise PrivacyError(
            f"the message is not a DXO with tensors, but with {len(data):,} bytes that were not read: they are no "
            "safetensors file, or the message is longer than its manifest and a report can need"
        )


def open_message(message: Any, kind: DataKind) -> DXO:
    """Unwrap a message of the expected kind.

    Raises:
        PrivacyError: it is not a DXO, was left unread, or is of another kind.
    """
    refuse_unread(message)
    try:
        dxo = from_shareable(message)
    except Exception as error:
        raise PrivacyError(f"the message is not a DXO ({type(error).__name__})") from error
    if dxo.data_kind != kind:
        raise PrivacyError(
            f"the message is of kind {getattr(dxo.data_kind, 'value', dxo.data_kind)!r}, expected {kind.value!r}"
        )
    return dxo


def simulated(fl_ctx: FLContext) -> bool:
    """Whether this process belongs to NVFlare's simulator."""
    return bool(fl_ctx.get_prop(FLContextKey.SIMULATE_MODE, False))
