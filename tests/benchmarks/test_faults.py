"""A provisioned federation that is killed and comes back, and how the benchmark of faults reads what was said."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import _absences
import _deeds
import _poison
import pytest
from _federation import SERVER, Federation, own, waiting
from _policy import FILE
from _supervised import Supervised
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import make_reply

from monai_fedlora.api.job_simulation import simulate
from monai_fedlora.api.written_job import write_job
from monai_fedlora.data.site import CACHE
from monai_fedlora.environment import POLICY
from monai_fedlora.federated.supervisor import JOBS
from monai_fedlora.files import read_json
from tests.benchmarks.test_command_lines import loaded


def test_a_fault_is_noticed_with_the_first_unusual_or_repeated_line() -> None:
    said = object.__new__(Supervised)
    usual = [
        (0.0, "submitted hearts as 1"),
        (1.0, "round 1 of 5; waiting for a, b"),
        (3.0, "round 1 of 5; waiting for b"),
    ]
    said.lines = [*usual, (9.0, "NVFlare ended the job: FINISHED:ABORTED")]
    assert said.noticed(2.0) == 7.0
    said.lines = [*usual, (33.0, usual[-1][1])]
    assert said.noticed(4.0) == 29.0
    said.lines = [*usual, (9.0, "the run has come to its end"), (9.1, "images, as the sites say: synthetic")]
    assert said.noticed(2.0) is None


def test_the_documentation_has_the_table_of_what_was_measured() -> None:
    faults = loaded("faults")
    rows = read_json(faults.RESULTS)["rows"]
    met = {row["fault"] for row in rows}
    assert [row["fault"] for row in rows] == [name for name in faults.FAULTS if name in met]
    said = (Path(__file__).resolve().parents[2] / "docs" / "federation.md").read_text(encoding="utf-8")
    assert [line for line in faults.table(rows) if line not in said] == []
    assert [row["fault"] for row in rows if row["accepted_rounds_lost"]] == []


def test_a_fault_after_which_nothing_came_to_an_end_is_a_line_that_says_so() -> None:
    faults = loaded("faults")
    row = {"fault": "cut", "what": "The network is cut.", "job": {}, "finished": False, "status": None}
    assert faults.table([row | {"said": "the end did not come about in 500 s"}]) == [
        "| The network is cut | - | - | - | - | no end: the end did not come about in 500 s | - |"
    ]
    assert "it left no record" in faults.table([row])[0]


def test_a_row_says_what_came_of_a_second_run_and_how_many_processes_were_killed() -> None:
    faults = loaded("faults")
    row = {"what": "A run.", "job": {}, "status": "finished", "seconds_until_noticed": None, "longest_silence": 3.0}
    row |= {"jobs": 2, "codes": [], "bits_equal": True, "personal_bits_equal": True}
    refused = {"status": "interrupted", "codes": ["BUSY"]}
    assert faults.table([row | {"second": refused}]) == [
        "| A run | - | 3 s | 1 | - | finished; the other interrupted, `BUSY` | equal |"
    ]
    others = {"status": "finished", "codes": [], "bits_equal": True, "personal_bits_equal": False}
    assert faults.table([row | {"second": others}])[0].endswith("| finished; the other finished | others |")
    assert "finished, after 3 kills" in faults.table([row | {"killed": {"trains": 1, "server": 2}}])[0]


def test_a_round_lasts_from_its_first_line_to_that_of_the_next() -> None:
    said = object.__new__(Supervised)
    said.lines = [
        (float(moment), line)
        for moment, line in (
            (0, "submitted hearts as 1"),
            (5, "round 1 of 4; waiting for a"),
            (9, "round 1 of 4"),
            (10, "round 2 of 4"),
            (13, "round 3 of 4"),
            (14, "round 4 of 4; waiting for b"),
            (90, "the run has come to its end"),
        )
    ]
    assert said.round_seconds() == 3.0


@pytest.mark.parametrize("how", [_poison.UNDECODABLE, _poison.HUGE, _poison.ENDING])
def test_poison_spoils_what_is_about_to_be_sent_once_it_is_told_to(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_poison, "_HUGE", 100)
    place, answer, context = tmp_path / "poison", make_reply(ReturnCode.OK), FLContext()
    context.set_prop(FLContextKey.TASK_RESULT, answer, private=True, sticky=False)
    poison = _poison.Poison(str(place))
    poison.handle_event(EventType.AFTER_TASK_RESULT_FILTER, context)
    assert dict(answer) == dict(make_reply(ReturnCode.OK))
    place.write_text(how)
    poison.handle_event(EventType.BEFORE_TASK_RESULT_FILTER, context)
    assert dict(answer) == dict(make_reply(ReturnCode.OK))
    poison.handle_event(EventType.AFTER_TASK_RESULT_FILTER, context)
    assert (answer.get_return_code(), "more" in answer) == {
        _poison.UNDECODABLE: (ReturnCode.OK, True),
        _poison.HUGE: (ReturnCode.OK, True),
        _poison.ENDING: (ReturnCode.UNSAFE_JOB, False),
    }[how]


def test_the_sites_that_answered_are_those_with_a_report() -> None:
    rounds: Any = [{"sites": {"a": {"round": 0}, "b": {"bytes_sent": 3}}}, {"sites": {"b": {"round": 1}}}]
    assert _absences.answered({"rounds": rounds}) == [{"a"}, {"b"}]


@pytest.mark.slow
def test_a_job_whose_processes_at_a_site_and_at_the_server_are_killed_ends_with_the_bits_of_a_quiet_run() -> None:
    with tempfile.TemporaryDirectory() as name:  # which another user than root can enter
        place = Path(name)
        place.chmod(0o755)
        _killed_and_back(place)


def _killed_and_back(place: Path) -> None:
    faults = loaded("faults")
    settings = {"batch_size": 4, "learning_rate": 0.004, "warmup_epochs": 0}
    job, sites = place / faults.NAME, faults.SITES[-2:]
    write_job("dual_lora", output=job, sites=sites, rounds=3, settings=settings)
    simulate(job, workspace=place / "undisturbed", in_process=True)
    cache = place / "cache"
    cache.mkdir()
    own(cache)
    environment = {POLICY: str(FILE), CACHE: str(cache)}  # pytest's own folders are root's alone
    with Federation(place / "federation", sites=sites, environment=environment) as federation:
        for end in (SERVER, *sites):
            federation.start(end)
        run = Supervised(job, federation.admin)
        try:
            with waiting(600, "the second round") as turns:
                next(moment for moment in turns if len(run.results().get("rounds", ())) >= 2)
            _deeds.site_job(federation, run)
            _deeds.server_job(federation, run)
            assert run.process.wait(timeout=600) == 0
        finally:
            run.process.kill()
        assert run.results()["status"] == "finished"
        assert (run.folder / JOBS / f"{faults.NAME}-2").is_dir()
        assert faults.equal(run.folder / "shared.safetensors", place / "undisturbed" / "shared.safetensors")
        for site in sites:
            last = Path(faults.NAME) / site / "final.safetensors"
            assert faults.equal(federation.private(site) / last, place / "undisturbed" / "private" / last), site
