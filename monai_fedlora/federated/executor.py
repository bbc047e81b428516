"""The NVFlare executor of a site."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.environment import GPU_PROCESSES, PRIVATE_DIR, THREADS
from monai_fedlora.errors import Aborted, PolicyError, PrivacyError
from monai_fedlora.federated.failures import note
from monai_fedlora.federated.flare_context import (
    EVALUATE_TASK,
    REFUSED,
    REPORT_KEY,
    TRAIN_TASK,
    load_manifest,
    load_plan,
    local_folder,
    metrics_message,
    open_message,
    simulated,
    weights_message,
)
from monai_fedlora.federated.lean import import_libraries
from monai_fedlora.federated.logs import kept_in
from monai_fedlora.federated.site_policy import site_policy
from monai_fedlora.files import make_folder
from monai_fedlora.site_report import MetricsForm, Report

if TYPE_CHECKING:
    from monai_fedlora.federated.federated_site import Site


class SiteExecutor(Executor):
    """Run a site's rounds inside an NVFlare client.

    Data, backbone and the folder for private state come from the site's own environment
    (``MONAI_FEDLORA_DATA``, ``MONAI_FEDLORA_BACKBONE``, ``MONAI_FEDLORA_PRIVATE_DIR``); the job only names the
    plan. What goes wrong is written to ``errors.log`` in the private folder, and what libraries log to ``site.log``
    there: NVFlare's own logs may be streamed to the server, so they only get the kind of error.

    What the job may ask for stands in the site's ``local/policy.json``, see :mod:`monai_fedlora.federated.site_policy`.
    A refusal reaches the server as the return code ``TASK_UNSUPPORTED`` alone; ``errors.log`` names the limit.

    On the CPU the number of torch threads is ``MONAI_FEDLORA_THREADS``; unset, it is one in the simulator,
    whose results then do not depend on how many sites run at once, and torch's default elsewhere. On a GPU the features
    of all sites of the simulator share its memory, unless ``MONAI_FEDLORA_GPU_PROCESSES`` says that fewer run at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._site: Site | None = None
        self._abort = Signal()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep what this process writes to its user.

        In the simulator, also import what a site needs, and no more, while the process still waits for a task.
        """
        if event_type == EventType.START_RUN:
            os.umask(0o077)
        if event_type == EventType.START_RUN and simulated(fl_ctx):
            import_libraries()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Handle one task; every failure becomes an error reply, so that the site can go on next round."""
        self._abort = abort_signal
        try:
            if task_name not in (TRAIN_TASK, EVALUATE_TASK):
                return make_reply(ReturnCode.TASK_UNKNOWN)
            with kept_in(_private_folder(fl_ctx) / "site.log"):
                reply = self._answer(task_name, shareable, fl_ctx)
        except Aborted:
            self._site = None
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            self._site = None
            self._note(error, fl_ctx)
            refused = isinstance(error, PolicyError)
            return make_reply(REFUSED if refused else ReturnCode.EXECUTION_EXCEPTION)
        if abort_signal.triggered:
            self._site = None
            return make_reply(ReturnCode.TASK_ABORTED)
        return reply

    def _answer(self, task_name: str, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        self._site = self._site or self._build_site(fl_ctx)
        dxo = open_message(shareable, DataKind.WEIGHTS)
        shared = dxo.data
        if task_name == EVALUATE_TASK:
            said = dxo.get_meta_prop(REPORT_KEY) or {}
            images = Report.parse(said, form=MetricsForm(), splits=()).kind  # without splits there are no metrics
            return metrics_message(self._site.finish(shared, images=images).to_json())
        update = self._site.train_round(int(shareable.get_header(AppConstants.CURRENT_ROUND)), shared)
        return weights_message(update.tensors, update.report.to_json())

    def _build_site(self, fl_ctx: FLContext) -> Site:
        import torch

        threads = os.environ.get(THREADS) or ("1" if simulated(fl_ctx) else None)
        if threads:
            torch.set_num_threads(int(threads))
        from monai_fedlora.federated.federated_site import Site

        plan = load_plan(fl_ctx)
        if simulated(fl_ctx):
            os.environ.setdefault(GPU_PROCESSES, str(len(plan.sites)))
        site = Site(
            name=fl_ctx.get_identity_name(),
            plan=plan,
            private_root=_private_folder(fl_ctx),
            should_stop=lambda: self._abort.triggered,
            policy=partial(site_policy, local_folder(fl_ctx)),
        )
        if site.scope.manifest != load_manifest(fl_ctx):
            raise PrivacyError(
                "the job's manifest is not what this site's own bundle and method would share; the job was made "
                "with other settings or another version"
            )
        return site

    def _note(self, error: Exception, fl_ctx: FLContext) -> None:
        details = "details are in errors.log in the site's private folder"
        try:
            note(error, _private_folder(fl_ctx))
        except OSError as problem:
            details = f"errors.log in the site's private folder cannot be written ({type(problem).__name__})"
        self.log_error(fl_ctx, f"task failed with {type(error).__name__}; {details}", fire_event=False)


def _private_folder(fl_ctx: FLContext) -> Path:
    configured = os.environ.get(PRIVATE_DIR)
    folder = Path(configured) if configured else Path(fl_ctx.get_prop(FLContextKey.WORKSPACE_ROOT)) / "private"
    make_folder(folder)
    return folder
