"""Reading a job's own files from inside NVFlare components."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import FLContextKey, ServerCommandKey, WorkspaceConstants
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable

from monai_fedlora.environment import PRIVATE_DIR
from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.job_files import FORM_NAME, MANIFEST_NAME, PLAN_NAME, trusted_plan
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.tensors import Tensors
from monai_fedlora.files import make_folder, read_json
from monai_fedlora.scope import Manifest
from monai_fedlora.site_report import MetricsForm

if TYPE_CHECKING:
    from monai_fedlora.federated.plan import Plan

REPORT_KEY = "report"
TRAIN_TASK = "train"
EVALUATE_TASK = "validate"
READY_TASK = "ready"
RECORD_ID, AGGREGATOR_ID, PERSISTOR_ID = "record", "aggregator", "persistor"
ACCEPTED_ROUND = "accepted_round"
"""Header of a task: the last round of which the server has accepted the site's answer, -1 for none."""
BLOCKED = "monai_fedlora.blocked"
"""Property of the context of a message that the filter has blocked: the reason."""


def config_file(fl_ctx: FLContext, name: str) -> Path:
    """Path of a file beside the job's configuration; an absolute ``name`` is returned as it is."""
    return Path(fl_ctx.get_prop(FLContextKey.APP_ROOT)) / "config" / name


def local_folder(fl_ctx: FLContext) -> Path | None:
    """Where this end, a site or the server, keeps what its jobs cannot change; None outside a workspace."""
    root = fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT)
    return Path(root) / WorkspaceConstants.SITE_FOLDER_NAME if root else None


def private_path(fl_ctx: FLContext) -> Path:
    """Where this site keeps what never travels."""
    configured = os.environ.get(PRIVATE_DIR)
    return Path(configured) if configured else Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT)) / "private"


def private_folder(fl_ctx: FLContext) -> Path:
    """The same folder, made if it is missing."""
    folder = private_path(fl_ctx)
    make_folder(folder)
    return folder


def load_plan(fl_ctx: FLContext) -> Plan:
    """Read the job's plan, see :func:`monai_fedlora.federated.job_files.trusted_plan`."""
    return trusted_plan(config_file(fl_ctx, PLAN_NAME), local_folder(fl_ctx))


def load_form(fl_ctx: FLContext) -> MetricsForm:
    """Read which metrics a report of the job may have.

    What a site says follows the plan in any case. Without the plan, whose names stand for code, this takes no time.
    """
    path = config_file(fl_ctx, FORM_NAME)
    return MetricsForm.from_json(read_json(path)) if path.is_file() else load_plan(fl_ctx).form


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


def readiness_message(readiness: Readiness | None = None) -> Shareable:
    """Wrap what a site says of its readiness; None asks for it."""
    return DXO(DataKind.STATISTICS, data=readiness.to_json() if readiness else {}).to_shareable()


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
