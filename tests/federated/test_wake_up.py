"""The wake-up message: sites that have done a task wait for it instead of asking, and nothing depends on it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.client import Client
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey, ReturnCode, ServerCommandKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_event_type import AppEventType

from monai_fedlora.federated import wake_up
from monai_fedlora.federated.wake_up import TOPIC, WakeUpListener, WakeUpSender


class Engine:
    """An engine that keeps what is sent, and hands over what is registered."""

    def __init__(self, connected: Sequence[str] = ("north", "south")) -> None:
        self.get_clients = lambda: [Client(name, "token") for name in connected]
        self.sent: list[dict[str, Any]] = []
        self.handlers: dict[str, Callable[..., Shareable]] = {}
        self.register_aux_message_handler = self.handlers.__setitem__

    def new_context(self) -> nullcontext[FLContext]:
        return nullcontext(FLContext())

    def send_aux_request(self, **message: Any) -> None:
        self.sent.append(message)

    def wake_up(self) -> ReturnCode:
        return self.handlers[TOPIC](TOPIC, Shareable(), FLContext()).get_return_code()


def context(engine: Engine, abort: Signal | None = None, answer: Shareable | None = None) -> FLContext:
    fl_ctx = FLContext()
    for key, value in (
        (ReservedKey.ENGINE, engine),
        (ReservedKey.RUN_ABORT_SIGNAL, abort),
        (FLContextKey.TASK_RESULT, answer),
    ):
        fl_ctx.set_prop(key, value, private=True, sticky=False)
    return fl_ctx


def answer_of(site: str) -> Shareable:
    answer = Shareable()
    answer.set_header(ServerCommandKey.FL_CLIENT, Client(site, "token"))
    return answer


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def timer(interval: float, function: Callable[..., None], args: list[Any]) -> SimpleNamespace:
        return SimpleNamespace(start=lambda: function(*args))

    monkeypatch.setattr(wake_up.threading, "Timer", timer)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("event", [EventType.START_WORKFLOW, AppEventType.ROUND_STARTED])
def test_the_server_rings_at_sites_that_have_answered(event: str) -> None:
    engine, server = Engine(), WakeUpSender()
    server.handle_event(event, context(engine))
    assert engine.sent == []  # processes that may still be starting ask by themselves
    for site in ("north", "south", "north"):
        server.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, context(engine, answer=answer_of(site)))
    server.handle_event(event, context(engine))
    (message,) = engine.sent
    assert message["targets"] == ["north", "south"]
    assert message["topic"] == TOPIC
    assert message["timeout"] == 0.0
    assert dict(message["request"]) == dict(Shareable())


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("connected", "woken"), [(["south"], [["south"]]), ([], [])])
def test_a_site_that_has_left_keeps_no_other_from_hearing(connected: list[str], woken: list[list[str]]) -> None:
    engine, server = Engine(connected), WakeUpSender()
    for site in ("north", "south"):
        server.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, context(engine, answer=answer_of(site)))
    server.handle_event(AppEventType.ROUND_STARTED, context(engine))
    assert [message["targets"] for message in engine.sent] == woken


def test_the_message_leaves_when_the_task_has_had_time_to_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[threading.Timer] = []
    monkeypatch.setattr(threading.Timer, "start", lambda timer: timers.append(timer))
    engine, server = Engine(), WakeUpSender()
    server.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, context(engine, answer=answer_of("north")))
    server.handle_event(AppEventType.ROUND_STARTED, context(engine))
    assert engine.sent == []
    (timer,) = timers
    assert timer.daemon and 0.01 < timer.interval < 1
    timer.function(*timer.args)
    assert len(engine.sent) == 1


@pytest.fixture
def site() -> tuple[WakeUpListener, Engine]:
    listener, engine = WakeUpListener(), Engine()
    listener.handle_event(EventType.START_RUN, context(engine))
    return listener, engine


def pull(listener: WakeUpListener, engine: Engine, abort: Signal | None = None) -> None:
    listener.handle_event(EventType.BEFORE_PULL_TASK, context(engine, abort or Signal()))


def work(listener: WakeUpListener, engine: Engine) -> None:
    listener.handle_event(EventType.BEFORE_TASK_EXECUTION, context(engine))


def waits(monkeypatch: pytest.MonkeyPatch, *, third: Callable[[], object] = int) -> list[float]:
    """Let a wait for the message end at once, note how long it would have been, and let something happen in one."""
    clock, noted = [0.0], []

    def wait(event: threading.Event, seconds: float) -> bool:
        clock[0] += seconds
        noted.append(0 if event.is_set() else seconds)
        if len(noted) == 3:
            third()
        return event.is_set()

    monkeypatch.setattr(wake_up.threading.Event, "wait", wait)
    monkeypatch.setattr(wake_up.time, "monotonic", lambda: clock[0])
    return noted


def test_a_site_without_a_task_yet_asks_at_nvflares_own_interval(
    site: tuple[WakeUpListener, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = waits(monkeypatch)
    for _ in range(5):
        pull(*site)
    assert noted == []


def test_a_site_that_has_done_a_task_waits_until_it_is_woken(
    site: tuple[WakeUpListener, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = waits(monkeypatch, third=site[1].wake_up)
    work(*site)
    pull(*site)
    assert len(noted) == 3
    pull(*site)  # the task may be a moment late, so it asks once more without waiting
    assert len(noted) == 3


def test_a_message_between_two_questions_is_kept(
    site: tuple[WakeUpListener, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = waits(monkeypatch)
    work(*site)
    assert site[1].wake_up() == ReturnCode.OK  # it comes while the site still trains
    pull(*site)
    assert sum(noted) == 0


def test_a_message_about_the_task_that_a_site_already_has_is_forgotten(
    site: tuple[WakeUpListener, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = waits(monkeypatch)
    site[1].wake_up()
    work(*site)
    pull(*site)
    assert sum(noted) == pytest.approx(5, abs=0.2)


def test_a_site_that_is_never_woken_asks_ever_more_seldom_but_once_a_minute(
    site: tuple[WakeUpListener, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = waits(monkeypatch)
    work(*site)
    seconds = []
    for _ in range(7):
        noted.clear()
        pull(*site)
        seconds.append(sum(noted))
    assert seconds == pytest.approx([5, 10, 20, 40, 60, 60, 60], abs=0.2)
    work(*site)
    noted.clear()
    pull(*site)
    assert sum(noted) == pytest.approx(5, abs=0.2)


def test_a_site_that_waits_notices_the_end_of_the_run(
    site: tuple[WakeUpListener, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    abort = Signal()
    noted = waits(monkeypatch, third=lambda: abort.trigger(True))
    work(*site)
    pull(*site, abort)
    assert len(noted) == 3
    assert sum(noted) < 1
