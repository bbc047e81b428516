"""A message that tells waiting sites of a new task, so that they need not ask for it again and again.

NVFlare's sites fetch their tasks: one that has done its part of a round asks for the next at a fixed interval until the
slowest site is done too. Each time costs 0.6 kB, which after some seconds is more than the rest of a small update. With
this pair of components the server sends a wake-up message when a task is there; a site asks then, and seldom otherwise.
"""

from __future__ import annotations

import threading
import time

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.server_engine_spec import ServerEngineSpec
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.app_event_type import AppEventType

from monai_fedlora.federated.flare_context import sender

TOPIC = "monai_fedlora.wake_up"

_TASK_FOLLOWS = 0.05
"""Seconds, ours: NVFlare tells of a workflow or a round some milliseconds before its task can be fetched."""

_ASKED_WHEN_WOKEN = 2
_CHECKED = 0.1  # seconds; how soon a site that waits notices the end of a run
_PATIENCE = 5.0  # seconds until a site asks without having been woken; ours
_MOST_PATIENCE = 60.0


class WakeUpSender(FLComponent):
    """The server's part: wake every site that has answered before when a workflow or a round begins.

    Nothing is awaited from the sites, and nothing depends on the message's arrival.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sites: list[str] = []

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Send the message once the task that is about to be made can be fetched."""
        if event_type == EventType.BEFORE_TASK_RESULT_FILTER:
            site = sender(fl_ctx.get_prop(FLContextKey.TASK_RESULT))
            if site not in self._sites:
                self._sites.append(site)
        elif event_type in (EventType.START_WORKFLOW, AppEventType.ROUND_STARTED) and self._sites:
            timer = threading.Timer(_TASK_FOLLOWS, _wake, [fl_ctx.get_engine(), list(self._sites)])
            timer.daemon = True
            timer.start()


def _wake(engine: ServerEngineSpec, sites: list[str]) -> None:
    """Send to those that are still there; NVFlare sends to nobody where one name is unknown, to all without names."""
    connected = {client.name for client in engine.get_clients()}
    targets = [site for site in sites if site in connected]
    if not targets:
        return
    with engine.new_context() as fl_ctx:
        engine.send_aux_request(
            targets=targets, topic=TOPIC, request=Shareable(), timeout=0.0, fl_ctx=fl_ctx, optional=True
        )


class WakeUpListener(FLComponent):
    """A site's part: once it has done a task, let NVFlare ask for the next when the server wakes it.

    Until then NVFlare asks at its own interval, and so does a site that NVFlare's simulator starts anew for every
    task. A message that is lost costs time, never a task: a site asks by itself after five seconds, then after twice
    as many each time, and at least once a minute.
    """

    def __init__(self) -> None:
        super().__init__()
        self._event = threading.Event()
        self._worked = False
        self._questions = 0
        self._patience = _PATIENCE

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Listen from the start of a run; wait before a task is asked for."""
        if event_type == EventType.START_RUN:
            fl_ctx.get_engine().register_aux_message_handler(TOPIC, self._woken)
        elif event_type == EventType.BEFORE_PULL_TASK and self._worked:
            self._questions = (self._questions or self._wait(fl_ctx)) - 1
        elif event_type == EventType.BEFORE_TASK_EXECUTION:
            self._event.clear()
            self._worked, self._questions, self._patience = True, 0, _PATIENCE

    def _woken(self, topic: str, request: Shareable, fl_ctx: FLContext) -> Shareable:
        self._event.set()
        return make_reply(ReturnCode.OK)

    def _wait(self, fl_ctx: FLContext) -> int:
        """Return how often to ask, after a message, the end of the run, or the longest wait without either."""
        end, abort = time.monotonic() + self._patience, fl_ctx.get_run_abort_signal()
        while time.monotonic() < end and not abort.triggered:
            if self._event.wait(_CHECKED):
                self._event.clear()
                self._patience = _PATIENCE
                return _ASKED_WHEN_WOKEN
        self._patience = min(2 * self._patience, _MOST_PATIENCE)
        return 1
