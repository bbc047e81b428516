"""The simulate command shows what happened in a terminal of 80 columns, whatever a site has sent."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from monai_fedlora.api.job_simulation import Simulated
from monai_fedlora.cli import main
from monai_fedlora.commands.console import drawn_table
from monai_fedlora.commands.simulate import progress_table
from monai_fedlora.errors import FedLoraError
from monai_fedlora.federated import simulator as module
from monai_fedlora.federated.jobs import write_job
from tests.helpers import make_manifest, make_plan

NORTH = {"personal": {"balanced_accuracy": 0.8125, "auroc": 0.9, "sensitivity": 0.75, "specificity": 0.875, "n": 24}}
SOUTH = {
    "personal": {"balanced_accuracy": 0.6125, "auroc": None, "sensitivity": 0.5, "specificity": 0.725, "n": 31},
    "shared": {"balanced_accuracy": 0.5},
}


def finished(**changes: Any) -> dict[str, Any]:
    rounds = [
        {
            "round": number,
            "score": 0.5 + number / 8,
            "sites": {
                "north": {"train_loss": 0.75 - number / 4, "bytes_sent": 20_400, "bytes_received": 1_200_000},
                "south": {"bytes_sent": 600},
            },
        }
        for number in range(2)
    ]
    results = {
        "plan": make_plan().to_json(),
        "status": "finished",
        "seconds": 12.4,
        "rounds": rounds,
        "final": {"north": {"test": NORTH}, "south": {"test": SOUTH}},
        "refused": [],
        "lacks": [],
    }
    return {**results, **changes}


def shown(table: Any) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def closing_table(results: dict[str, Any]) -> Any:
    return drawn_table(Simulated(results=results, workspace=Path("w")).table())


def rows(text: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_the_closing_table_has_every_sites_metrics_and_traffic() -> None:
    text = shown(closing_table(finished()))
    assert "…" not in text
    assert "trial: test split after 2 rounds (12 s)" in text
    found = rows(text)
    assert found["north"] == ["24", "0.812", "0.900", "0.750", "0.875", "41", "kB", "2,400", "kB"]
    assert found["south"] == ["31", "0.613", "0.500", "0.500", "0.725", "1", "kB", "0", "kB"]
    assert found["mean"] == ["0.713", "0.500", "0.900", "0.625", "0.800"]


def test_a_site_that_never_answered_has_an_empty_row() -> None:
    found = rows(shown(closing_table(finished(final={"north": {"test": NORTH}}))))
    assert found["south"] == ["1", "kB", "0", "kB"]
    assert found["mean"] == ["0.812", "0.900", "0.750", "0.875"]
    assert rows(shown(closing_table(finished(final={}))))["mean"] == []


def test_a_run_without_messages_shows_no_traffic() -> None:
    rounds = [{"round": 0, "score": 0.5, "sites": {"north": {"train_loss": 0.75}, "south": {"train_loss": 0.5}}}]
    found = rows(shown(closing_table(finished(rounds=rounds))))
    assert found["north"] == ["24", "0.812", "0.900", "0.750", "0.875"]


def test_the_progress_table_shows_who_has_answered() -> None:
    text = shown(progress_table(finished(final={"north": {}})))
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["1 of 2", "loss 0.750", "...", "0.500"],
        ["2 of 2", "loss 0.500", "...", "0.625"],
        ["final", "done", "...", ""],
    ]


def test_the_progress_table_shows_who_was_refused() -> None:
    refused = [{"round": 1, "site": "south", "reason": "the site failed (DataError)"}]
    rounds = [{"round": 1, "sites": {"north": {"train_loss": 0.75}}}]
    found = rows(shown(progress_table(finished(refused=refused, rounds=rounds, final={}))).replace("│", " "))
    assert found["2"] == ["of", "2", "loss", "0.750", "refused"]


def test_an_open_round_has_no_score_yet() -> None:
    text = shown(progress_table(finished(rounds=[{"round": 0, "sites": {}}], final={})))
    assert "1 of 2" in text
    assert text.count("...") == 2
    assert "final" not in text


Simulate = Callable[..., Mapping[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks for; ``results`` is what it gets."""
    seen: dict[str, Any] = {"results": finished()}

    def simulate(job: Path, *, on_progress: Callable[[Mapping[str, Any]], None], **asked: Any) -> Mapping[str, Any]:
        on_progress(seen["results"])
        seen.update(job=job, **asked)
        return seen["results"]

    monkeypatch.setattr(module, "simulate", simulate)
    return seen


def test_the_job_and_its_options_are_passed_on(calls: dict[str, Any], tmp_path: Path) -> None:
    options = ["--data", "d", "--backbone", "b", "--threads", "3"]
    assert main(["simulate", str(tmp_path), "--workspace", "w", *options]) == 0
    del calls["results"]
    assert calls == {
        "job": tmp_path,
        "workspace": Path("w"),
        "data": "d",
        "backbone": "b",
        "threads": 3,
        "overwrite": False,
    }
    calls["results"] = finished()
    assert main(["simulate", str(tmp_path), "--workspace", "w", "--overwrite"]) == 0
    assert calls["overwrite"] is True


def test_an_unknown_job_is_named(calls: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(tmp_path / "nowhere"), "--workspace", "w"]) != 0
    assert "there is no job 'nowhere'" in capsys.readouterr().err
    assert "job" not in calls


def test_a_workspace_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["simulate", "job"])
    assert "--workspace" in capsys.readouterr().err


def test_refusals_are_shown_as_they_are(
    calls: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "undeclared keys: '[/bold]', '[red]x[/red]'; only the manifest's keys may travel, float32[2, 3] or not"
    calls["results"] = finished(refused=[{"round": 1, "site": "south", "reason": reason}])
    assert main(["simulate", str(tmp_path), "--workspace", "[w]"]) == 0
    said = capsys.readouterr().out
    assert f"refused in round 1: south: {reason}" in said
    assert "results: [w]/results.json" in said


def test_what_counted_for_less_is_shown(
    calls: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = finished()
    results["rounds"][1]["limits"] = {
        "usual": 0.5,
        "clipped": {"south": {"length": 800.0, "kept": 0.003125}},
        "weights": {"south": {"claimed": 10_000_000, "counted": 72}},
    }
    calls["results"] = results
    assert main(["simulate", str(tmp_path), "--workspace", "w"]) == 0
    said = capsys.readouterr().out
    assert "weighed down in round 1: south claimed 10,000,000 cases" in said
    assert "clipped in round 1: south changed the shared tensors by 800, 1,600.0 times the median of 0.5" in said


def test_an_incomplete_run_says_so_first_and_in_its_exit_code(
    calls: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w" / "private").mkdir(parents=True)
    (tmp_path / "w" / "private" / "errors.log").write_text("Traceback\nDataError: a.nii is broken\n")
    refused = [{"round": 1, "site": "south", "reason": "NaN"}]
    calls["results"] = finished(status="incomplete", lacks=["south has no [evaluation]"], refused=refused)
    assert main(["simulate", str(tmp_path), "--workspace", str(tmp_path / "w")]) == 1
    said = capsys.readouterr().out
    parts = ["incomplete", "south has no [evaluation]", "a.nii is broken", "south: NaN", "test split after"]
    assert [said.index(part) for part in parts] == sorted(said.index(part) for part in parts)
    assert said.count("south: NaN") == 1


def test_sites_that_the_plan_allows_to_be_missing_are_said_and_the_run_is_finished(
    calls: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls["results"] = finished(absent=["south has no evaluation of the last model"])
    assert main(["simulate", str(tmp_path), "--workspace", str(tmp_path / "w")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "did without some of its sites: south has no evaluation of the last model" in said
    assert "incomplete" not in said


def test_a_failed_run_is_one_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def simulate(*_: Any, **__: Any) -> None:
        raise FedLoraError("the simulation did not finish; its log is w/simulator.log")

    monkeypatch.setattr(module, "simulate", simulate)
    assert main(["simulate", str(tmp_path), "--workspace", "w"]) != 0
    said = capsys.readouterr().err
    assert "its log is w/simulator.log" in said
    assert "Traceback" not in said


def test_a_job_for_allow_lists_is_not_given_to_the_simulator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job"
    write_job(make_plan(), make_manifest(), job, custom_folder=False)
    assert main(["simulate", str(job), "--workspace", str(tmp_path / "run")]) == 2
    assert "--in-process" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
