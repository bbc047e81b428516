"""The server's NVFlare components: record, aggregator, persistor and the final evaluation."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nvflare.apis.client import Client
from nvflare.apis.dxo import DataKind
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.utils.fl_context_utils import add_job_audit_event
from nvflare.app_common.abstract.aggregator import Aggregator
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.abstract.response_processor import ResponseProcessor
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType

from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated.aggregation import SharedAverage
from monai_fedlora.federated.flare_context import (
    ACCEPTED_ROUND,
    BLOCKED,
    RECORD_ID,
    REPORT_KEY,
    config_file,
    load_manifest,
    load_plan,
    local_folder,
    open_message,
    run_folder,
    sender,
    simulated,
    weights_message,
)
from monai_fedlora.federated.initial import job_images
from monai_fedlora.federated.job_files import INITIAL_NAME, trust_as_policy_says
from monai_fedlora.federated.lean import import_peft
from monai_fedlora.federated.limits import stored_lengths
from monai_fedlora.federated.reasons import (
    ANSWER_REFUSED,
    BLOCKED_AT_SITE,
    BLOCKED_HERE,
    NO_ANSWER,
    REASONS,
    SITE_FAILED,
    STOPPED,
    Reason,
)
from monai_fedlora.federated.run_record import RunRecord
from monai_fedlora.federated.server_state import NEVER, Accepted, stored_accepted, stored_moments
from monai_fedlora.federated.start import SharedFiles, Start
from monai_fedlora.federated.tensors import Tensors, limit_messages, most_bytes
from monai_fedlora.federated.traffic import TrafficMeter
from monai_fedlora.federated.unreadable import AnswerGate
from monai_fedlora.federated.update import Update
from monai_fedlora.site_report import IMAGES, Report, images_said

_SCORE = "monai_fedlora.score"
_LENGTHS = "monai_fedlora.lengths"
_MOMENTS = "monai_fedlora.moments"
_SENDER = "monai_fedlora.sender"


class FlareRecord(FLComponent):
    """Keeps :class:`RunRecord` and the traffic counts of a run; the other components write through it."""

    record: RunRecord
    accepted: Accepted
    _traffic: TrafficMeter
    _gate: AnswerGate

    def __init__(self) -> None:
        super().__init__()
        self._failures: dict[str, Reason] = {}
        self._noted: set[str] = set()

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Follow the run's life cycle."""
        if event_type == EventType.START_RUN:
            os.umask(0o077)  # of the job's own process: what it writes is its user's alone
            self._plan = load_plan(fl_ctx)
            manifest, cell = load_manifest(fl_ctx), fl_ctx.get_engine().get_cell()
            images = job_images(config_file(fl_ctx, INITIAL_NAME), self._plan)
            self.record = RunRecord(folder=run_folder(fl_ctx), plan=self._plan, manifest=manifest, images=images)
            self._traffic = TrafficMeter(cell)
            most = most_bytes(manifest, form=self._plan.form)
            limit_messages(cell, most)
            self._guard(fl_ctx, most)
        elif event_type == AppEventType.ROUND_STARTED:
            self._traffic.take(self._plan.sites)
            self.forget()
            self.record.begin_round(fl_ctx.get_prop(AppConstants.CURRENT_ROUND))
        elif event_type == AppEventType.ROUND_DONE:
            score = fl_ctx.get_prop(_SCORE)
            self.record.end_round(score=score, traffic=self._traffic.take(self._plan.sites))
        elif event_type == EventType.ABORT_TASK:
            self.record.flush()
        elif event_type == EventType.END_RUN:
            self.record.interrupt(STOPPED)
            self.record.flush()
        elif event_type == EventType.BEFORE_TASK_DATA_FILTER:
            self._name_accepted(fl_ctx)
            self._note_asked(fl_ctx)
        elif event_type == EventType.BEFORE_TASK_RESULT_FILTER:
            self._note_sender(fl_ctx)
        elif event_type == EventType.AFTER_TASK_RESULT_FILTER and fl_ctx.get_prop(BLOCKED):
            self._failures[fl_ctx.get_prop(_SENDER)] = Reason.of(BLOCKED_HERE).about(fl_ctx.get_prop(BLOCKED))

    def _name_accepted(self, fl_ctx: FLContext) -> None:
        """Tell a site which of its answers was the last that counts; of a task the data are a copy for each site."""
        number = self.accepted.get(fl_ctx.get_peer_context().get_identity_name(), NEVER)
        if number is not None:
            fl_ctx.get_prop(FLContextKey.TASK_DATA).set_header(ACCEPTED_ROUND, number)

    def _guard(self, fl_ctx: FLContext, most: int) -> None:
        """Have answers of which NVFlare would make an end of the job cost their site the round instead."""
        engine = fl_ctx.get_engine()
        server = engine.server
        self._gate = AnswerGate(
            handle=server.command_agent.execute_command,
            site_of=lambda token: getattr(server.client_manager.clients.get(token), "name", None),
            job_id=fl_ctx.get_job_id(),
            most=most,
        )
        self._gate.stand_before(server.command_agent.cell)

    def _note_asked(self, fl_ctx: FLContext) -> None:
        site = fl_ctx.get_peer_context().get_identity_name()
        self._gate.asked(site, fl_ctx.get_prop(FLContextKey.TASK_NAME), fl_ctx.get_prop(FLContextKey.TASK_ID))

    def forget(self) -> None:
        """Begin to note failures anew."""
        self._failures.clear()
        self._noted.clear()

    def failed(self, site: str, reason: Reason) -> None:
        """Learn why a site's answer may be missing, unless a better reason is known."""
        self._failures.setdefault(site, reason)

    def _note_sender(self, fl_ctx: FLContext) -> None:
        answer = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        name, code = sender(answer), answer.get_return_code()
        fl_ctx.set_prop(_SENDER, name, private=True, sticky=False)
        if found := self._gate.found(fl_ctx.get_prop(FLContextKey.TASK_ID)):
            self._failures[name] = found
        elif code == ReturnCode.TASK_RESULT_FILTER_ERROR:
            self._failures[name] = Reason.of(BLOCKED_AT_SITE)
        elif code in REASONS:
            self._failures[name] = Reason.of(code)
        elif code != ReturnCode.OK:
            self._failures[name] = Reason(SITE_FAILED, f"the site answered {code!r:.60}; {REASONS[SITE_FAILED]}")

    def known_of(self, site: str) -> Reason:
        """What is known about a site's answer that did not get through."""
        return self._failures.get(site, Reason.of(NO_ANSWER))

    def refuse_missing(self, site: str, fl_ctx: FLContext) -> None:
        """Note that a site's answer to the current task did not get through, with what is known about it, once."""
        if site not in self._noted:
            self.refuse(site, self.known_of(site), fl_ctx)

    def refuse(self, site: str, reason: Reason, fl_ctx: FLContext) -> None:
        """Leave an audit line, a log line and an entry in the results for an answer that does not count."""
        self._noted.add(site)
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        said = f"round {number}: {site} refused: {reason}"
        add_job_audit_event(fl_ctx, msg=said)
        self.log_error(fl_ctx, said, fire_event=False)
        self.record.refusal(number, site, reason)


def _record(fl_ctx: FLContext) -> FlareRecord:
    return fl_ctx.get_engine().get_component(RECORD_ID)


def _reason(error: Exception) -> Reason:
    known = isinstance(error, FedLoraError)
    return Reason(ANSWER_REFUSED, str(error) if known else f"the answer cannot be read ({type(error).__name__})")


class SharedAggregator(Aggregator):
    """Average the manifest's tensors; refuse everything else (see :class:`SharedAverage`).

    A refused or missing answer costs that site's part of the round, never the round.
    """

    def __init__(self) -> None:
        super().__init__()
        self._average: SharedAverage | None = None
        self._closed = False

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Open each round on what is about to be sent."""
        if event_type == EventType.START_RUN:
            plan, stored = load_plan(fl_ctx), config_file(fl_ctx, INITIAL_NAME)
            manifest, first, found = load_manifest(fl_ctx), plan.start_round, stored.is_file()
            self._form, self._key = plan.form, plan.task_of.key
            accepted = stored_accepted(stored, plan, first=first) if found else {}
            self._participation, _record(fl_ctx).accepted = plan.counting, accepted
            self._average = SharedAverage.of(
                plan,
                manifest,
                earlier=stored_lengths(stored, plan, first=first) if found else (),
                moments=stored_moments(stored, manifest, plan, first=first) if found else {},
                accepted=accepted,
            )
        elif event_type == AppEventType.ROUND_STARTED:
            weights = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS]
            self._closed = False
            self._opened.begin(fl_ctx.get_prop(AppConstants.CURRENT_ROUND), weights)

    @property
    def _opened(self) -> SharedAverage:
        if self._average is None:
            raise FedLoraError("the aggregator was used before the run started")
        return self._average

    def accept(self, shareable: Shareable, fl_ctx: FLContext) -> bool:
        """Keep one site's update, or refuse it and say so in the record."""
        site = sender(shareable)
        try:
            dxo = open_message(shareable, DataKind.WEIGHTS)
            update = Update.read(dxo.data, dxo.get_meta_prop(REPORT_KEY), form=self._form)
            self._opened.accept(site, update)
        except Exception as error:
            _record(fl_ctx).refuse(site, _reason(error), fl_ctx)
            return False
        _record(fl_ctx).record.contribution(site, update.report, accepted=self._opened.last_accepted(site))
        return True

    def close(self, asked: Sequence[str], fl_ctx: FLContext) -> str:
        """Note whose answer is missing of those that were asked, and return why the round does not count, if so."""
        self._closed = True
        for site in asked:
            if site not in self._opened.updates:
                _record(fl_ctx).refuse_missing(site, fl_ctx)
        return self._participation.lacks(self._opened.updates)

    def aggregate(self, fl_ctx: FLContext) -> Shareable:
        """Return the new shared tensors; without any accepted update they stay as they were."""
        average = self._opened
        if not self._closed:  # the workflow of a job that an earlier version wrote does not do so
            self.close(average.sites, fl_ctx)
        _record(fl_ctx).record.agreement(average.agreement())
        _record(fl_ctx).record.limits(average.limits())
        fl_ctx.set_prop(_LENGTHS, average.lengths, private=True, sticky=True)
        fl_ctx.set_prop(_SCORE, average.score(self._key), private=True, sticky=True)
        combined = average.aggregate()
        fl_ctx.set_prop(_MOMENTS, average.moments, private=True, sticky=True)
        _record(fl_ctx).accepted = average.accepted
        return weights_message(combined)


class SharedPersistor(ModelPersistor):
    """Keep the shared tensors as safetensors, see :class:`SharedFiles`, and begin as :class:`Start` says."""

    _files: SharedFiles

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        """Return the tensors the run starts from."""
        if simulated(fl_ctx):
            import_peft()
        trust_as_policy_says(local_folder(fl_ctx))
        start = Start.of_job(config_file(fl_ctx, "."))
        self._files = SharedFiles(folder=run_folder(fl_ctx), start=start)
        return make_model_learnable(Tensors(start.shared), {})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        """Write the new tensors, and the ones this round started from if they scored best so far."""
        self._files.save(
            model[ModelLearnableKey.WEIGHTS],
            round_number=fl_ctx.get_prop(AppConstants.CURRENT_ROUND),
            score=fl_ctx.get_prop(_SCORE),
            lengths=fl_ctx.get_prop(_LENGTHS),
            moments=fl_ctx.get_prop(_MOMENTS),
            accepted=_record(fl_ctx).accepted,
            images=_record(fl_ctx).record.images,
        )


class FinalEvaluation(ResponseProcessor):
    """Send the last shared tensors to every site once more and collect their evaluation of it.

    This is also how each site gets the model it keeps.
    """

    def create_task_data(self, task_name: str, fl_ctx: FLContext) -> Shareable:
        """Return the last shared tensors, and the kind of all images that have moved them."""
        _record(fl_ctx).forget()
        _record(fl_ctx).record.begin_final()
        images = {IMAGES: images_said(_record(fl_ctx).record.images)}
        return weights_message(fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)[ModelLearnableKey.WEIGHTS], images)

    def process_client_response(self, client: Client, task_name: str, response: Shareable, fl_ctx: FLContext) -> bool:
        """Note one site's metrics; a bad answer is noted as a refusal and never ends the run."""
        if response.get_return_code(ReturnCode.OK) != ReturnCode.OK:
            _record(fl_ctx).refuse_missing(client.name, fl_ctx)
            return True
        try:
            report = open_message(response, DataKind.METRICS).data
            report = Report.parse(report, form=load_plan(fl_ctx).form)
        except Exception as error:
            _record(fl_ctx).refuse(client.name, _reason(error), fl_ctx)
            return True
        record = _record(fl_ctx)
        record.record.final(client.name, report, accepted=record.accepted.get(client.name, NEVER))
        return True

    def final_process(self, fl_ctx: FLContext) -> bool:
        """Note whose evaluation is missing, and mark the record as complete."""
        record = _record(fl_ctx)
        for site in load_plan(fl_ctx).sites:
            if site not in record.record.value["final"]:
                record.refuse_missing(site, fl_ctx)
        record.record.finish()
        return True
