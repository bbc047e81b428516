"""The final evaluation asks the sites that are there, and waits for nobody within a bound."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.client import Client
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.response_processor import ResponseProcessor

from monai_fedlora.federated import final_round
from monai_fedlora.federated.final_round import FinalRound


class Noting(ResponseProcessor):
    """Notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[str] = []

    def create_task_data(self, task_name: str, fl_ctx: Any) -> Shareable:
        self.done.append(f"data of {task_name}")
        return Shareable()

    def process_client_response(self, **given: Any) -> bool:
        raise AssertionError("nobody has answered")

    def final_process(self, fl_ctx: Any) -> bool:
        self.done.append("end")
        return True


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The targets of every broadcast; time passes by looking."""
    found: list[Any] = []
    now = SimpleNamespace(time=0.0)

    def tick(_: float) -> None:
        now.time += 10

    monkeypatch.setattr(final_round, "time", SimpleNamespace(monotonic=lambda: now.time, sleep=tick))
    monkeypatch.setattr(FinalRound, "broadcast_and_wait", lambda self, *, targets, **_: found.append(targets))
    return found


def run(*looks: list[str], aborted: bool = False) -> Noting:
    """Run with the sites that are connected at each look; those of the last one stay."""
    seen = list(looks)
    engine = SimpleNamespace(
        get_clients=lambda: [Client(site, "token") for site in (seen.pop(0) if len(seen) > 1 else seen[0])]
    )
    processor, signal = Noting(), Signal()
    if aborted:
        signal.trigger(True)
    context: Any = SimpleNamespace(get_engine=lambda: engine)
    FinalRound(processor=processor, task_name="validate").control_flow(signal, context)
    return processor


def test_the_sites_that_are_there_are_asked(asked: list[Any]) -> None:
    assert run(["a", "b"]).done == ["data of validate", "end"]
    assert asked == [["a", "b"]]


def test_a_site_that_comes_back_in_time_is_asked(asked: list[Any]) -> None:
    run([], [], ["b"])
    assert asked == [["b"]]


@pytest.mark.parametrize("aborted", [False, True])
def test_where_nobody_is_the_run_ends_without_an_evaluation(asked: list[Any], aborted: bool) -> None:
    assert run([], aborted=aborted).done == ["data of validate", "end"]
    assert asked == []
