"""Which sites have said that they could train: all are asked before the first round, and again those that could not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.dxo import DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.signal import Signal

from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated.flare_context import READY_TASK, open_message, readiness_message
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import ANSWER_REFUSED, LATE, NO_ANSWER, Reason
from monai_fedlora.federated.server import FlareRecord

_SILENCE = 300
"""Seconds without any answer after which those that have not answered are not ready (ours)."""
_PATIENCE = 30
"""The same once enough sites are ready; the others are taken in when they are (ours)."""
_CHECKED = 0.1


class Roll:
    """Asks sites whether they are ready, each one question at a time.

    Args:
        controller: that sends the questions.
        record: learns every answer.
        silence: seconds without any answer after which :meth:`wait` goes on without the others.
    """

    def __init__(self, controller: Controller, record: FlareRecord, *, silence: int = _SILENCE) -> None:
        self._controller, self._record, self._silence = controller, record, silence
        self._asked: set[str] = set()
        self._answers: dict[str, Reason | None] = {}
        self._heard = 0.0

    @property
    def reasons(self) -> Mapping[str, Reason | None]:
        """Of every site that was asked, why it is not ready; None of one that is."""
        return {**dict.fromkeys(self._asked, Reason.of(NO_ANSWER)), **self._answers}

    def call(self, fl_ctx: FLContext) -> None:
        """Ask all connected sites that have not said that they are ready, and are not being asked."""
        connected = [client.name for client in fl_ctx.get_engine().get_clients()]
        self._heard = time.monotonic()
        for site in connected:
            if site not in self._asked and self._answers.get(site, LATE) is not None:
                self._asked.add(site)
                task = Task(
                    name=READY_TASK,
                    data=readiness_message(),
                    timeout=self._silence,
                    result_received_cb=self._received,
                    task_done_cb=self._done,
                )
                self._controller.broadcast(task=task, fl_ctx=fl_ctx, targets=[site], min_responses=1)

    def wait(self, abort_signal: Signal, *, enough: Callable[[Mapping[str, Reason | None]], bool]) -> None:
        """Wait until all that were asked have answered, or nobody has for too long.

        Args:
            abort_signal: ends it.
            enough: whether with these :attr:`reasons` the run can begin.
        """
        while self._asked and not abort_signal.triggered:
            if time.monotonic() - self._heard >= (_PATIENCE if enough(self.reasons) else self._silence):
                break
            time.sleep(_CHECKED)
        for site in sorted(self._asked):
            self._note(site, Reason.of(LATE))

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        site, answer, client_task.result = client_task.client.name, client_task.result, None
        self._asked.discard(site)
        self._heard = time.monotonic()
        if answer.get_return_code(ReturnCode.OK) != ReturnCode.OK:
            self._note(site, self._record.known_of(site))
            return
        try:
            said = Readiness.parse(open_message(answer, DataKind.STATISTICS).data)
        except FedLoraError as error:
            self._note(site, Reason(ANSWER_REFUSED, str(error)))
            return
        self._note(site, Reason.of_all(said.codes) if said.codes else None, said)

    def _done(self, task: Task, fl_ctx: FLContext) -> None:
        """Let sites be asked again whose answer has not come."""
        for site in self._asked.intersection(map(str, task.targets or ())):
            self._asked.discard(site)
            self._note(site, Reason.of(LATE))

    def _note(self, site: str, reason: Reason | None, said: Readiness | None = None) -> None:
        self._answers[site] = reason
        self._record.record.readiness(site, reason, said)
