"""Sites are asked whether they are ready, one question at a time, until they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from monai_fedlora.federated import roll
from monai_fedlora.federated.flare_context import metrics_message, readiness_message
from monai_fedlora.federated.participation import NotReady, Participation
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import Reason
from monai_fedlora.federated.roll import Roll

READY = Readiness(versions={"torch": "2.13.0"})
FULL = Readiness(codes=("BUSY", "DISK_FULL"))


class Court:
    """A server whose sites answer at once, or not at all."""

    def __init__(self, *sites: str) -> None:
        self.answers: dict[str, Shareable] = {site: readiness_message(READY) for site in sites}
        self.asked: list[str] = []
        self.said: dict[str, Any] = {}
        self.open: list[Task] = []
        engine = SimpleNamespace(get_clients=lambda: [Client(site, "token") for site in sites])
        self.context: Any = SimpleNamespace(get_engine=lambda: engine)
        record = SimpleNamespace(
            record=SimpleNamespace(readiness=lambda site, reason, said: self.said.update({site: (reason, said)})),
            known_of=lambda site: Reason.of("SITE_FAILED"),
        )
        controller: Any = SimpleNamespace(broadcast=self.broadcast)
        self.roll = Roll(controller, record)  # type: ignore[arg-type]

    def broadcast(self, *, task: Task, fl_ctx: FLContext, targets: list[str], min_responses: int) -> None:
        (site,) = task.targets = targets
        self.asked.append(site)
        if site in self.answers:
            answer = ClientTask(task=task, client=Client(site, "token"))
            answer.result = self.answers[site]
            assert task.result_received_cb is not None
            task.result_received_cb(client_task=answer, fl_ctx=fl_ctx)
        else:
            self.open.append(task)

    def call(self, least: int | None = None) -> None:
        self.roll.call(self.context)
        self.roll.wait(Signal(), enough=Participation(min_sites=least).can_begin)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A time that goes on by ten seconds with every look."""
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(roll, "time", SimpleNamespace(monotonic=lambda: now.time, sleep=lambda _: tick()))

    def tick() -> None:
        now.time += 10

    return now


def test_sites_that_are_ready_are_asked_once() -> None:
    court = Court("a", "b")
    court.call()
    court.call()
    assert court.asked == ["a", "b"]
    assert court.roll.reasons == {"a": None, "b": None}
    assert court.said["a"] == (None, READY)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (readiness_message(FULL), "BUSY"),
        (make_reply("SITE_OUT_OF_MEMORY"), "SITE_FAILED"),
        (metrics_message({"cases": 3}), "ANSWER_REFUSED"),
        (Shareable(), "ANSWER_REFUSED"),
    ],
)
def test_a_site_that_is_not_ready_is_asked_again_until_it_is(answer: Shareable, code: str) -> None:
    court = Court("a", "b")
    court.answers["b"] = answer
    court.call()
    assert getattr(court.roll.reasons["b"], "code", None) == code
    assert court.roll.reasons["a"] is None
    court.answers["b"] = readiness_message(READY)
    court.call()
    assert court.asked == ["a", "b", "b"]
    assert court.roll.reasons["b"] is None and court.said["b"] == (None, READY)


def test_all_that_is_wrong_is_said() -> None:
    court = Court("a")
    court.answers["a"] = readiness_message(FULL)
    court.call()
    reason = court.roll.reasons["a"]
    assert reason is not None and "another run" in reason.text and "disk is full" in reason.text


def test_a_site_that_does_not_answer_is_late_within_the_bound_and_has_no_second_question_meanwhile() -> None:
    court = Court("a", "b")
    del court.answers["b"]
    court.call()
    court.call()
    assert court.asked == ["a", "b"]
    assert court.roll.reasons["b"] == court.said["b"][0] == Reason.of("LATE")
    (task,) = court.open
    assert task.timeout == 300 and task.task_done_cb is not None
    task.task_done_cb(task=task, fl_ctx=court.context)
    court.answers["b"] = readiness_message(READY)
    court.call()
    assert court.roll.reasons["b"] is None


def test_with_enough_sites_the_others_are_waited_for_less_long(clock: SimpleNamespace) -> None:
    for least, waited in ((1, 30), (2, 300), (None, 300)):
        clock.time, court = 0.0, Court("a", "b")
        del court.answers["b"]
        court.call(least)
        assert clock.time == waited


def test_a_run_begins_with_enough_sites_and_with_those_that_it_requires() -> None:
    full = Reason.of("DISK_FULL")
    assert Participation().can_begin({"a": None, "b": None})
    assert not Participation().can_begin({"a": None, "b": full})
    assert not Participation().can_begin({})
    assert Participation(min_sites=1).can_begin({"a": None, "b": full})
    assert not Participation(min_sites=2).can_begin({"a": None, "b": full})
    assert not Participation(min_sites=1, required_sites=("b",)).can_begin({"a": None, "b": full})
    assert "b: the site's disk is full" in str(NotReady({"a": None, "b": full}))
