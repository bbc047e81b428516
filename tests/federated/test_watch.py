"""Jobs that will not come to an end by themselves, look by look."""

from __future__ import annotations

from typing import Any

import pytest

from monai_fedlora.federated.server_link import Seen, SiteSeen
from monai_fedlora.federated.watch import Watch

SITES = ("a", "b")
BUSY = {"a": SiteSeen(at_work=True), "b": SiteSeen(at_work=True)}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def record(*answered: str, status: str = "running", refused: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A record whose first round these sites have answered."""
    entry = {"round": 0, "sites": {site: {"round": 0} for site in answered}, **more}
    left_out = [{"round": 0, "site": site, "reason": "too long"} for site in refused]
    plan = {"rounds": 2, "start_round": 0}
    return {"status": status, "rounds": [entry], "final": {}, "refused": left_out, "plan": plan}


def seen(results: dict[str, Any] | None = None, **changes: Any) -> Seen:
    standard: dict[str, Any] = {"status": "RUNNING", "server": "Monday", "running": True, "sites": BUSY}
    return Seen(**{**standard, "results": record() if results is None else results, **changes})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(sites=SITES, silence=60, patience=600, clock=clock)


def test_a_run_that_says_so_has_ended(watch: Watch) -> None:
    verdict = watch.judge(seen(record("a", "b", status="incomplete")))
    assert verdict is not None and verdict.ended


@pytest.mark.parametrize("status", ["FINISHED:EXECUTION_EXCEPTION", "FINISHED:ABORTED", "ABANDONED"])
def test_a_job_that_nvflare_ended_failed_by_the_site_that_was_last_not_at_work(watch: Watch, status: str) -> None:
    assert watch.judge(seen()) is None
    assert watch.judge(seen(sites={**BUSY, "b": SiteSeen(at_work=False)})) is None
    verdict = watch.judge(seen(status=status, running=False))
    assert verdict is not None and not verdict.ended
    assert (status in verdict.reason, tuple(verdict.sites)) == (True, ("b",))


def test_a_server_that_was_started_anew_has_lost_the_job(watch: Watch) -> None:
    assert watch.judge(seen()) is None
    assert watch.judge(seen(running=False)) is None
    verdict = watch.judge(seen(running=False, server="Tuesday"))
    assert verdict is not None and "started anew" in verdict.reason


def test_nvflare_has_a_minute_to_say_how_a_job_ended(watch: Watch, clock: Clock) -> None:
    watch.judge(seen())
    for now, over in ((0, False), (59, False), (61, True)):
        clock.now = now
        assert (watch.judge(seen(running=False)) is not None) == over


def test_a_site_that_came_back_without_the_job_is_taken_in_by_another_one(watch: Watch, clock: Clock) -> None:
    for now, at_work, over in ((0, True, False), (5, False, False), (12, False, False), (21, False, True)):
        clock.now = now
        verdict = watch.judge(seen(sites={**BUSY, "b": SiteSeen(at_work=at_work)}))
        assert (verdict is not None) == over
    assert verdict is not None and tuple(verdict.sites) == ("b",)


def test_a_site_that_could_not_be_asked_is_not_taken_for_absent(watch: Watch, clock: Clock) -> None:
    for now in (0, 30, 59):
        clock.now = now
        assert watch.judge(seen(sites={"a": SiteSeen(), "b": SiteSeen()})) is None


def test_silence_of_a_site_ends_a_job_that_waits_for_it_and_no_other(watch: Watch, clock: Clock) -> None:
    quiet = {**BUSY, "b": SiteSeen(silent=61)}
    for now, answered in ((0, ()), (50, ("a",))):
        clock.now = now
        assert watch.judge(seen(record(*answered), sites=quiet)) is None
    clock.now = 109  # 59 seconds after the last answer
    assert watch.judge(seen(record("a"), sites=quiet)) is None
    clock.now = 111
    verdict = watch.judge(seen(record("a"), sites=quiet))
    assert verdict is not None and tuple(verdict.sites) == ("b",)


def test_patience_ends_with_those_that_have_not_answered(watch: Watch, clock: Clock) -> None:
    watch.judge(seen(record("a")))
    watch.judge(seen(record("a")))
    clock.now = 601
    verdict = watch.judge(seen(record("a")))
    assert verdict is not None and tuple(verdict.sites) == ("b",)


@pytest.mark.parametrize("excluding", [False, True])
def test_a_job_that_cannot_begin_is_given_up_only_where_the_next_may_do_without(clock: Clock, excluding: bool) -> None:
    watch = Watch(sites=SITES, silence=60, patience=600, excluding=excluding, clock=clock)
    waiting = {"status": "SUBMITTED", "running": False, "results": {}, "sites": {"a": SiteSeen()}}
    assert watch.judge(seen(**waiting)) is None
    clock.now = 61
    verdict = watch.judge(seen(**waiting))
    assert (verdict is not None) == excluding
    assert verdict is None or tuple(verdict.sites) == ("b",)
    assert "b: not connected" in watch.in_words(seen(**waiting))


def test_words_tell_the_round_whom_it_waits_for_and_who_was_refused(watch: Watch) -> None:
    assert watch.in_words(seen(record("a"))) == "round 1 of 2; waiting for b"
    assert watch.in_words(seen(record(refused=("a",)))) == "round 1 of 2; waiting for b; refused a: too long"
    assert watch.in_words(seen(record("a", "b", score=0.5))) == "the final evaluation; waiting for a, b"
    assert watch.in_words(seen({"rounds": []})).startswith("the job begins or ends")
    full = {"codes": ["DISK_FULL"], "reason": "its disk is full"}
    ready = watch.in_words(seen({"rounds": [], "ready": {"b": full}}))
    assert ready == "sites are asked whether they are ready; waiting for a; not ready b: its disk is full (DISK_FULL)"
