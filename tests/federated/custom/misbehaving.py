"""Code of a test job: three scripted sites, one honest, two that break another rule in every round."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReservedKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.private.fed.client import communicator

from monai_fedlora.federated.tensors import Tensors

HONEST = "site-1"
STEP = 1 / 1024
CASES = 10
Payload = dict[str, np.ndarray]


def message(payload: Payload, report: dict[str, Any]) -> Shareable:
    return DXO(DataKind.WEIGHTS, data=payload, meta={"report": report}).to_shareable()


def first(payload: Payload, change: Callable[[np.ndarray], np.ndarray]) -> Payload:
    key = sorted(payload)[0]
    return {**payload, key: change(payload[key])}


def nan(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message(first(payload, lambda value: np.full_like(value, np.nan)), report)


def private_key(payload: Payload, report: dict[str, Any]) -> Shareable:
    name, value = sorted(payload.items())[0]
    return message({**payload, name.replace(".shared.", ".private."): value}, report)


def shape(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message(first(payload, lambda value: value[:1]), report)


def private_in_disguise(payload: Payload, report: dict[str, Any]) -> Shareable:
    """A private matrix of the same number of elements under a shared name."""
    return message(first(payload, lambda value: np.ascontiguousarray(value.T)), report)


def missing(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message({key: payload[key] for key in sorted(payload)[1:]}, report)


def text(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message(payload, {**report, "note": "patient007"})


def wide_matrix(payload: Payload, report: dict[str, Any]) -> Shareable:
    """A picture of 32 x 32 counts where the plan has two classes."""
    return message(payload, {**report, "validation": {"personal": {"confusion_matrix": [[7] * 32] * 32}}})


def invented_metric(payload: Payload, report: dict[str, Any]) -> Shareable:
    metrics = {"confusion_matrix": [[3, 1], [2, 4]], "accuracy": 0.9}
    return message(payload, {**report, "validation": {"personal": metrics}})


def precise_number(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message(payload, {**report, "train_loss": 0.123456789})


def overlong(payload: Payload, report: dict[str, Any]) -> Shareable:
    """Half a megabyte beside the tensors, in the file that they travel in."""
    return message(Tensors({**payload, "more": np.zeros(2**19, np.uint8)}), report)


def unknown_class(payload: Payload, report: dict[str, Any]) -> Shareable:
    """What NVFlare's serialiser writes of a class that the server does not know."""
    answer = message(payload, report)
    answer["more"] = {"__fobs_type__": "nobody.Knows", "__fobs_data__": {}}
    return answer


def array_of_objects(payload: Payload, report: dict[str, Any]) -> Shareable:
    """What NVFlare's serialiser does not write of an array, and does not read."""
    answer = message(payload, report)
    file = io.BytesIO()
    np.save(file, np.array([report, None], dtype=object), allow_pickle=True)
    answer["more"] = {"__fobs_type__": "numpy.ndarray", "__fobs_data__": file.getvalue()}
    return answer


def far_too_long(payload: Payload, report: dict[str, Any]) -> Shareable:
    """Five megabytes, which no gate of the server ever sees."""
    answer = message(payload, report)
    answer["more"] = bytes(5 * 2**20)
    return answer


def ending_code(payload: Payload, report: dict[str, Any]) -> Shareable:
    """A return code for which NVFlare ends the job."""
    return make_reply(ReturnCode.UNSAFE_JOB)


def another_kind(payload: Payload, report: dict[str, Any]) -> Shareable:
    return DXO(DataKind.WEIGHT_DIFF, data=payload, meta={"report": report}).to_shareable()


def failure(payload: Payload, report: dict[str, Any]) -> Shareable:
    return make_reply(ReturnCode.EXECUTION_EXCEPTION)


def inflated_cases(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message(payload, {**report, "cases": CASES + 1})


def replay(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message(payload, {**report, "round": report["round"] - 1})


def huge(payload: Payload, report: dict[str, Any]) -> Shareable:
    return message({key: value + value.dtype.type(100) for key, value in payload.items()}, report)


def in_anothers_name(payload: Payload, report: dict[str, Any]) -> Shareable:
    """A good update with the honest site's name in all that the message says about its sender."""
    make_context = communicator.gen_new_peer_ctx

    def pretend(fl_ctx: FLContext) -> FLContext:
        communicator.gen_new_peer_ctx = make_context
        context = FLContext()
        context.set_public_props({**make_context(fl_ctx).get_all_public_props(), ReservedKey.IDENTITY_NAME: HONEST})
        return context

    communicator.gen_new_peer_ctx = pretend
    return message(payload, report)


BLOCKED_BY_FILTERS = {
    nan: "contains NaN or infinity",
    private_key: r"undeclared keys: '.*\.private\.",
    shape: "declared as float32",
    private_in_disguise: "declared as float32",
    missing: "missing keys",
    text: "undeclared report entry 'note'",
    wide_matrix: "must be 2 lists of 2 counts",
    invented_metric: "does not follow from a confusion matrix",
    precise_number: "more than 4 significant digits",
    overlong: "5[0-9]{2},[0-9]{3} bytes that were not read",
    another_kind: "only messages of kind",
}
REFUSED_BY_AGGREGATOR = {
    inflated_cases: rf"claims {CASES + 1} training cases.*declared {CASES}",
    replay: "the update is for round",
    huge: "changes parameters by 100",
}
NEVER_READ = {
    unknown_class: "the answer cannot be decoded: ValueError",
    array_of_objects: "the answer cannot be decoded: ",
    far_too_long: "the answer is longer than any answer to this job",
}
SCRIPT = (
    *BLOCKED_BY_FILTERS,
    *REFUSED_BY_AGGREGATOR,
    *NEVER_READ,
    ending_code,
    failure,
    message,
    in_anothers_name,
)


class ScriptedExecutor(Executor):
    """Add a step to every shared tensor instead of training; all but one site follow the script of misdeeds."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        honest = fl_ctx.get_identity_name() == HONEST
        if task_name == "ready":
            return DXO(DataKind.STATISTICS, data={"codes": []}).to_shareable()
        if task_name == "validate":
            report: dict[str, Any] = {"round": len(SCRIPT), "cases": CASES}
            return DXO(DataKind.METRICS, data=report if honest else {**report, "path": "/patient007"}).to_shareable()
        number = shareable.get_header(AppConstants.CURRENT_ROUND)
        payload = {key: value + value.dtype.type(STEP) for key, value in from_shareable(shareable).data.items()}
        answer = message if honest else SCRIPT[number]
        return answer(payload, {"round": number, "cases": CASES})
