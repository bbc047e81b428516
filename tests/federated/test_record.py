"""The record is a complete file after every event, for a live view and for a run that ends early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora import __version__
from monai_fedlora.federated.record import RESULTS_NAME, RunRecord
from tests.helpers import make_manifest, make_plan


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return RunRecord(folder=tmp_path, plan=make_plan(), manifest=make_manifest())


def written(record: RunRecord) -> dict[str, Any]:
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


def test_every_event_is_on_disk_at_once(record: RunRecord) -> None:
    record.begin_round(0)
    assert written(record)["rounds"] == [{"round": 0, "sites": {}}]
    record.contribution("north", {"round": 0, "cases": 5, "train_loss": 0.5})
    assert written(record)["rounds"][0]["sites"]["north"]["train_loss"] == 0.5
    record.refusal(0, "south", "NaN")
    assert written(record)["refused"] == [{"round": 0, "site": "south", "reason": "NaN"}]
    record.end_round(score=0.75, traffic={"north": {"bytes_sent": 3}, "south": {"bytes_sent": 4}})
    sites = written(record)["rounds"][0]["sites"]
    assert written(record)["rounds"][0]["score"] == 0.75
    assert sites["north"] == {"round": 0, "cases": 5, "train_loss": 0.5, "bytes_sent": 3}
    assert sites["south"] == {"bytes_sent": 4}
    record.final("north", {"cases": 5})
    assert written(record)["final"] == {"north": {"cases": 5}}
    assert written(record)["status"] == "running"
    record.finish()
    assert written(record)["status"] == "finished"
    assert written(record)["seconds"] >= 0


def test_rounds_follow_each_other(record: RunRecord) -> None:
    for number in (3, 4):
        record.begin_round(number)
        record.contribution("north", {"round": number})
        record.end_round(score=None, traffic={})
    assert [entry["round"] for entry in written(record)["rounds"]] == [3, 4]
    assert [entry["sites"]["north"]["round"] for entry in written(record)["rounds"]] == [3, 4]
    assert written(record)["rounds"][0]["score"] is None


def test_a_report_that_changes_later_does_not_change_the_record(record: RunRecord) -> None:
    report = {"round": 0, "cases": 5}
    record.begin_round(0)
    record.contribution("north", report)
    record.end_round(score=None, traffic={"north": {"bytes_sent": 3}})
    assert report == {"round": 0, "cases": 5}
    report["cases"] = 6
    record.finish()
    assert written(record)["rounds"][0]["sites"]["north"]["cases"] == 5


def test_no_half_written_record_is_ever_seen(record: RunRecord, tmp_path: Path) -> None:
    record.begin_round(0)
    record.value["rounds"][0]["bad"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        record.finish()
    assert written(record)["status"] == "running"
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS_NAME]


def test_agreement_belongs_to_the_open_round_and_may_be_missing(record: RunRecord) -> None:
    found = {"sites": ["north"], "norms": [0.5], "cosines": [[1.0]]}
    record.begin_round(0)
    record.agreement(None)
    assert "agreement" not in written(record)["rounds"][0]
    record.begin_round(1)
    record.agreement(found)
    assert written(record)["rounds"] == [{"round": 0, "sites": {}}, {"round": 1, "sites": {}, "agreement": found}]
