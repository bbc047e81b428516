"""The server's workflow: rounds that count with enough answers in time, and are tried again otherwise."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.dxo import DataKind
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.fuel.utils.memory_utils import cleanup_memory

from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated.flare_context import (
    AGGREGATOR_ID,
    PERSISTOR_ID,
    RECORD_ID,
    TRAIN_TASK,
    load_plan,
    open_message,
    weights_message,
)
from monai_fedlora.federated.participation import TRIES, NotReady, TooFewAnswers
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.reasons import (
    CONNECTION_LOST,
    LATE,
    NOT_CONNECTED,
    NOT_READY,
    SERVER_FAILED,
    TOO_FEW,
    Reason,
)
from monai_fedlora.federated.roll import Roll
from monai_fedlora.federated.server import FlareRecord, SharedAggregator, SharedPersistor
from monai_fedlora.federated.tensors import Tensors

_PAUSE = 5.0
"""Seconds before a round is tried again, and twice as many the next time (ours)."""
_CHECKED = 0.2
_COLLECTED = 10
"""Rounds between two collections of memory, which take 0.2 s each, in which nobody trains (ours)."""


class Rounds(Controller):
    """Run a plan's rounds on the sites that are there, as :class:`Participation` says.

    All connected sites that a round asks are waited for, until they have answered, their connection is lost or the time
    is up. An answer that comes later is refused and noted.

    Args:
        pause: seconds before a round is tried again, and twice as many the next time.
        asks_readiness: whether nobody trains before having said that it could, see :class:`Roll`; jobs of earlier
            versions do not ask.
    """

    _plan: Plan
    _record: FlareRecord
    _aggregator: SharedAggregator
    _persistor: SharedPersistor
    _model: ModelLearnable
    _roll: Roll | None = None

    def __init__(self, pause: float = _PAUSE, asks_readiness: bool = False) -> None:
        super().__init__(task_check_period=0.05)
        self.pause = pause
        self.asks_readiness = asks_readiness
        self._number = -1

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Find the other components, and what the run starts from."""
        engine = fl_ctx.get_engine()
        self._plan = load_plan(fl_ctx)
        self._record = engine.get_component(RECORD_ID)
        self._aggregator = engine.get_component(AGGREGATOR_ID)
        self._persistor = engine.get_component(PERSISTOR_ID)
        self._number = self._plan.start_round - 1
        self._roll = Roll(self, self._record) if self.asks_readiness else None
        self._say_model(self._persistor.load(fl_ctx), fl_ctx)

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Nothing is left to do."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Run all rounds; a round that counts in no attempt ends the job."""
        plan = self._plan
        try:
            self._begin(abort_signal, fl_ctx)
            for number in range(plan.start_round, plan.start_round + plan.rounds):
                self._number = number
                if not self._run_round(abort_signal, fl_ctx):
                    return
                if (number + 1) % _COLLECTED == 0:
                    cleanup_memory()
        except (NotReady, TooFewAnswers) as error:
            self._record.record.interrupt(TOO_FEW if isinstance(error, TooFewAnswers) else NOT_READY)
            self.system_panic(str(error), fl_ctx)
        except Exception as error:
            said = str(error) if isinstance(error, FedLoraError) else type(error).__name__
            self._record.record.interrupt(SERVER_FAILED)
            self.system_panic(f"round {self._number} failed on the server: {said}", fl_ctx)

    def _begin(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Ask all sites whether they are ready.

        Raises:
            NotReady: too few are.
        """
        if self._roll is None:
            return
        self._roll.call(fl_ctx)
        enough = self._plan.participation.can_begin
        self._roll.wait(abort_signal, enough=enough)
        if not abort_signal.triggered and not enough(self._roll.reasons):
            raise NotReady(self._roll.reasons)

    def _run_round(self, abort_signal: Signal, fl_ctx: FLContext) -> bool:
        """Collect, combine and store a round; False where the job was told to end.

        Raises:
            TooFewAnswers: no attempt counted.
        """
        for attempt in range(TRIES):
            if attempt and not self._rest(self.pause * 2 ** (attempt - 1), abort_signal):
                return False
            self._say_model(self._model, fl_ctx)
            if self._roll is not None:
                self._roll.call(fl_ctx)
            self.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
            asked = self._plan.counting.asked(
                self._plan.sites, seed=self._plan.seed, number=self._number, attempt=attempt
            )
            self._ask(asked, abort_signal, fl_ctx)
            if abort_signal.triggered:
                return False
            lacks = self._aggregator.close(asked, fl_ctx)
            if not lacks:
                break
            self._record.record.repeat(self._number, lacks)
        else:
            refused = self._record.record.value["refused"]
            raise TooFewAnswers(self._number, lacks, [entry for entry in refused if entry["round"] == self._number])
        combined = open_message(self._aggregator.aggregate(fl_ctx), DataKind.WEIGHTS).data
        self._say_model(make_model_learnable(Tensors(combined), {}), fl_ctx)
        self._persistor.save(self._model, fl_ctx)
        self.fire_event(AppEventType.ROUND_DONE, fl_ctx)
        return True

    def _ask(self, asked: Sequence[str], abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Send the model to the sites that are there, and wait for their answers."""
        connected = {client.name for client in fl_ctx.get_engine().get_clients()}
        reasons = self._roll.reasons if self._roll else dict.fromkeys(connected)
        targets = [site for site in asked if site in connected and reasons.get(site, NOT_CONNECTED) is None]
        for site in asked:
            if site not in targets:
                self._record.failed(site, (site in connected and reasons.get(site)) or Reason.of(NOT_CONNECTED))
        if not targets:
            return
        message = weights_message(self._model[ModelLearnableKey.WEIGHTS])
        message.set_header(AppConstants.CURRENT_ROUND, self._number)
        first = self._number == self._plan.start_round
        task = Task(
            name=TRAIN_TASK,
            data=message,
            timeout=self._plan.participation.seconds(first=first),
            result_received_cb=self._received,
        )
        self.broadcast_and_wait(
            task=task, fl_ctx=fl_ctx, targets=targets, min_responses=len(targets), abort_signal=abort_signal
        )
        for site in targets:
            lost = task.completion_status == TaskCompletionStatus.CLIENT_DEAD
            self._record.failed(site, Reason.of(CONNECTION_LOST if lost else LATE))

    def _received(self, client_task: ClientTask, fl_ctx: FLContext) -> None:
        """Hand an answer on; what the record knows of a failure it has from the message itself."""
        answer, client_task.result = client_task.result, None
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, self._number, private=True, sticky=True)
        if answer.get_return_code(ReturnCode.OK) == ReturnCode.OK:
            self._aggregator.accept(answer, fl_ctx)

    def process_result_of_unknown_task(
        self, client: Client, task_name: str, client_task_id: str, result: Shareable, fl_ctx: FLContext
    ) -> None:
        """Refuse an answer whose round is over: the site takes back what it has trained for it."""
        self._record.refuse(client.name, Reason(LATE, "the answer came too late"), fl_ctx)

    def _say_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Let the other components, and the final evaluation, know the shared tensors and the round."""
        self._model = model
        fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, model, private=True, sticky=True)
        fl_ctx.set_prop(AppConstants.CURRENT_ROUND, self._number, private=True, sticky=True)
        fl_ctx.sync_sticky()

    def _rest(self, seconds: float, abort_signal: Signal) -> bool:
        """Wait; False where the job was told to end meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not abort_signal.triggered:
            time.sleep(_CHECKED)
        return not abort_signal.triggered
