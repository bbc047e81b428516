"""The NVFlare executor of a site."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.errors import Aborted, WorkerDied
from monai_fedlora.federated.failures import ERRORS_NAME, noted
from monai_fedlora.federated.flare_context import (
    ACCEPTED_ROUND,
    EVALUATE_TASK,
    READY_TASK,
    REPORT_KEY,
    TRAIN_TASK,
    config_file,
    load_manifest,
    local_folder,
    metrics_message,
    open_message,
    private_path,
    readiness_message,
    simulated,
    weights_message,
)
from monai_fedlora.federated.job_files import PLAN_NAME
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import reason_of
from monai_fedlora.federated.workers import POOL, DiedIdle, Pool, Worker, announce, setup_of_process
from monai_fedlora.files import make_folder, read_json
from monai_fedlora.site_report import MetricsForm, Report

_Message = tuple[dict[str, Any], Mapping[str, np.ndarray]]


class SiteExecutor(Executor):
    """Have a site's rounds run, for an NVFlare client, by a process of their own that lives over rounds.

    Data, backbone and the folder for private state come from the site's own environment
    (``MONAI_FEDLORA_DATA``, ``MONAI_FEDLORA_BACKBONE``, ``MONAI_FEDLORA_PRIVATE_DIR``); the job only names the
    plan. What goes wrong is written to ``errors.log`` in the private folder, and what that process logs to ``site.log``
    there: NVFlare's own logs may be streamed to the server, so they only get the kind of error.

    Should the process end while it works (a crash, no memory, ``kill -9``), the site answers ``WORKER_DIED``, and
    another one does the next task; should it end between tasks, that costs nothing. It ends with this one. In the
    simulator a site may have to wait for its turn.

    What the job may ask for stands in the site's ``local/policy.json``, see :mod:`monai_fedlora.federated.site_policy`.
    Of a refusal or a failure the server learns a code of :data:`monai_fedlora.federated.reasons.REASONS` alone, and
    under a budget for privacy no other code than those that are the same whoever the patients are.

    Attributes:
        work: name of the class whose object answers, see :class:`monai_fedlora.federated.site_work.SiteWork`.
    """

    work = "monai_fedlora.federated.site_work.SiteWork"

    def __init__(self) -> None:
        super().__init__()
        self._pool: Pool | None = None
        self._worker: Worker | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep what this process writes to its user; have what a site needs imported while there is no task yet."""
        if event_type == EventType.START_RUN:
            os.umask(0o077)
            with suppress(Exception):  # the first task says what is wrong
                announce(self._address())
        elif event_type == EventType.END_RUN:
            self.close()

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Handle one task; every failure becomes an error reply, so that the site can go on next round."""
        if task_name not in (TRAIN_TASK, EVALUATE_TASK, READY_TASK):
            return make_reply(ReturnCode.TASK_UNKNOWN)
        private = private_path(fl_ctx)
        try:
            make_folder(private)
            answer, update = self._ask(_question(task_name, shareable, fl_ctx), private, fl_ctx, abort_signal)
            if abort_signal.triggered or "aborted" in answer:
                return make_reply(ReturnCode.TASK_ABORTED)
            if "failed" in answer:
                return self._failed(answer["failed"], answer["code"], fl_ctx)
            return self._reply(task_name, answer["report"], update, fl_ctx)
        except Aborted:
            return make_reply(ReturnCode.TASK_ABORTED)
        except Exception as error:
            budget = task_name != READY_TASK and _has_budget(fl_ctx)
            return self._failed(noted(error, private, budget=budget), reason_of(error, budget=budget), fl_ctx)

    def close(self) -> None:
        """End the processes that work for this one."""
        worker, pool, self._worker, self._pool = self._worker, self._pool, None, None
        if worker is not None:
            worker.end()
        if pool is not None:
            pool.close()

    def _ask(self, message: _Message, private: Path, fl_ctx: FLContext, abort_signal: Signal) -> _Message:
        def should_stop() -> bool:
            return bool(abort_signal.triggered)

        setup = self._setup(private, fl_ctx)
        if self._worker is None or not self._worker.alive:
            self._worker = self._new_worker(setup, should_stop)
        try:
            answer = self._worker.ask(*message, should_stop=should_stop)
        except DiedIdle:
            self._worker = self._new_worker(setup, should_stop)
            answer = self._worker.ask(*message, should_stop=should_stop)
        if not self._worker.stays:
            self._worker.end()
            self._worker = None
        return answer

    def _new_worker(self, setup: Mapping[str, Any], should_stop: Callable[[], bool]) -> Worker:
        try:
            return Worker(self._address(), setup, should_stop=should_stop)
        except (OSError, WorkerDied) as error:
            self.logger.warning(
                "what starts this site's processes has ended (%s), and is started anew; sites of a simulation do not "
                "wait for each other any more",
                type(error).__name__,
            )
            os.environ.pop(POOL, None)
            self.close()
            return Worker(self._address(), setup, should_stop=should_stop)

    def _address(self) -> str:
        """Of the simulation's pool, or of one of this process's own."""
        if address := os.environ.get(POOL):
            return address
        self._pool = self._pool or Pool()
        return self._pool.address

    def _setup(self, private: Path, fl_ctx: FLContext) -> dict[str, Any]:
        local = local_folder(fl_ctx)
        return {
            **setup_of_process(),
            "work": self.work,
            "site": fl_ctx.get_identity_name(),
            "config": str(config_file(fl_ctx, ".")),
            "local": str(local) if local else None,
            "private": str(private),
            "simulated": simulated(fl_ctx),
        }

    def _reply(
        self, task_name: str, report: dict[str, Any], update: Mapping[str, np.ndarray], fl_ctx: FLContext
    ) -> Shareable:
        if task_name == READY_TASK:
            readiness = Readiness.parse(report)
            if readiness.codes:
                details = f"details are in {ERRORS_NAME} in the site's private folder"
                self.log_error(fl_ctx, f"not ready: {', '.join(readiness.codes)}; {details}", fire_event=False)
            return readiness_message(readiness)
        return metrics_message(report) if task_name == EVALUATE_TASK else weights_message(update, report)

    def _failed(self, said: str, code: str, fl_ctx: FLContext) -> Shareable:
        self.log_error(fl_ctx, f"task failed with {said}", fire_event=False)
        return make_reply(code)


def _has_budget(fl_ctx: FLContext) -> bool:
    """Whether the job's plan has a budget for privacy; one that cannot be read may have one."""
    try:
        return read_json(config_file(fl_ctx, PLAN_NAME)).get("privacy") is not None
    except Exception:
        return True


def _question(task_name: str, shareable: Shareable, fl_ctx: FLContext) -> _Message:
    """What a task asks of the worker, once its tensors are known to be the declared ones."""
    if task_name == READY_TASK:
        return {"ready": True}, {}
    dxo = open_message(shareable, DataKind.WEIGHTS)
    load_manifest(fl_ctx).down.check(dxo.data)
    question: dict[str, Any] = {"accepted": shareable.get_header(ACCEPTED_ROUND)}
    if task_name == EVALUATE_TASK:
        said = dxo.get_meta_prop(REPORT_KEY) or {}
        images = Report.parse(said, form=MetricsForm(), splits=()).kind  # without splits there are no metrics
        return {**question, "finish": images}, dxo.data
    return {**question, "train": int(shareable.get_header(AppConstants.CURRENT_ROUND))}, dxo.data
