"""`monai-fedlora resume` writes the job that goes on where a run has stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.cli import EXIT_ERROR, main
from monai_fedlora.federated import continued
from monai_fedlora.federated.initial import save_shared
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.plan import Plan
from tests.helpers import make_manifest, make_payload, make_plan


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(continued, "build_manifest", lambda plan: make_manifest())
    plan = make_plan(rounds=5, sites=("a", "b", "c"))
    (tmp_path / "result" / "workspace").mkdir(parents=True)
    save_shared(
        tmp_path / "result" / "workspace" / "shared.safetensors",
        make_payload(make_manifest()),
        plan=plan,
        round_number=1,
    )
    return tmp_path / "result"


def test_the_rounds_that_are_left_are_written_and_named(result: Path, tmp_path: Path, capsys: Any) -> None:
    job = tmp_path / "job"
    record = {"status": "interrupted", "interrupted_by": "too_few_answers"}
    (result / "workspace" / "results.json").write_text(json.dumps(record))
    assert main(["resume", str(result), "--output", str(job), "--without", "b", "--allow-listed"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "goes on, rounds 2 to 4" in said
    assert "was interrupted (too_few_answers): too few answers to a round counted" in said
    plan = Plan.load(job / "app" / "config" / "plan.json")
    assert (plan.start_round, plan.rounds, plan.sites) == (2, 3, ("a", "b", "c"))
    assert json.loads((job / "meta.json").read_text())["deploy_map"] == {"app": ["server", "a", "c"]}
    assert not (job / "app" / "custom").exists()


def test_a_run_whose_process_was_killed_was_interrupted_as_its_report_says(
    result: Path, tmp_path: Path, capsys: Any
) -> None:
    (result / "workspace" / "results.json").write_text(json.dumps({"status": "running"}))
    assert main(["resume", str(result), "--output", str(tmp_path / "unknown")]) == 0
    assert "interrupted" not in capsys.readouterr().out
    FolderLock(result).release()
    assert main(["resume", str(result), "--output", str(tmp_path / "killed")]) == 0
    assert "was interrupted (stopped)" in " ".join(capsys.readouterr().out.split())
    with FolderLock(result):
        assert main(["resume", str(result), "--output", str(tmp_path / "at-work")]) == 0
    assert "interrupted" not in capsys.readouterr().out


def test_nothing_is_written_where_nothing_can_be_gone_on_from(result: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["resume", str(tmp_path / "elsewhere"), "--output", str(tmp_path / "job")]) == EXIT_ERROR
    assert "no round of that run came to its end" in capsys.readouterr().err
    assert main(["resume", str(result), "--output", str(tmp_path / "job"), "--without", "a,b,c"]) == EXIT_ERROR
    assert "no site is left" in capsys.readouterr().err
    assert not (tmp_path / "job").exists()
