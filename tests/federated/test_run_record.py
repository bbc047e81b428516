"""The record is a complete file all the time, for a live view and for a run that ends early."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread, Timer
from types import SimpleNamespace
from typing import Any

import pytest

from monai_fedlora import __version__
from monai_fedlora.federated import run_record as module
from monai_fedlora.federated.participation import Participation
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import Reason
from monai_fedlora.federated.run_record import (
    RESULTS_NAME,
    RunRecord,
    differences_said,
    interruption_said,
    not_ready,
    restarts_said,
)
from monai_fedlora.site_report import Report
from tests.helpers import make_manifest, make_plan


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(folder=tmp_path, plan=make_plan(), manifest=make_manifest())


def written(record: RunRecord) -> dict[str, Any]:
    record.flush()
    return json.loads(record.path.read_text())


def test_a_record_says_what_was_agreed(record: RunRecord, tmp_path: Path) -> None:
    record.begin_round(0)
    value = written(record)
    assert record.path == tmp_path / RESULTS_NAME
    assert value["version"] == __version__
    assert value["plan"] == make_plan().to_json()
    assert value["manifest_digest"] == make_manifest().digest
    assert value["payload_bytes"] == make_manifest().nbytes == 44
    assert value["status"] == "running"


def test_every_event_is_in_the_file(record: RunRecord) -> None:
    record.begin_round(0)
    assert written(record)["rounds"] == [{"round": 0, "sites": {}}]
    record.contribution("north", Report(round=0, cases=5, train_loss=0.5))
    assert written(record)["rounds"][0]["sites"]["north"]["train_loss"] == 0.5
    record.refusal(0, "south", Reason("ANSWER_REFUSED", "NaN"))
    said = {"round": 0, "site": "south", "code": "ANSWER_REFUSED", "reason": "NaN"}
    assert written(record)["refused"] == [said]
    record.end_round(score=0.75, traffic={"north": {"bytes_sent": 3}, "south": {"bytes_sent": 4}})
    sites = written(record)["rounds"][0]["sites"]
    assert written(record)["rounds"][0]["score"] == 0.75
    assert sites["north"] == {"round": 0, "cases": 5, "train_loss": 0.5, "bytes_sent": 3}
    assert sites["south"] == {"bytes_sent": 4}
    record.final("north", Report(cases=5))
    assert written(record)["final"] == {"north": {"cases": 5}}
    assert written(record)["status"] == "running"
    record.finish()
    assert written(record)["status"] == "incomplete"
    assert written(record)["seconds"] >= 0


def test_a_round_that_begins_and_the_end_are_on_disk_at_once(record: RunRecord) -> None:
    for number in range(3):
        record.begin_round(number)
        assert json.loads(record.path.read_text())["rounds"][-1] == {"round": number, "sites": {}}
        record.contribution("north", Report(round=number))
    record.finish()
    assert json.loads(record.path.read_text())["status"] == "incomplete"


def test_what_happens_within_a_round_is_soon_on_disk(record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Timer] = []
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(Timer, "start", lambda timer: timers.append(timer))
    record.begin_round(0)
    record.contribution("north", Report(round=0))
    record.refusal(0, "south", Reason.of("NO_ANSWER"))
    assert json.loads(record.path.read_text())["refused"] == []
    (timer,) = timers
    assert timer.daemon and 0 < timer.interval < 1
    timer.function()
    value = json.loads(record.path.read_text())
    assert (list(value["rounds"][0]["sites"]), len(value["refused"])) == (["north"], 1)


@pytest.mark.slow
def test_many_sites_over_many_rounds_write_little_more_than_a_file_a_round(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sites that answer one by one, every two seconds, in a record whose file grows and grows."""
    now, written_bytes = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.threading, "Timer", lambda *_: SimpleNamespace(start=int, cancel=int))
    write = module.write_json
    monkeypatch.setattr(
        module, "write_json", lambda path, value: (write(path, value), written_bytes.append(path.stat().st_size))
    )
    report = Report(cases=20, validation={"personal": {"confusion_matrix": [[123456789] * 40]}})
    for number in range(20):
        record.begin_round(number)
        for site in range(16):
            record.contribution(f"site-{site}", report)
            now[0] += 2
        record.end_round(score=0.5, traffic={})
    record.finish()
    assert sum(written_bytes) < 3 * 20 * written_bytes[-1]
    assert sum(written_bytes) - written_bytes[-1] * 21 < 16_000 * now[0]


def test_events_of_several_threads_are_all_kept(record: RunRecord) -> None:
    record.begin_round(0)
    threads = [Thread(target=record.contribution, args=(f"site-{n}", Report(round=0))) for n in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written(record)["rounds"][0]["sites"]) == 32


def test_rounds_follow_each_other(record: RunRecord) -> None:
    for number in (3, 4):
        record.begin_round(number)
        record.contribution("north", Report(round=number))
        record.end_round(score=None, traffic={})
    assert [entry["round"] for entry in written(record)["rounds"]] == [3, 4]
    assert [entry["sites"]["north"]["round"] for entry in written(record)["rounds"]] == [3, 4]
    assert written(record)["rounds"][0]["score"] is None


def test_what_the_record_adds_does_not_change_the_report(record: RunRecord) -> None:
    report = Report(round=0, cases=5)
    record.begin_round(0)
    record.contribution("north", report)
    record.end_round(score=None, traffic={"north": {"bytes_sent": 3}})
    assert report == Report(round=0, cases=5)


def test_no_half_written_record_is_ever_seen(record: RunRecord, tmp_path: Path) -> None:
    record.begin_round(0)
    record.value["rounds"][0]["bad"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        record.finish()
    assert written(record)["status"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS_NAME]
    record.value["rounds"].clear()


def ended(record: RunRecord, rounds: list[str], final: str) -> tuple[str, str]:
    """Status and shortfalls of a run; a letter is a site (north, south) whose answer counted."""
    sites = {"n": "north", "s": "south"}
    for number, names in enumerate(rounds):
        record.begin_round(number)
        for name in names:
            record.contribution(sites[name], Report(round=number, cases=5))
        record.end_round(score=None, traffic={site: {"bytes_sent": 3} for site in sites.values()})
    for name in final:
        record.final(sites[name], Report(round=len(rounds)))
    record.finish()
    return written(record)["status"], "; ".join(written(record)["lacks"])


@pytest.mark.parametrize("rounds", [["ns", "ns"], ["ns", "n"], ["n", "s"], ["s", "ns"]])
def test_a_run_in_which_every_site_and_every_round_counted_is_finished(record: RunRecord, rounds: list[str]) -> None:
    assert ended(record, rounds, "ns") == ("finished", "")


@pytest.mark.parametrize(
    "rounds, final, lacks",
    [
        (["", ""], "ns", ["nothing was learnt"]),
        (["", ""], "", ["nothing was learnt", "north has no evaluation", "south has no evaluation"]),
        (["ns", ""], "ns", ["no answer counted in round 2"]),
        (["", "ns", ""], "ns", ["no answer counted in round 1, 3"]),
        (["n", "n"], "ns", ["no answer of south ever counted"]),
        (["ns", "ns"], "n", ["south has no evaluation of the last model"]),
        (["ns", "ns"], "", ["north has no", "south has no"]),
    ],
)
def test_a_run_that_lacks_something_is_incomplete_and_says_what(
    record: RunRecord, rounds: list[str], final: str, lacks: list[str]
) -> None:
    status, said = ended(record, rounds, final)
    assert status == "incomplete"
    assert said.count(";") == len(lacks) - 1
    assert all(part in said for part in lacks)


@pytest.mark.parametrize(
    "required, rounds, final, status, lacks, absent",
    [
        ((), ["n", "n"], "n", "finished", [], ["no answer of south ever counted", "south has no evaluation"]),
        ((), ["ns", "n"], "n", "finished", [], ["south has no evaluation"]),
        ((), ["n", "n"], "", "incomplete", ["no answer of south", "north has no", "south has no"], []),
        (("south",), ["s", "s"], "s", "finished", [], ["no answer of north", "north has no evaluation"]),
        (("south",), ["s", "s"], "n", "incomplete", ["no answer of north", "south has no evaluation"], []),
    ],
)
def test_sites_that_the_plan_allows_to_be_missing_are_named_and_nothing_is_lacking(
    tmp_path: Path,
    required: tuple[str, ...],
    rounds: list[str],
    final: str,
    status: str,
    lacks: list[str],
    absent: list[str],
) -> None:
    plan = make_plan(participation=Participation(min_sites=1, required_sites=required))
    record = RunRecord(folder=tmp_path, plan=plan, manifest=make_manifest())
    assert ended(record, rounds, final)[0] == status
    for entry, parts in (("lacks", lacks), ("absent", absent)):
        said = written(record)[entry]
        assert len(said) == len(parts)
        assert all(part in line for part, line in zip(parts, said, strict=True))


def test_a_run_that_goes_on_keeps_the_refusals_of_the_round_that_was_in_flight(record: RunRecord) -> None:
    refused = [{"round": number, "site": "south", "code": "LATE", "reason": "no answer in time"} for number in (0, 1)]
    repeated = [{"round": 1, "reason": "1 answers counted, of at least 2"}]
    rounds = [{"round": 0, "sites": {}}, {"round": 1, "sites": {}}]
    earlier = {"rounds": rounds, "refused": refused, "repeated": repeated, "training_data": {}, "seconds": 2.0}
    record.go_on(earlier, 1)
    assert record.value["rounds"] == rounds[:1]
    assert (record.value["refused"], record.value["repeated"]) == (refused, repeated)


def test_a_site_that_begins_without_the_state_it_had_is_noted(record: RunRecord) -> None:
    states = [(0, 0, 0), (1, 1, 0), (2, 1, 2), (3, 3, 3)]
    for number, north, south in states:
        record.begin_round(number)
        record.contribution("north", Report(round=number, restored_rounds=north))
        record.contribution("south", Report(round=number, restored_rounds=south))
    record.final("north", Report(round=4, restored_rounds=0))
    record.final("south", Report(round=4))
    noted = [(entry["round"], entry["site"], entry["restored_rounds"]) for entry in written(record)["restarted"]]
    assert noted == [(1, "south", 0), (2, "north", 1), (4, "north", 0)]
    said = restarts_said(written(record))
    assert ("south began round 1 with no state" in said[0], "after 1 rounds" in said[1]) == (True, True)


def test_agreement_belongs_to_the_open_round_and_may_be_missing(record: RunRecord) -> None:
    found = {"sites": ["north"], "norms": [0.5], "cosines": [[1.0]]}
    record.begin_round(0)
    record.agreement(None)
    assert "agreement" not in written(record)["rounds"][0]
    record.begin_round(1)
    record.agreement(found)
    assert written(record)["rounds"] == [{"round": 0, "sites": {}}, {"round": 1, "sites": {}, "agreement": found}]


def test_readiness_is_noted_with_its_codes_and_who_differs_is_named(record: RunRecord) -> None:
    same, other = {**record.value["versions"]}, {**record.value["versions"], "torch": "0.0.1"}
    record.readiness("north", None, Readiness(versions=same, bundle="0" * 8, cases=12))
    record.readiness("south", Reason.of("BUSY"), Readiness(codes=("BUSY",), versions=other, bundle="1" * 8))
    record.readiness("west", Reason.of("LATE"))
    results = written(record)
    assert results["ready"]["north"] == {"codes": [], "versions": same, "bundle": "0" * 8, "cases": 12}
    assert results["ready"]["west"] == {"codes": ["LATE"], "reason": "no answer in time"}
    assert not_ready(results) == {
        "north": None,
        "south": f"{Reason.of('BUSY').text} (BUSY)",
        "west": "no answer in time (LATE)",
    }
    (line,) = differences_said(results)
    assert line.startswith("south computes with torch 0.0.1 (the server ") and "another bundle" in line
    assert differences_said({}) == []


def test_what_interrupted_a_run_is_said_in_words(record: RunRecord) -> None:
    record.begin_round(0)
    assert interruption_said(record.value) == ""
    record.interrupt("not_ready")
    assert interruption_said(record.value).startswith("was interrupted (not_ready): too few sites were ready")
    assert "does not know" in interruption_said({"status": "interrupted", "interrupted_by": "flood"})
    assert interruption_said({"status": "interrupted", "interrupted_by": 7}) == ""
